"""Shogi: rules, boards, observations, actions and records.

``Shogi`` is imported when it is first used: rsshogi is needed for boards, not for names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keisei_lightning.system.lazy import lazy_names

if TYPE_CHECKING:
    from keisei_lightning.games.shogi.game import Shogi

__all__ = ["Shogi"]

__getattr__ = lazy_names(__name__, {"Shogi": "game"}, globals())
