"""Which format a file's ending stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from keisei_lightning.errors import GameError
from keisei_lightning.games.saved_game import SavedGame
from keisei_lightning.games.shogi.kifu.csa import read_csa
from keisei_lightning.games.shogi.kifu.jkf import read_jkf
from keisei_lightning.games.shogi.kifu.kif import read_ki2, read_kif
from keisei_lightning.games.shogi.kifu.usi import read_usi

__all__ = ["FORMATS", "read"]

FORMATS: Final[Mapping[str, str]] = {
    ".kifu": "utf-8",
    ".csa": "utf-8",
    ".kif": "cp932",
    ".ki2u": "utf-8",
    ".ki2": "cp932",
    ".jkf": "utf-8",
    ".usi": "utf-8",
}
"""Endings of files, and how such a file is written; ``.kif`` and ``.ki2`` mean Shift JIS to other programs."""

_READERS: Final[Mapping[str, Callable[[str], SavedGame]]] = {
    ".kifu": read_kif,
    ".kif": read_kif,
    ".ki2u": read_ki2,
    ".ki2": read_ki2,
    ".csa": read_csa,
    ".jkf": read_jkf,
    ".usi": read_usi,
}


def read(text: str, suffix: str) -> SavedGame:
    """A game of a record's text.

    Args:
        text: of the record.
        suffix: one of :data:`FORMATS`.

    Raises:
        GameError: see :meth:`~keisei_lightning.games.ReplayableGame.read_record`.
    """
    if suffix not in _READERS:
        raise GameError(f"{suffix}: is no record format of shogi; must be one of {', '.join(FORMATS)}")
    return _READERS[suffix](text)
