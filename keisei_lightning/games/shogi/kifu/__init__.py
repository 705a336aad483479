"""Shogi's record formats: KIF, KI2, CSA, JKF and USI, read line by line and written by rsshogi.

:data:`FORMATS` lists them, :func:`read` and :func:`write` go between a text and a
:class:`~keisei_lightning.games.SavedGame`. Every reader plays the moves on a board as it reads, so that an illegal one
is refused with the line that it stands in.
"""

from keisei_lightning.games.shogi.kifu.formats import FORMATS, read
from keisei_lightning.games.shogi.kifu.writing import write

__all__ = ["FORMATS", "read", "write"]
