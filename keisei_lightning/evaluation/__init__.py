"""How strong is a player: matches with counted results, and the players for them."""

from keisei_lightning.evaluation.arena import play_match
from keisei_lightning.evaluation.players import RESIGN, Player, PolicyPlayer, RandomPlayer, Turn
from keisei_lightning.evaluation.ratings import Rating, play_round_robin, rate_against, rate_players
from keisei_lightning.evaluation.registry import closing_player, make_player, register_player
from keisei_lightning.evaluation.results import GameRecord, MatchResult, Tally, wilson_interval

__all__ = [
    "RESIGN",
    "GameRecord",
    "MatchResult",
    "Player",
    "PolicyPlayer",
    "RandomPlayer",
    "Rating",
    "Tally",
    "Turn",
    "closing_player",
    "make_player",
    "play_match",
    "play_round_robin",
    "rate_against",
    "rate_players",
    "register_player",
    "wilson_interval",
]
