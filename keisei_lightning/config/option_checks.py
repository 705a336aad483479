"""Checks of a configuration that need neither torch nor a game: names, declarations, and what goes together.

Each error is one line: key, value, what is allowed, and the arithmetic where there is one.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from keisei_lightning.config.compose_errors import known_keys, no_such_key
from keisei_lightning.config.ranks import rank_errors, ranks_to_start
from keisei_lightning.config.schemas import SECTIONS
from keisei_lightning.config.targets import callback_errors, logger_errors, trainer_errors
from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.ladder import load_ladder
from keisei_lightning.evaluation.registry import parse_player
from keisei_lightning.games import canonical_name, game_names
from keisei_lightning.models.registry import OUR_NETWORKS
from keisei_lightning.parallel.options import (
    ClusterOptions,
    CollectorOptions,
    OpponentOptions,
    SupervisionOptions,
    WorkerOptions,
    collector_errors,
    least_agents,
    with_number_of_workers,
)
from keisei_lightning.system.options import Declaration, declared
from keisei_lightning.system.paths import no_path, one_line, path_errors
from keisei_lightning.training.integrity import checkpoint_files

__all__ = [
    "declared_errors",
    "folder_errors",
    "is_our_network",
    "made",
    "missing_keys",
    "opponent_options",
    "option_errors",
    "parallel_options",
    "publishes_per_iteration",
]

T = TypeVar("T")


def option_errors(cfg: DictConfig) -> list[str]:
    """Everything that can be told without torch and without making the game.

    Args:
        cfg: a composed configuration without :func:`missing_keys`.

    Returns:
        A line for each error. What follows from several keys is told when each of them is legal.
    """
    errors = [*_unknown_keys(cfg), *declared_errors(cfg)]
    wrong = {error.partition("=")[0].rpartition(".")[0] for error in errors}

    def is_legal(*sections: str) -> bool:
        return wrong.isdisjoint(sections)

    errors += [*folder_errors(cfg), *_checkpoint_path_errors(cfg)]
    errors += [*trainer_errors(cfg), *logger_errors(cfg), *callback_errors(cfg)]
    if is_legal("trainer"):
        errors += rank_errors(cfg)
    if is_legal("env"):
        errors += _game_name_errors(cfg)
    if is_legal("evaluation"):
        errors += [*_evaluation_errors(cfg), *_player_name_errors(cfg)]
    if is_legal("parallel", "opponents"):
        collecting = list(
            collector_errors(
                *parallel_options(cfg), opponent_options(cfg), made(ClusterOptions, cfg.parallel), prefix="parallel."
            )
        )
        errors += collecting
        if not collecting and is_legal("ppo", "trainer", "weight_sync"):
            errors += _batch_errors(cfg)
    return errors


def parallel_options(cfg: DictConfig) -> tuple[CollectorOptions, WorkerOptions, SupervisionOptions]:
    """The options of section ``parallel``, with a number of workers.

    Args:
        cfg: a composed configuration, in which they are legal.
    """
    options, workers, supervision = (
        made(CollectorOptions, cfg.parallel),
        made(WorkerOptions, cfg.parallel),
        made(SupervisionOptions, cfg.parallel),
    )
    learns_on_cpu = cfg.trainer.accelerator == "cpu"
    if options.num_workers == "auto":
        options = with_number_of_workers(
            options,
            workers,
            made(ClusterOptions, cfg.parallel),
            learns_on_cpu=learns_on_cpu,
            num_learners=ranks_to_start(cfg),
        )
    return options, workers, supervision


def opponent_options(cfg: DictConfig) -> OpponentOptions | None:
    """The options of the pool of opponents; None: there is none.

    Args:
        cfg: a composed configuration, in which they are legal.
    """
    return made(OpponentOptions, cfg.opponents) if cfg.opponents.mode == "snapshots" else None


def made(options: type[T], section: DictConfig) -> T:
    """Options as their component takes them; keys of the section that are not theirs are left out.

    Args:
        options: their class.
        section: that their values are in.

    Raises:
        ConfigError: with a line for each value that is not legal.
    """
    cls: type = options
    values: Any = OmegaConf.to_container(section, resolve=True)
    return options(**{each.name: values[each.name] for each in declared(cls) if each.name in values})


def missing_keys(cfg: DictConfig) -> list[str]:
    """What ``???`` stands for, and sections that were taken away (``~ppo``, ``model=null``).

    Args:
        cfg: a composed configuration.
    """
    return sorted([*set(known_keys("")).difference(map(str, cfg.keys())), *_question_marks(cfg)])


def _question_marks(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    """Full names of keys whose value is ``???``; nothing is resolved, as the run's folder has no name yet."""
    for key in map(str, cfg):
        if OmegaConf.is_missing(cfg, key):
            yield prefix + key
        elif not OmegaConf.is_interpolation(cfg, key) and OmegaConf.is_dict(cfg[key]):
            yield from _question_marks(cfg[key], f"{prefix}{key}.")


