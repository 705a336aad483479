"""Is what the user asked for possible here? Every fault at once, before any process starts.

Types and misspelt keys are Hydra's business (see `config.py`); this module checks ranges, and what only shows when
values meet each other, the game, the checkpoint or the machine. Each fault is one line: key, value, what is allowed,
and the arithmetic where there is one.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from keisei_lightning.bounds import BOUNDS, CHOICES, Bounds
from keisei_lightning.compose_errors import known_keys, no_such_key
from keisei_lightning.errors import ConfigError
from keisei_lightning.machine import available_cpus, available_memory

if TYPE_CHECKING:
    from keisei_lightning.games.protocol import GameSpec

__all__ = ["MAX_WORKERS", "WORKERS_PER_CPU", "advice", "game_options", "max_workers", "resolve", "validate"]

WORKERS_PER_CPU = 64
"""More worker processes than this for each CPU are taken for a mistake."""

MAX_WORKERS = 1024
"""More worker processes than this are a mistake on any machine."""


_OUR_NETWORKS = "keisei_lightning.models.build_network"


def max_workers(cpus: int) -> int:
    """The most worker processes that are allowed on this many CPUs."""
    return min(MAX_WORKERS, WORKERS_PER_CPU * cpus)


def resolve(cfg: DictConfig) -> None:
    """Replace what depends on the machine or on earlier runs: ``num_workers=auto`` and ``ckpt_path=last``.

    ``auto`` is one worker for each CPU that this process may use; with ``schedule=async`` the learner trains at the
    same time and keeps one CPU; ``serial`` has one worker.

    Args:
        cfg: a composed configuration; it is changed in place. What cannot be resolved stays for :func:`validate`.
    """
    parallel = cfg.parallel
    if parallel.num_workers == "auto":
        cpus = available_cpus()
        spare = 1 if parallel.schedule == "async" else 0
        parallel.num_workers = 1 if parallel.mode == "serial" else max(1, min(MAX_WORKERS, cpus - spare))
    if cfg.ckpt_path == "last":
        found = sorted(Path(cfg.results_dir, cfg.name).rglob("last.ckpt"), key=lambda file: file.stat().st_mtime)
        if found:
            cfg.ckpt_path = str(found[-1])


def validate(cfg: DictConfig) -> None:
    """Check everything that can be checked before anything is started.

    Args:
        cfg: a composed configuration, after :func:`resolve`.

    Raises:
        ConfigError: with one line for each fault.
    """
    if missing := _missing_keys(cfg):
        raise ConfigError([f"{key}: is missing; give it on the command line as {key}=VALUE" for key in missing])
    faults = [
        *_unknown_keys(cfg),
        *_out_of_bounds(cfg),
        *_bad_choices(cfg),
        *_worker_faults(cfg),
        *_trainer_faults(cfg),
        *_logger_faults(cfg),
        *_evaluation_faults(cfg),
    ]
    named = {fault.partition("=")[0] for fault in faults}
    if not named & {"parallel.num_workers", "parallel.games_per_worker", "parallel.plies_per_rollout"}:
        faults += _batch_faults(cfg, named)
    spec, game_faults = _game_spec(cfg, named)
    faults += game_faults
    if spec is not None and not faults:
        faults += _memory_faults(cfg, spec)
    faults += _checkpoint_faults(cfg, spec)
    if faults:
        raise ConfigError(faults)


def _missing_keys(cfg: DictConfig) -> list[str]:
    """What ``???`` stands for, and sections that were taken away (``~ppo``, ``model=null``)."""
    missing = [key for key in known_keys("") if key not in cfg and not OmegaConf.is_interpolation(cfg, key)]
    for key in set(known_keys("")) - set(missing):
        if OmegaConf.is_missing(cfg, key):
            missing.append(key)
        elif not OmegaConf.is_interpolation(cfg, key) and OmegaConf.is_config(cfg[key]):
            missing += OmegaConf.missing_keys(cfg[key])  # their full names
    return sorted(missing)


def _unknown_keys(cfg: DictConfig) -> Iterator[str]:
    """Keys that were added with a ``+`` and that nobody reads."""
    for key in cfg:
        if key not in known_keys(""):
            yield no_such_key(str(key), cfg[key])
    # The trainer's keys are passed on to Lightning, which has more than our schema lists.
    for section in ("env", "model", "ppo", "parallel", "weight_sync", "evaluation", "logger", "checkpoint"):
        if section == "model" and not _ours(cfg, "model."):
            continue
        for key in cfg[section]:
            if key != "_target_" and key not in known_keys(section):
                yield no_such_key(f"{section}.{key}", cfg[section][key])


def _select(cfg: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(cfg, key)
    except OmegaConfBaseException:  # an interpolation that does not resolve is reported where it is used
        return None


def _ours(cfg: DictConfig, key: str) -> bool:
    """Whether a key is one that we know the meaning of: a third party's network has keys of its own."""
    return not key.startswith("model.") or cfg.model.get("_target_") == _OUR_NETWORKS


