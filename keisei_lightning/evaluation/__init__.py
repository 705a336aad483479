"""How strong is a player: matches with counted results, and the players for them."""

from keisei_lightning.evaluation.arena import MatchResult, Tally, play_match, wilson_interval
from keisei_lightning.evaluation.players import Player, PolicyPlayer, RandomPlayer

__all__ = ["MatchResult", "Player", "PolicyPlayer", "RandomPlayer", "Tally", "play_match", "wilson_interval"]
