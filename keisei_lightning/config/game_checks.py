"""Checks of a configuration that need its game, but no torch: the players, the symmetry, and the memory of rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from keisei_lightning.config.option_checks import is_our_network, parallel_options
from keisei_lightning.errors import ConfigError, KeiseiError
from keisei_lightning.evaluation.ladder import load_ladder
from keisei_lightning.evaluation.registry import closing_player, make_player
from keisei_lightning.games import GameSpec, make_game
from keisei_lightning.games.registry import takes_option
from keisei_lightning.models.equivariance import equivariance_errors
from keisei_lightning.parallel.options import worker_demand
from keisei_lightning.system.limits import MemoryDemand, memory_errors

__all__ = ["game_errors", "game_options", "game_spec"]

_OTHER_BYTES_PER_PLY = 54
"""Bytes of a ply in a slot beside its observation and mask; a test holds it to ``SlotLayout.bytes_per_ply``."""


def game_spec(cfg: DictConfig) -> GameSpec:
    """Make the game once, to see that it can be made and what it is like.

    Args:
        cfg: a configuration whose options are legal.

    Raises:
        ConfigError: it cannot be made, or not with these options.
    """
    env = cfg.env
    try:
        return make_game(env.game, 1, **game_options(cfg)).spec
    except ConfigError as error:
        lines = [" ".join(line.split()).removeprefix(f"game {env.game}: ") for line in error.errors]
        raise ConfigError(
            [line if line.startswith("env.") else f"env.game={env.game}: {line}" for line in lines]
        ) from error
    except Exception as error:  # a third party's game may raise anything; a worker would as well
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        options = f" with env.options={dict(env.options)}" if env.options else ""
        raise ConfigError(
            f"env.game={env.game}: cannot be made{options} ({reason}); see `keisei games` for those that can"
        ) from error


def game_options(cfg: DictConfig) -> dict[str, Any]:
    """Keyword arguments for the game's maker, in plain containers.

    ``env.opening_plies`` and ``env.max_plies`` are passed to a game that has such an option; a game need not have any.

    Args:
        cfg: a configuration; of it section ``env`` is looked at.

    Raises:
        ConfigError: there is no such game; or one of the two is given, and the game has no such option.
    """
    env, options, errors = cfg.env, {}, []
    for key, nothing in (("opening_plies", 0), ("max_plies", None)):
        value = env[key]
        if takes_option(env.game, key):
            if value is not None:
                options[key] = value
        elif value != nothing:
            legal = "null" if nothing is None else nothing
            errors.append(f"env.{key}={value}: must be {legal}, as with env=own ({env.game} has no such option)")
    if errors:
        raise ConfigError(errors)
    further = OmegaConf.to_container(env.options, resolve=True)
    assert isinstance(further, dict)
    return {**options, **{str(key): value for key, value in further.items()}}


def game_errors(cfg: DictConfig, spec: GameSpec) -> Iterator[str]:
    """What follows from what the game is like.

    Args:
        cfg: a configuration whose options are legal.
        spec: of its game.

    Yields:
        A line for each error.
    """
    parallel, workers, _ = parallel_options(cfg)
    if parallel.augment_symmetry and not spec.symmetries:
        yield f"parallel.augment_symmetry=true: must be false ({spec.name} has no symmetry)"
    if is_our_network(cfg) and cfg.model.equivariant:
        yield from equivariance_errors(spec, kind=cfg.model.kind, channels=cfg.model.channels, prefix="model.")
    yield from _player_errors(cfg, spec)
    rollouts = MemoryDemand(
        slots_per_worker=parallel.slots_per_worker if parallel.schedule == "async" else 1,
        games_per_worker=parallel.games_per_worker,
        plies_per_rollout=parallel.plies_per_rollout,
        bytes_per_ply=spec.observation_bytes + spec.mask_bytes + _OTHER_BYTES_PER_PLY,
    )
    yield from memory_errors(worker_demand(parallel, workers, int(parallel.num_workers)), rollouts, prefix="parallel.")


def _player_errors(cfg: DictConfig, spec: GameSpec) -> Iterator[str]:
    """Make each opponent, which starts nothing, to see that it takes its options and can play the game."""
    for name in cfg.evaluation.opponents:
        try:
            with closing_player(make_player(name, spec)):
                pass
        except KeiseiError as error:
            for line in getattr(error, "errors", [str(error)]):
                yield f"evaluation.opponents={name}: {' '.join(line.split())}"
    if cfg.evaluation.ladder is not None and (game := load_ladder(cfg.evaluation.ladder).game) != spec.name:
        yield f"evaluation.ladder={cfg.evaluation.ladder}: is one of {game}; must be one of {spec.name}"
