"""Checks of a configuration that need no torch: declarations, names, and what goes together.

Each error is one line: key, value, what is allowed, and the arithmetic where there is one.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from keisei_lightning.config.compose_errors import no_such_key
from keisei_lightning.config.game_checks import game_spec, opponent_errors
from keisei_lightning.config.league_checks import league_errors
from keisei_lightning.config.ranks import rank_errors, ranks_to_start
from keisei_lightning.config.schemas import SECTIONS
from keisei_lightning.config.targets import plugin_errors, trainer_errors
from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameSpec
from keisei_lightning.models.equivariance import equivariance_errors
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
    worker_demand,
)
from keisei_lightning.published import is_published
from keisei_lightning.system.limits import MemoryDemand, memory_errors
from keisei_lightning.system.options import declared
from keisei_lightning.system.paths import no_path, one_line, path_errors
from keisei_lightning.training.integrity import checkpoint_files
from keisei_lightning.training.options import MinibatchOptions

__all__ = [
    "declared_errors",
    "folder_errors",
    "is_our_network",
    "made",
    "opponent_options",
    "option_errors",
    "parallel_options",
    "publishes_per_iteration",
]

T = TypeVar("T")

_OTHER_BYTES_PER_PLY = 54
"""Bytes of a ply in a slot beside its observation and mask; a test holds it to ``SlotLayout.bytes_per_ply``."""


def option_errors(cfg: DictConfig) -> list[str]:
    """Everything that can be told without torch.

    Args:
        cfg: a composed configuration in which every value can be resolved.

    Returns:
        A line for each error. What follows from several keys is told when each of them is legal.
    """
    errors = list(declared_errors(cfg))
    wrong = {error.partition("=")[0].rpartition(".")[0] for error in errors}
    spec = None
    errors += [*folder_errors(cfg), *_checkpoint_path_errors(cfg), *trainer_errors(cfg), *plugin_errors(cfg)]
    if "trainer" not in wrong:
        errors += rank_errors(cfg)
    if "env" not in wrong:
        try:
            spec = game_spec(cfg)
        except ConfigError as error:
            errors += error.errors
    if "evaluation" not in wrong:
        errors += [*_evaluation_errors(cfg), *opponent_errors(cfg, spec)]
    if "opponents" not in wrong:
        errors += league_errors(cfg, spec)
    if wrong.isdisjoint(["parallel", "opponents"]):
        cluster = made(ClusterOptions, cfg.parallel)
        collecting = list(collector_errors(*parallel_options(cfg), opponent_options(cfg), cluster, prefix="parallel."))
        errors += collecting
        if not collecting and wrong.isdisjoint(["ppo", "trainer", "weight_sync"]):
            errors += _batch_errors(cfg)
        if not collecting and spec is not None:
            errors += _memory_errors(cfg, spec)
    if spec is not None and wrong.isdisjoint(["model", "parallel"]):
        errors += _symmetry_errors(cfg, spec)
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
    return None if cfg.opponents.mode == "none" else made(OpponentOptions, cfg.opponents)


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


def declared_errors(cfg: DictConfig) -> Iterator[str]:
    """Keys that nobody reads (added with a ``+``), and values that are not what their option's declaration allows.

    Args:
        cfg: a composed configuration in which every value can be resolved.
    """
    for section, options in SECTIONS.items():
        if section == "model" and not is_our_network(cfg):
            continue  # it has keys of its own
        values, prefix = (cfg[section], f"{section}.") if section else (cfg, "")
        known = {option.name: option for option in options}
        for key in map(str, values):
            if option := known.get(key):
                if error := option.error(values[key], prefix=prefix, none="null"):
                    yield error
            elif key != "_target_" and section != "trainer":  # whose keys are Lightning's
                yield no_such_key(f"{prefix}{key}", values[key])


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


def _symmetry_errors(cfg: DictConfig, spec: GameSpec) -> Iterator[str]:
    if cfg.parallel.augment_symmetry and not spec.symmetries:
        yield f"parallel.augment_symmetry=true: must be false ({spec.name} has no symmetry)"
    if is_our_network(cfg) and cfg.model.equivariant:
        yield from equivariance_errors(spec, kind=cfg.model.kind, channels=cfg.model.channels, prefix="model.")


def _memory_errors(cfg: DictConfig, spec: GameSpec) -> list[str]:
    parallel, workers, _ = parallel_options(cfg)
    rollouts = MemoryDemand(
        slots_per_worker=parallel.slots_per_worker if parallel.schedule == "async" else 1,
        games_per_worker=parallel.games_per_worker,
        plies_per_rollout=parallel.plies_per_rollout,
        bytes_per_ply=spec.observation_bytes + spec.mask_bytes + _OTHER_BYTES_PER_PLY,
    )
    return memory_errors(worker_demand(parallel, workers, int(parallel.num_workers)), rollouts, prefix="parallel.")


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


def _checkpoint_path_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether there is such a file; what is in it is looked at last, as that may need torch."""
    path = cfg.ckpt_path
    if path == "last":
        where = Path(cfg.results_dir, cfg.name)
        if not checkpoint_files(where):
            yield f"ckpt_path=last: there is no last.ckpt in {where}; must be null, auto, last or a checkpoint file"
    elif path is not None and is_published(path):
        yield (
            f"ckpt_path={path}: a published policy holds weights alone, and no training resumes from it; must be null, "
            "auto, last or a checkpoint file of a run"
        )
    elif path not in (None, "auto") and not os.path.isfile(path):  # which also tells a name that is too long
        yield f"ckpt_path={path}: there is no such file; must be null, auto, last or a checkpoint file"


def _batch_errors(cfg: DictConfig) -> Iterator[str]:
    """What follows from the size of a batch."""
    parallel, size, plies = parallel_options(cfg)[0], cfg.ppo.minibatch_size, _plies_per_batch(cfg)
    workers = plies // (parallel.games_per_worker * parallel.plies_per_rollout)
    # How many "auto" agents there are, only the cluster knows; the data module checks it again.
    if size > plies and not (parallel.mode == "ray" and cfg.parallel.num_agents == "auto"):
        yield (
            f"ppo.minibatch_size={size}: must be from 1 to the plies of one batch, {plies} = {workers} "
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
    options = made(MinibatchOptions, cfg.ppo)
    minibatches = math.ceil(options.learned(_plies_per_batch(cfg)) / options.minibatch_size)
    steps = math.ceil(cfg.ppo.epochs * minibatches / cfg.trainer.accumulate_grad_batches)
    return math.ceil(steps / every), f"{steps} optimiser steps / weight_sync.every_n_steps={every}"
