"""Measure a player's strength: players, matches, ratings, labelled positions and exact measures of small games."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keisei_lightning.system.lazy import lazy_names

if TYPE_CHECKING:
    from keisei_lightning.evaluation.arena import play_match
    from keisei_lightning.evaluation.ladder import Ladder, ladder_names, load_ladder
    from keisei_lightning.evaluation.players import RESIGN, Player, RandomPlayer, Turn
    from keisei_lightning.evaluation.policy_player import PolicyPlayer
    from keisei_lightning.evaluation.ratings import Rating, play_round_robin, rate_against, rate_players
    from keisei_lightning.evaluation.registry import closing_player, make_player, register_player, start_player
    from keisei_lightning.evaluation.results import GameRecord, MatchResult, Tally, wilson_interval
    from keisei_lightning.evaluation.search_player import SearchPlayer

__all__ = [
    "RESIGN",
    "GameRecord",
    "Ladder",
    "MatchResult",
    "Player",
    "PolicyPlayer",
    "RandomPlayer",
    "Rating",
    "SearchPlayer",
    "Tally",
    "Turn",
    "closing_player",
    "ladder_names",
    "load_ladder",
    "make_player",
    "play_match",
    "play_round_robin",
    "rate_against",
    "rate_players",
    "register_player",
    "start_player",
    "wilson_interval",
]

_MODULE_OF = {
    "RESIGN": "players",
    "GameRecord": "results",
    "Ladder": "ladder",
    "MatchResult": "results",
    "Player": "players",
    "PolicyPlayer": "policy_player",
    "RandomPlayer": "players",
    "Rating": "ratings",
    "SearchPlayer": "search_player",
    "Tally": "results",
    "Turn": "players",
    "closing_player": "registry",
    "ladder_names": "ladder",
    "load_ladder": "ladder",
    "make_player": "registry",
    "play_match": "arena",
    "play_round_robin": "ratings",
    "rate_against": "ratings",
    "rate_players": "ratings",
    "register_player": "registry",
    "start_player": "registry",
    "wilson_interval": "results",
}

# To check a player's name, or to play without a network, needs no torch.
__getattr__ = lazy_names(__name__, _MODULE_OF, globals())
