"""One game of people and policies: its course, and what a policy thinks of it. It knows no torch and no screen."""

from keisei_lightning.play.analysis import Analysis, Analyst, RankedMove, choose_move
from keisei_lightning.play.session import GameSession, PlayedMove

__all__ = ["Analysis", "Analyst", "GameSession", "PlayedMove", "RankedMove", "choose_move"]
