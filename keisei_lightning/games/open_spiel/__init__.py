"""Games of OpenSpiel.

``OpenSpielGame`` is imported when it is first used: OpenSpiel is needed for boards, not for names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keisei_lightning.system.lazy import lazy_names

if TYPE_CHECKING:
    from keisei_lightning.games.open_spiel.game import OpenSpielGame

__all__ = ["OpenSpielGame"]

__getattr__ = lazy_names(__name__, {"OpenSpielGame": "game"}, globals())
