"""The game that a file names: a registered one, with plain options, and nothing that only the file chose. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameFactory, GameSpec, game_factory
from keisei_lightning.models.registry import not_plain

__all__ = ["make_recorded_game"]


def make_recorded_game(name: str, options: Mapping[str, Any], *, key: str) -> tuple[GameFactory, GameSpec]:
    """Make a game that a file names.

    Args:
        name: of the game.
        options: keyword arguments of its maker.
        key: what the message begins with, such as ``"ckpt_path=last.ckpt"``.

    Returns:
        What makes the game's boards, and the game's specification.

    Raises:
        ConfigError: there is no such game, or it cannot be made.
    """
    if error_line := next(not_plain({"game": name, "options": options}, "env"), None):
        raise ConfigError(f"{key}: {error_line}")
    try:
        game = game_factory(name, **options)
        return game, game(1).spec
    except Exception as error:  # a third party's game may raise anything, and a file may give it any options
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{key}: its game {name} cannot be made ({reason})") from error