def _out_of_bounds(cfg: DictConfig) -> Iterator[str]:
    for key, bounds in BOUNDS.items():
        value = _select(cfg, key) if _ours(cfg, key) else None
        if value is not None and not bounds.contain(value):
            yield f"{key}={_number(value)}: must be {bounds}"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bad_choices(cfg: DictConfig) -> Iterator[str]:
    for key, allowed in CHOICES.items():
        value = _select(cfg, key) if _ours(cfg, key) else None
        if value is not None and value not in allowed:
            yield f"{key}={value}: must be one of {', '.join(allowed)}"


def _worker_faults(cfg: DictConfig) -> Iterator[str]:
    parallel, cpus = cfg.parallel, available_cpus()
    most = max_workers(cpus)
    workers = parallel.num_workers
    arithmetic = f"{WORKERS_PER_CPU} for each of the {cpus} CPUs that this process may use, at most {MAX_WORKERS}"
    if not Bounds(low=1, high=most).contain(workers):
        yield f"parallel.num_workers={workers}: must be from 1 to {most} ({arithmetic}), or auto"
    elif parallel.min_healthy_workers > workers:
        yield (
            f"parallel.min_healthy_workers={parallel.min_healthy_workers}: must be from 0 to {workers} "
            "(parallel.num_workers)"
        )
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", parallel.worker_device):
        yield f"parallel.worker_device={parallel.worker_device}: must be auto, cpu or cuda:N"
    elif parallel.worker_device.startswith("cuda"):
        yield from _cuda_faults("parallel.worker_device", parallel.worker_device)
    if parallel.mode == "serial" and parallel.schedule == "async":
        yield "parallel.schedule=async: must be sync with parallel.mode=serial (one process cannot do both at once)"


def _cuda_faults(key: str, device: str) -> Iterator[str]:
    import torch  # only where a GPU is asked for: it takes seconds

    count = torch.cuda.device_count()
    index = int(device.partition(":")[2] or 0)
    if index >= count:
        yield f"{key}={device}: must be {f'cuda:0 to cuda:{count - 1}' if count else 'cpu (there is no GPU here)'}"


def _trainer_faults(cfg: DictConfig) -> Iterator[str]:
    devices = cfg.trainer.devices
    if str(devices) not in ("1", "auto") and not re.fullmatch(r"\d+,", str(devices)):
        yield f"trainer.devices={devices}: must be 1, auto or one device's number with a comma, such as 0,"
    if cfg.trainer.accelerator in ("gpu", "cuda"):
        index = str(devices).rstrip(",") if str(devices).endswith(",") else "0"
        yield from (
            f"trainer.accelerator={cfg.trainer.accelerator}: {fault.partition(': ')[2]}"
            for fault in _cuda_faults("trainer.devices", f"cuda:{index}")
        )


def _logger_faults(cfg: DictConfig) -> Iterator[str]:
    for name in ("wandb", "mlflow"):
        if cfg.logger[name] is not None and importlib.util.find_spec(name) is None:
            yield f"logger={name}: is not installed; must be csv_tensorboard, or install keisei-lightning[tracking]"


def _evaluation_faults(cfg: DictConfig) -> Iterator[str]:
    games = cfg.evaluation.num_games
    if games >= 2 and games % 2:
        yield f"evaluation.num_games={games}: must be even (each opening is played from both seats)"


def _batch_faults(cfg: DictConfig, named: set[str]) -> Iterator[str]:
    """What follows from the size of a batch."""
    parallel, size, plies = cfg.parallel, cfg.ppo.minibatch_size, _plies_per_batch(cfg)
    if size > plies:
        yield (
            f"ppo.minibatch_size={size}: must be from 1 to the plies of one batch, {plies} = {parallel.num_workers} "
            f"workers x {parallel.games_per_worker} games x {parallel.plies_per_rollout} plies"
        )
    elif parallel.schedule == "async" and not named & _PUBLISHING:
        publishes, arithmetic = _publishes_per_iteration(cfg)
        if parallel.max_policy_lag < publishes:
            # A rollout that is played while the learner trains is handed over after all publishes of that iteration.
            yield (
                f"parallel.max_policy_lag={parallel.max_policy_lag}: must be {publishes} or more with "
                f"parallel.schedule=async: a batch played during one iteration is that many versions old ({arithmetic})"
            )