def _unknown_keys(cfg: DictConfig) -> Iterator[str]:
    """Keys that were added with a ``+`` and that nobody reads."""
    for section, _ in _our_sections(cfg):
        # The trainer's keys are passed on to Lightning, which has more than ours.
        values = _section(cfg, section)
        for key in () if section == "trainer" else map(str, values):
            if key != "_target_" and key not in known_keys(section):
                yield no_such_key(f"{section}.{key}" if section else key, values[key])


def declared_errors(cfg: DictConfig) -> Iterator[str]:
    """Values that are not what their option's declaration allows: a line each.

    Args:
        cfg: a composed configuration without :func:`missing_keys`.
    """
    for section, options in _our_sections(cfg):
        values = _section(cfg, section)
        for option in options:
            if option.name in values and (
                error := option.error(values[option.name], prefix=f"{section}." if section else "", none="null")
            ):
                yield error


def _our_sections(cfg: DictConfig) -> Iterator[tuple[str, tuple[Declaration, ...]]]:
    """Sections whose keys we know the meaning of: a third party's network has keys of its own."""
    return ((name, options) for name, options in SECTIONS.items() if name != "model" or is_our_network(cfg))


def _section(cfg: DictConfig, name: str) -> DictConfig:
    return cfg[name] if name else cfg


def is_our_network(cfg: DictConfig) -> bool:
    """Whether the network is one of ours.

    Args:
        cfg: a composed configuration.
    """
    return bool(cfg.model.get("_target_") == OUR_NETWORKS)


def _evaluation_errors(cfg: DictConfig) -> Iterator[str]:
    every, ago = cfg.evaluation.every_n_epochs, cfg.evaluation.against_epochs_ago
    if ago is not None and (every < 1 or ago % every):
        yield f"evaluation.against_epochs_ago={ago}: must be a multiple of evaluation.every_n_epochs={every} (above 0)"
    if not cfg.evaluation.opponents:
        yield "evaluation.opponents=[]: must name one player or more, such as random"


