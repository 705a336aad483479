"""One game of people and policies: its course, what a policy thinks of it, and the talk about it in lines of text.

It knows no torch and no screen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keisei_lightning.system.lazy import lazy_names

if TYPE_CHECKING:
    from keisei_lightning.play.analysis import Analysis, Analyst, RankedMove, choose_move
    from keisei_lightning.play.dialogue import Dialogue
    from keisei_lightning.play.opponents import PlayerOpponent, PolicyOpponent
    from keisei_lightning.play.seats import Seats
    from keisei_lightning.play.session import GameSession, PlayedMove
    from keisei_lightning.play.strength import StrengthOptions

__all__ = [
    "Analysis",
    "Analyst",
    "Dialogue",
    "GameSession",
    "PlayedMove",
    "PlayerOpponent",
    "PolicyOpponent",
    "RankedMove",
    "Seats",
    "StrengthOptions",
    "choose_move",
]

_MODULE_OF = {
    "Analysis": "analysis",
    "Analyst": "analysis",
    "Dialogue": "dialogue",
    "GameSession": "session",
    "PlayedMove": "session",
    "PlayerOpponent": "opponents",
    "PolicyOpponent": "opponents",
    "RankedMove": "analysis",
    "Seats": "seats",
    "StrengthOptions": "strength",
    "choose_move": "analysis",
}

__getattr__ = lazy_names(__name__, _MODULE_OF, globals())