def _plies_per_batch(cfg: DictConfig) -> int:
    parallel = cfg.parallel
    return int(parallel.num_workers * parallel.games_per_worker * parallel.plies_per_rollout)


_PUBLISHING = {
    "ppo.minibatch_size",
    "ppo.epochs",
    "trainer.accumulate_grad_batches",
    "weight_sync.every_n_steps",
    "parallel.max_policy_lag",
}
"""Keys that decide how often weights are published, and whether that is too often."""


def _publishes_per_iteration(cfg: DictConfig) -> tuple[int, str]:
    """How many versions are published in one PPO iteration, and the arithmetic."""
    every = cfg.weight_sync.every_n_steps
    if every is None:
        return 1, "published once per iteration"
    minibatches = math.ceil(_plies_per_batch(cfg) / cfg.ppo.minibatch_size)
    steps = math.ceil(cfg.ppo.epochs * minibatches / cfg.trainer.accumulate_grad_batches)
    return math.ceil(steps / every), f"{steps} optimiser steps / weight_sync.every_n_steps={every}"


def advice(cfg: DictConfig) -> list[str]:
    """What works, but hardly as it was meant: a line each, for the log.

    Args:
        cfg: a valid configuration.
    """
    parallel, lines = cfg.parallel, []
    publishes, arithmetic = _publishes_per_iteration(cfg)
    worst = publishes * parallel.slots_per_worker
    if parallel.schedule == "async" and parallel.max_policy_lag < worst:
        lines.append(
            f"parallel.max_policy_lag={parallel.max_policy_lag}: workers that are faster than the learner fill "
            f"{parallel.slots_per_worker} slots ahead; rollouts up to {worst} versions old ({arithmetic}) will be "
            "refused and played again"
        )
    return lines


def _game_spec(cfg: DictConfig, named: set[str]) -> tuple[GameSpec | None, list[str]]:
    """Make the game once, here, to see that it can be made and what it is like."""
    if named & {"env.max_plies", "env.opening_plies"}:
        return None, []
    from keisei_lightning.games import make_game

    env = cfg.env
    try:
        return make_game(env.game, 1, **game_options(cfg)).spec, []
    except ConfigError as error:
        faults = [line if line.startswith("env.") else f"env.game={env.game}: {line}" for line in error.faults]
        return None, [" ".join(fault.split()) for fault in faults]
    except TypeError as error:  # an option that the game does not have
        return None, [f"env.options={dict(env.options)}: {error}"]


def game_options(cfg: DictConfig) -> dict[str, Any]:
    """Keyword arguments for the game's maker; what is null is left to the game."""
    env = cfg.env
    options: dict[str, Any] = {"opening_plies": env.opening_plies}
    if env.max_plies is not None:
        options["max_plies"] = env.max_plies
    return {**options, **{str(key): value for key, value in env.options.items()}}


def _memory_faults(cfg: DictConfig, spec: GameSpec) -> Iterator[str]:
    """Whether the slots fit into memory."""
    parallel = cfg.parallel
    plies = parallel.num_workers * parallel.slots_per_worker * parallel.games_per_worker * parallel.plies_per_rollout
    per_ply = spec.observation_bytes + spec.mask_bytes + _OTHER_BYTES_PER_PLY
    needed, available = plies * per_ply, available_memory()
    if needed > available:
        yield (
            f"parallel.games_per_worker={parallel.games_per_worker}: the slots need {needed / 2**30:.1f} GiB "
            f"({parallel.num_workers} workers x {parallel.slots_per_worker} slots x {parallel.games_per_worker} games "
            f"x {parallel.plies_per_rollout} plies x {per_ply} bytes), must be at most {available / 2**30:.1f} GiB "
            "(free memory)"
        )


_OTHER_BYTES_PER_PLY = 54
"""Bytes of a ply in a slot beside its observation and mask; a test holds it to ``SlotLayout.bytes_per_ply``."""


def _checkpoint_faults(cfg: DictConfig, spec: GameSpec | None) -> list[str]:
    path = cfg.ckpt_path
    if path is None:
        return []
    if path == "last":
        where = Path(cfg.results_dir, cfg.name)
        return [f"ckpt_path=last: there is no last.ckpt in {where}; must be null, last or a checkpoint file"]
    if not Path(path).is_file():
        return [f"ckpt_path={path}: there is no such file; must be null, last or a checkpoint file"]
    if spec is None:
        return []
    from keisei_lightning.training.checkpoint import check_checkpoint

    try:
        check_checkpoint(path, spec)
    except ConfigError as error:
        return list(error.faults)
    return []