def _player_name_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether there are such players; what their options may be is told with the game."""
    opponents = set()
    for name in cfg.evaluation.opponents:
        try:
            opponents.add(parse_player(name).text)
        except ConfigError as error:
            yield from (f"evaluation.opponents={name}: {' '.join(line.split())}" for line in error.errors)
    yield from _ladder_errors(cfg, opponents)


def _ladder_errors(cfg: DictConfig, opponents: Set[str]) -> Iterator[str]:
    """Whether there is such a ladder, and anybody to meet on it; its game is compared with the game."""
    if cfg.evaluation.ladder is None:
        return
    try:
        names = load_ladder(cfg.evaluation.ladder).names
    except ConfigError as error:
        yield from (f"evaluation.{line.replace('ladder ', 'ladder=', 1)}" for line in error.errors)
    else:
        if not opponents & set(names):
            yield (
                f"evaluation.ladder={cfg.evaluation.ladder}: evaluation.opponents must name one or more of its players "
                f"({', '.join(names)})"
            )


def folder_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether the folder of results can be made: it is tried, and nothing is left.

    Args:
        cfg: a composed configuration; of it ``name``, ``results_dir`` and ``output_dir`` are looked at.
    """
    name = cfg.name
    if not name.strip() or name.startswith(".") or re.search(r"[/\\]", name):
        yield f"name={name}: must be a folder's name: not empty, no dot at its start, no slash in it"
    elif reason := no_path(Path(name)):
        yield f"name={one_line(name)}: must be a folder's name ({reason})"
    keys = ["results_dir"] if OmegaConf.is_interpolation(cfg, "output_dir") else ["results_dir", "output_dir"]
    for key in keys:
        yield from path_errors(key, cfg[key])


def _game_name_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether there is such a game. OpenSpiel is asked only where the name is not one of those that we know."""
    name = cfg.env.game
    if name.partition("(")[0].strip() in game_names():
        return
    try:
        canonical_name(name)
    except ConfigError as error:
        lines = (" ".join(line.split()).removeprefix(f"game {name}: ") for line in error.errors)
        yield from (f"env.game={name}: {line}" for line in lines)


def _checkpoint_path_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether there is such a file; what is in it, only torch can tell."""
    path = cfg.ckpt_path
    if path is None or path == "auto":
        return
    if path == "last":
        where = Path(cfg.results_dir, cfg.name)
        if not checkpoint_files(where):
            yield f"ckpt_path=last: there is no last.ckpt in {where}; must be null, auto, last or a checkpoint file"
    elif not os.path.isfile(path):  # which also tells a name that is too long
        yield f"ckpt_path={path}: there is no such file; must be null, auto, last or a checkpoint file"
    elif not zipfile.is_zipfile(path):
        yield f"ckpt_path={path}: cannot be read as a checkpoint (corrupt or truncated: it is no zip file)"


def _batch_errors(cfg: DictConfig) -> Iterator[str]:
    """What follows from the size of a batch."""
    parallel, size, plies = parallel_options(cfg)[0], cfg.ppo.minibatch_size, _plies_per_batch(cfg)
    if size > plies:
        yield (
            f"ppo.minibatch_size={size}: must be from 1 to the plies of one batch, {plies} = {parallel.num_workers} "
            f"workers x {parallel.games_per_worker} games x {parallel.plies_per_rollout} plies"
        )
    elif parallel.schedule == "async":
        publishes, arithmetic = publishes_per_iteration(cfg)
        if parallel.max_policy_lag < publishes:
            # A rollout that is played while the learner trains is handed over after all publishes of that iteration.
            yield (
                f"parallel.max_policy_lag={parallel.max_policy_lag}: must be {publishes} or more with "
                f"parallel.schedule=async: a batch played during one iteration is that many versions old ({arithmetic})"
            )


def _plies_per_batch(cfg: DictConfig) -> int:
    options = parallel_options(cfg)[0]
    agents = least_agents(options, made(ClusterOptions, cfg.parallel))
    return agents * int(options.num_workers) * options.games_per_worker * options.plies_per_rollout


def publishes_per_iteration(cfg: DictConfig) -> tuple[int, str]:
    """How many versions are published in one PPO iteration, and the arithmetic.

    Args:
        cfg: a configuration whose numbers are in range.
    """
    every = cfg.weight_sync.every_n_steps
    if every is None:
        return 1, "published once per iteration"
    minibatches = math.ceil(_plies_per_batch(cfg) / cfg.ppo.minibatch_size)
    steps = math.ceil(cfg.ppo.epochs * minibatches / cfg.trainer.accumulate_grad_batches)
    return math.ceil(steps / every), f"{steps} optimiser steps / weight_sync.every_n_steps={every}"
