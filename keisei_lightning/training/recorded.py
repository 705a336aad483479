"""The game and the network of a checkpoint, made from its recipe without calling anything that only the file names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from torch import nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameFactory, GameSpec
from keisei_lightning.models import ActorCritic, build_recorded_network
from keisei_lightning.training.checkpoint_header import CheckpointHeader, Recipe, load_checked
from keisei_lightning.training.recorded_game import make_recorded_game

__all__ = ["recorded_arguments", "recorded_game", "recorded_network"]


def recorded_game(recipe: Recipe, *, path: str) -> tuple[GameFactory, GameSpec]:
    """Make the game of a recipe: one that is registered here, with plain options.

    Args:
        recipe: of a checkpoint.
        path: of the checkpoint, for the message.

    Returns:
        What makes the game's boards, and the game's specification.

    Raises:
        ConfigError: there is no such game, or it cannot be made.
    """
    return make_recorded_game(recipe.game, recipe.game_options, key=f"ckpt_path={path}")


def recorded_network(model: Mapping[str, Any], spec: GameSpec, *, path: str, otherwise: str) -> nn.Module:
    """Make the network of a recipe: one of this package, or one that another package has registered.

    Args:
        model: of a recipe.
        spec: of the game.
        path: of the checkpoint, for the message.
        otherwise: what to do where the recipe has no network, for the message.

    Raises:
        ConfigError: the recipe has no network, or one that is not registered or cannot be made.
    """
    if not model:
        raise ConfigError(f"ckpt_path={path}: does not name its network, {otherwise}")
    try:
        return build_recorded_network(model, spec)
    except ConfigError as error:
        raise ConfigError([f"ckpt_path={path}: {line}" for line in error.errors]) from error


def recorded_arguments(path: str | os.PathLike[str] | IO[bytes]) -> dict[str, Any]:
    """Arguments of a ``PPOModule`` from a checkpoint's recipe: ``actor_critic``, ``spec`` and ``recipe``.

    Args:
        path: a checkpoint file.

    Raises:
        ConfigError: it cannot be read, has no recipe, or one whose network is not registered.
    """
    give = "give the module's network as actor_critic=ActorCritic(...)"
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"checkpoint_path={path!r}: must be a path, or {give}")
    name = os.fspath(path)
    if not Path(name).is_file():
        raise ConfigError(f"checkpoint_path={name}: there is no such file")
    checkpoint = load_checked(name, map_location="cpu", mmap=True)
    header = CheckpointHeader.from_checkpoint(checkpoint, path=name)
    recipe = Recipe.from_checkpoint(checkpoint, path=name) or Recipe(game=header.game, game_options={}, model={})
    _, spec = recorded_game(recipe, path=name)
    network = recorded_network(recipe.model, spec, path=name, otherwise=give)
    return {"actor_critic": ActorCritic(network), "spec": spec, "recipe": recipe.to_dict()}
