"""The game and the network of a checkpoint, made from its recipe without calling anything that only the file names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from lightning.pytorch import LightningModule
from torch import nn
from typing_extensions import TypeIs

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameFactory, GameSpec
from keisei_lightning.models import ActorCritic, build_recorded_network
from keisei_lightning.published import checkpoint_file, is_published
from keisei_lightning.training.checkpoint_header import CheckpointHeader, Recipe, load_checked
from keisei_lightning.training.integrity import corruption
from keisei_lightning.training.recorded_game import make_recorded_game

__all__ = ["RecordedModule", "recorded_game", "recorded_network"]


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


class RecordedModule(LightningModule):
    """A module whose ``actor_critic`` can be made again from the recipe in its checkpoints."""

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | os.PathLike[str] | IO[bytes],
        map_location: Any = None,
        hparams_file: str | os.PathLike[str] | None = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        **kwargs: Any,
    ) -> Self:
        """Load a module as Lightning does; without ``actor_critic``, the network is made from the checkpoint's recipe.

        Args:
            checkpoint_path: a checkpoint file of a run, or the name of a published policy; with ``actor_critic`` also
                an open file.
            map_location: where the weights are put.
            hparams_file: hyperparameters that replace the checkpoint's.
            strict: the names of the weights must be exactly those of the network.
            weights_only: run no code from the file; False only for a file that you trust.
            **kwargs: arguments of the module that replace the checkpoint's hyperparameters.

        Raises:
            ConfigError: the file cannot be read, or has no recipe; its network is neither of this package nor
                registered by another one; or the weights are those of another network.
        """
        if isinstance(checkpoint_path, str | os.PathLike) and is_published(checkpoint_path):
            checkpoint_path = checkpoint_file(checkpoint_path)
        if "actor_critic" not in kwargs:
            kwargs = recorded_arguments(checkpoint_path) | kwargs
        elif _is_file(checkpoint_path) and (problem := corruption(checkpoint_path)) is not None:
            raise ConfigError(f"checkpoint_path={checkpoint_path}: cannot be read as a checkpoint ({problem})")
        loaded: Self = super().load_from_checkpoint(
            checkpoint_path,  # type: ignore[arg-type]  # its own type leaves os.PathLike out
            map_location=map_location,
            hparams_file=hparams_file,  # type: ignore[arg-type]
            strict=strict,
            weights_only=weights_only,
            **kwargs,
        )
        return loaded


def _is_file(path: object) -> TypeIs[str | os.PathLike[str]]:
    """Whether it names a file: neither an open file nor a URL."""
    return isinstance(path, str | os.PathLike) and os.path.isfile(path)


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
