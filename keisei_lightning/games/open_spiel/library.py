"""What OpenSpiel's library has: games by their strings, and which of them self-play can train."""

from __future__ import annotations

from typing import Any

import pyspiel

from keisei_lightning.errors import UnsupportedGameError

__all__ = ["canonical_string", "is_known", "load", "longest_game"]


def is_known(game_string: str) -> bool:
    """Whether OpenSpiel has a game of that name (its parameters are not checked)."""
    return game_string.partition("(")[0].strip() in pyspiel.registered_names()


def load(game_string: str) -> Any:
    """Load an OpenSpiel game and make sure that self-play can train it.

    Args:
        game_string: for example ``"connect_four"`` or ``"hex(board_size=5)"``.

    Returns:
        The ``pyspiel.Game``.

    Raises:
        UnsupportedGameError: the game is unknown, has bad parameters, or is of another kind.
    """
    if not is_known(game_string):  # asked first: OpenSpiel itself would print all its games to stderr
        raise UnsupportedGameError(f"there is no OpenSpiel game {game_string!r}")
    try:
        game = pyspiel.load_game("".join(game_string.split()))  # OpenSpiel takes a blank for a part of the name
        kind = game.get_type()
        reason = _why_not(game, kind)
        if not reason:
            game.observation_tensor_shape()
    except (pyspiel.SpielError, RuntimeError, ValueError) as error:
        raise UnsupportedGameError(f"{game_string}: OpenSpiel refuses it: {str(error).splitlines()[0]}") from error
    if reason:
        raise UnsupportedGameError(
            f"{game_string}: {reason}; only sequential two-player zero-sum perfect-information games can be trained"
        )
    if _swaps(game) and game.get_parameters()["num_rows"] != game.get_parameters()["num_cols"]:
        # It transposes the stone, and writes beside a board that has no such square.
        raise UnsupportedGameError(f"{game_string}: swap=true must have as many rows as columns in OpenSpiel's hex")
    return game


def _swaps(game: Any) -> bool:
    """Whether the second player of hex may take over the first stone."""
    return game.get_type().short_name == "hex" and bool(game.get_parameters()["swap"])


def _why_not(game: Any, kind: Any) -> str:
    """Why a game cannot be trained by self-play; empty where it can."""
    types = pyspiel.GameType
    reasons = {
        f"it has {game.num_players()} players": game.num_players() != 2,
        "its players move at the same time": kind.dynamics != types.Dynamics.SEQUENTIAL,
        "it has chance moves": kind.chance_mode != types.ChanceMode.DETERMINISTIC,
        "it hides information": kind.information != types.Information.PERFECT_INFORMATION,
        "it is not zero-sum": kind.utility != types.Utility.ZERO_SUM,
        "it has no observation tensor": not kind.provides_observation_tensor,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def longest_game(game: Any) -> int:
    """Plies of the longest game.

    OpenSpiel's own number leaves out the swap in hex, which is a ply of its own: with it a full board takes one more.

    Args:
        game: a ``pyspiel.Game``.
    """
    return int(game.max_game_length()) + _swaps(game)


def canonical_string(game_string: str) -> str:
    """The one spelling of a game string: sorted parameters, no empty parentheses.

    Raises:
        UnsupportedGameError: see :func:`load`.
    """
    return str(load(game_string)).removesuffix("()")
