"""Policies from checkpoints: the game and the network that a file tells of, and never code that it asks for.

A checkpoint, and the configuration that lies beside it, may come from anybody. From them only registered games, our own
networks and registered ones are made, with plain values; any other network is made only if the caller names it. Nothing
of theirs goes through Hydra's ``instantiate``, and no interpolation of theirs is resolved.
"""

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
from yaml import YAMLError  # type: ignore[import-untyped]

from keisei_lightning.config.compose_errors import known_keys, no_such_key
from keisei_lightning.config.game_checks import game_options
from keisei_lightning.config.targets import model_errors
from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameFactory, GameSpec
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.models.output_check import check_network
from keisei_lightning.models.registry import OUR_NETWORKS, not_plain
from keisei_lightning.published import checkpoint_file
from keisei_lightning.system.devices import device_errors, resolve_device_name
from keisei_lightning.training.checkpoint_header import CheckpointHeader, Recipe
from keisei_lightning.training.policy_weights import put_weights, read_checkpoint
from keisei_lightning.training.recorded import recorded_game, recorded_network

__all__ = ["LoadedPolicy", "device_of", "load_policy"]

_GIVE_IT = (
    "and no .hydra/config.yaml is in its run's folder; give it, such as model={kind:resnet,num_blocks:2,channels:32}"
)


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


def device_of(name: str, *, key: str = "device") -> str:
    """The device that an option names.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N".
        key: of the option, for the message.

    Raises:
        ConfigError: there is no such device.
    """
    count = torch.cuda.device_count() if name != "cpu" else 0
    if errors := device_errors(key, name, num_cuda_devices=count):
        raise ConfigError(errors)
    return resolve_device_name(name, num_cuda_devices=count)


def load_policy(
    path: str | os.PathLike[str],
    model: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
) -> LoadedPolicy:
    """Read a policy from a checkpoint of a training run.

    The game and the network are what the checkpoint says, or the run's ``.hydra/config.yaml`` for a checkpoint of
    version 0.1. Either may come from anybody, so a network that is neither ours nor registered by its package (see
    :mod:`keisei_lightning.models.registry`) is made only if ``model`` names it.

    Args:
        path: a checkpoint file, or the name of a published policy, such as ``"published:shogi"``.
        model: the network, as in section ``model`` of the configuration; without ``_target_`` one of ours. It is
            trusted: what it names is called. None: as above.
        device: where the policy is put.

    Raises:
        ConfigError: the file is missing, corrupt, or no checkpoint of this package; the game or the network is not
            told, cannot be made, or is not the one of the weights.
    """
    name, file = str(path), checkpoint_file(path)
    checkpoint, header = read_checkpoint(path)
    recipe = Recipe.from_checkpoint(checkpoint, path=name) or _recipe_of_run(file)
    recipe = recipe or Recipe(game=header.game, game_options={}, model={})
    game, spec = recorded_game(recipe, path=name)
    header.check(spec, path=name)
    if model is None:
        actor_critic = ActorCritic(recorded_network(recipe.model, spec, path=name, otherwise=_GIVE_IT))
    else:
        actor_critic = ActorCritic(_named_network(model, spec))
    put_weights(checkpoint, actor_critic, path=name)
    check_network(actor_critic, spec, key=f"ckpt_path={name}: network")
    return LoadedPolicy(
        actor_critic=actor_critic.to(device).eval(),
        game=game,
        header=header,
        recipe=Recipe(
            game=recipe.game, game_options=recipe.game_options, model=dict(recipe.model if model is None else model)
        ),
    )


def _recipe_of_run(path: Path) -> Recipe | None:
    """What the configuration of the run says, whose folder the checkpoint lies in; None: there is none.

    Raises:
        ConfigError: it cannot be read, or holds more than plain values.
    """
    file = path.absolute().parent.parent / ".hydra" / "config.yaml"
    if not file.is_file():
        return None
    try:
        cfg: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        env, model = cfg["env"], cfg["model"]
        options = {key: value for key, value in model.items() if key != "_target_"}
        errors = [*not_plain(env, "env"), *not_plain(options, "model")]
        if not errors:
            game = game_options(OmegaConf.create({"env": env}))
            return Recipe(game=env["game"], game_options=game, model=dict(model))
    except (
        *(OmegaConfBaseException, YAMLError, AttributeError, TypeError, ValueError, KeyError, OSError),
        *(AssertionError, RecursionError, ConfigError),
    ) as error:
        errors = [" ".join(str(error).split()) or type(error).__name__]
    raise ConfigError(f"ckpt_path={path}: the run's {file} cannot be read ({errors[0]})")


def _named_network(model: Mapping[str, Any], spec: GameSpec) -> torch.nn.Module:
    """The network that the caller names, from its section of the configuration.

    Raises:
        ConfigError: it is not there, or does not take these keys.
    """
    target = model.get("_target_", OUR_NETWORKS)
    if target == OUR_NETWORKS:
        keywords = {key: value for key, value in model.items() if key != "_target_"}
        if errors := [no_such_key(f"model.{key}", keywords[key]) for key in keywords if key not in known_keys("model")]:
            raise ConfigError(errors)
        return build_network(spec, **keywords)
    cfg = OmegaConf.create({"model": dict(model)})
    if errors := list(model_errors(cfg)):
        raise ConfigError(errors)
    network = instantiate(cfg.model, _partial_=True, _convert_="all")(spec=spec)
    if not isinstance(network, torch.nn.Module):
        raise ConfigError(f"model._target_={target}: makes a {type(network).__name__}; must make a torch.nn.Module")
    return network
