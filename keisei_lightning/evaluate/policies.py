"""Policies from checkpoints: the game and the network that a file tells of, and never code that it asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from keisei_lightning.compose_errors import known_keys, no_such_key
from keisei_lightning.errors import ConfigError
from keisei_lightning.game_checks import game_options
from keisei_lightning.games import GameFactory, GameSpec, game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.models.output_check import check_network
from keisei_lightning.plugins import OUR_NETWORKS, model_faults
from keisei_lightning.training.checkpoint import AtomicCheckpointIO
from keisei_lightning.training.checkpoint_header import CheckpointHeader, Recipe, network_faults

__all__ = ["LoadedPolicy", "load_policy"]

_PREFIX = "actor_critic."
"""Where the module keeps the policy in its state dictionary."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPolicy:
    """A policy that is ready to play.

    Attributes:
        actor_critic: the network with the checkpoint's weights, in evaluation mode, on the device.
        game: makes the boards that it was trained on.
        header: what the checkpoint says of its game.
        recipe: what game and network were made from.
    """

    actor_critic: ActorCritic
    game: GameFactory
    header: CheckpointHeader
    recipe: Recipe


def load_policy(
    path: str | os.PathLike[str],
    model: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
) -> LoadedPolicy:
    """Read a policy from a checkpoint of a training run.

    The game and the network are what the checkpoint says, or the run's ``.hydra/config.yaml`` for a checkpoint of
    version 0.1. A network that is not one of ours (a ``_target_`` of a third party) is built only if ``model`` or that
    configuration file names it too: a checkpoint alone must not choose what is called.

    Args:
        path: a checkpoint file.
        model: the network, as in section ``model`` of the configuration; without ``_target_`` one of ours. None: as
            above.
        device: where the policy is put.

    Raises:
        ConfigError: the file is missing, damaged, or no checkpoint of this package; the game or the network is not
            told, cannot be made, or is not the one of the weights.
    """
    name = str(path)
    if not Path(path).is_file():
        raise ConfigError(f"ckpt_path={name}: there is no such file")
    checkpoint = AtomicCheckpointIO().load_checkpoint(path, map_location="cpu")  # type: ignore[arg-type]
    header = CheckpointHeader.from_checkpoint(checkpoint, path=name)
    told, of_run = Recipe.from_checkpoint(checkpoint, path=name), _recipe_of_run(Path(path))
    recipe = told or of_run or Recipe(game=header.game, game_options={}, model={})
    network = dict(model) if model is not None else _trusted_model(name, recipe, of_run)
    game = game_factory(recipe.game, **recipe.game_options)
    spec = game(1).spec
    header.check(spec, path=name)
    actor_critic = ActorCritic(_build_network(network, spec))
    weights = {
        key.removeprefix(_PREFIX): value for key, value in checkpoint["state_dict"].items() if key.startswith(_PREFIX)
    }
    if faults := network_faults(weights, actor_critic.state_dict(), path=name):
        raise ConfigError(faults)
    actor_critic.load_state_dict(weights)
    check_network(actor_critic, spec, key=f"ckpt_path={name}: network")
    return LoadedPolicy(
        actor_critic=actor_critic.to(device).eval(),
        game=game,
        header=header,
        recipe=Recipe(game=recipe.game, game_options=recipe.game_options, model=network),
    )


def _recipe_of_run(path: Path) -> Recipe | None:
    """What the configuration of the run says, whose folder the checkpoint lies in; None: there is none."""
    file = path.absolute().parent.parent / ".hydra" / "config.yaml"
    if not file.is_file():
        return None
    try:
        cfg = OmegaConf.load(file)
        model = OmegaConf.to_container(cfg.model, resolve=True)
        assert isinstance(model, dict)
        return Recipe(
            game=cfg.env.game,
            game_options=game_options(cfg),  # type: ignore[arg-type]
            model={str(key): value for key, value in model.items()},
        )
    except (OmegaConfBaseException, AttributeError, TypeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"ckpt_path={path}: the run's {file} cannot be read ({reason})") from error


def _trusted_model(name: str, recipe: Recipe, of_run: Recipe | None) -> dict[str, Any]:
    """The network that may be built without being asked for.

    Raises:
        ConfigError: none is told, or only the checkpoint names it and it is not ours.
    """
    if not recipe.model:
        raise ConfigError(
            f"ckpt_path={name}: does not tell its network, and no .hydra/config.yaml is in its run's folder; "
            "give it, such as model={kind:resnet,num_blocks:2,channels:32}"
        )
    target = recipe.model.get("_target_", OUR_NETWORKS)
    if target == OUR_NETWORKS:
        return dict(recipe.model)
    if of_run is not None and of_run.model.get("_target_") == target:
        return dict(of_run.model)
    raise ConfigError(
        f"ckpt_path={name}: its network is {target}, and a checkpoint may not choose what is called; "
        f"if you trust it, give it yourself as model._target_={target}, with its other keys"
    )


def _build_network(model: Mapping[str, Any], spec: GameSpec) -> torch.nn.Module:
    """A network from its section of the configuration."""
    target = model.get("_target_", OUR_NETWORKS)
    if target == OUR_NETWORKS:
        keywords = {key: value for key, value in model.items() if key != "_target_"}
        if faults := [no_such_key(f"model.{key}", keywords[key]) for key in keywords if key not in known_keys("model")]:
            raise ConfigError(faults)
        return build_network(spec, **keywords)
    cfg = OmegaConf.create({"model": dict(model)})
    if faults := list(model_faults(cfg)):
        raise ConfigError(faults)
    network = instantiate(cfg.model, _partial_=True, _convert_="all")(spec=spec)
    if not isinstance(network, torch.nn.Module):
        raise ConfigError(f"model._target_={target}: makes a {type(network).__name__}; must make a torch.nn.Module")
    return network
