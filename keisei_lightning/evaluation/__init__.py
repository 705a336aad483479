"""How strong is a player: matches with counted results, and the players for them."""

from keisei_lightning.evaluation.arena import play_match
from keisei_lightning.evaluation.players import RESIGN, Player, PolicyPlayer, RandomPlayer, Turn
from keisei_lightning.evaluation.results import GameRecord, MatchResult, Tally, wilson_interval

__all__ = [
    "RESIGN",
    "GameRecord",
    "MatchResult",
    "Player",
    "PolicyPlayer",
    "RandomPlayer",
    "Tally",
    "Turn",
    "play_match",
    "wilson_interval",
]
