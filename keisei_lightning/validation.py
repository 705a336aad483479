"""Is what the user asked for possible here? Every fault at once, before any process starts.

Types and misspelt keys are Hydra's business (see `config.py`); this module checks ranges, and what only shows when
values meet each other, the game, the checkpoint or the machine. Each fault is one line: key, value, what is allowed,
and the arithmetic where there is one.
"""

from __future__ import annotations

import math
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from keisei_lightning.bounds import BOUNDS, CHOICES, Bounds
from keisei_lightning.compose_errors import known_keys, no_such_key
from keisei_lightning.errors import ConfigError, KeiseiError
from keisei_lightning.limits import Crew, Rollouts, memory_faults, most_workers, worker_faults
from keisei_lightning.machine import available_cpus
from keisei_lightning.plugins import OUR_NETWORKS, cuda_faults, logger_faults, model_faults, trainer_faults

if TYPE_CHECKING:
    from keisei_lightning.games.protocol import GameSpec

__all__ = ["advice", "folder_faults", "game_options", "resolve", "validate"]


def resolve(cfg: DictConfig) -> None:
    """Replace what depends on the machine or on earlier runs: ``num_workers=auto`` and ``ckpt_path=last``.

    ``auto`` is one worker for each CPU that this process may use, or fewer where the machine's other limits do not
    allow so many; ``serial`` has one worker. The inference process (``mode=central``) or a learner that works at the
    same time (``schedule=async``) keeps one CPU, and one that learns on CPUs keeps three of four: it has several times
    the work of the workers.

    Args:
        cfg: a composed configuration; it is changed in place. What cannot be resolved stays for :func:`validate`.
    """
    parallel = cfg.parallel
    if parallel.num_workers == "auto":
        parallel.num_workers = most_workers(_crew(parallel, _wished_workers(cfg, available_cpus())))
    if (wanted := cfg.ckpt_path) in ("last", "auto"):
        from keisei_lightning.training.integrity import newest_whole_checkpoint

        found = newest_whole_checkpoint(Path(cfg.results_dir, cfg.name))
        if found is not None:
            cfg.ckpt_path = str(found)
        elif wanted == "auto":
            cfg.ckpt_path = None  # with "last", validation says that there is none


def _wished_workers(cfg: DictConfig, cpus: int) -> int:
    """What ``num_workers=auto`` would be on a machine that has enough of everything else."""
    if cfg.parallel.mode == "serial":
        return 1
    if cfg.parallel.schedule == "async" and cfg.trainer.accelerator == "cpu":
        return max(1, cpus // 4)
    spare = 1 if cfg.parallel.schedule == "async" or cfg.parallel.mode == "central" else 0
    return max(1, cpus - spare)


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
        *model_faults(cfg),
        *_evaluation_faults(cfg),
        *_opponent_faults(cfg),
        *folder_faults(cfg),
    ]
    named = {fault.partition("=")[0] for fault in faults}
    faults += [fault for fault in (*trainer_faults(cfg), *logger_faults(cfg)) if fault.partition("=")[0] not in named]
    if not named & {"parallel.num_workers", "parallel.games_per_worker", "parallel.plies_per_rollout"}:
        faults += _batch_faults(cfg, named)
    spec, game_faults = _game_spec(cfg, named)
    faults += game_faults
    if spec is not None:
        faults += _faults_with_the_game(cfg, spec, named)
    faults += _checkpoint_faults(cfg, spec)
    if faults:
        raise ConfigError(faults)


def _missing_keys(cfg: DictConfig) -> list[str]:
    """What ``???`` stands for, and sections that were taken away (``~ppo``, ``model=null``)."""
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
    for key in cfg:
        if key not in known_keys(""):
            yield no_such_key(str(key), cfg[key])
    # The trainer's keys are passed on to Lightning, which has more than our schema lists.
    for section in (
        "env",
        "model",
        "ppo",
        "parallel",
        "opponents",
        "weight_sync",
        "evaluation",
        "logger",
        "checkpoint",
    ):
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
    return not key.startswith("model.") or cfg.model.get("_target_") == OUR_NETWORKS


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


def _crew(parallel: DictConfig, workers: int) -> Crew:
    """The workers that are asked for; what is not legal about them is told elsewhere."""
    return Crew(
        num_workers=workers,
        in_processes=parallel.mode != "serial",
        start_method=parallel.start_method,
        threads_per_worker=parallel.threads_per_worker,
        is_central=parallel.mode == "central",
    )


def _worker_faults(cfg: DictConfig) -> Iterator[str]:
    parallel = cfg.parallel
    workers = parallel.num_workers
    if not Bounds(low=1).contain(workers):
        most = most_workers(_crew(parallel, sys.maxsize))
        yield f"parallel.num_workers={workers}: must be from 1 to {most}, or auto"
    else:
        yield from worker_faults(_crew(parallel, workers), prefix="parallel.")
        if parallel.min_healthy_workers > workers:
            yield (
                f"parallel.min_healthy_workers={parallel.min_healthy_workers}: must be from 0 to {workers} "
                "(parallel.num_workers)"
            )
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", parallel.worker_device):
        yield f"parallel.worker_device={parallel.worker_device}: must be auto, cpu or cuda:N"
    elif parallel.worker_device.startswith("cuda"):
        yield from cuda_faults("parallel.worker_device", parallel.worker_device)
    if parallel.mode == "serial" and parallel.schedule == "async":
        yield "parallel.schedule=async: must be sync with parallel.mode=serial (one process cannot do both at once)"


def _evaluation_faults(cfg: DictConfig) -> Iterator[str]:
    games = cfg.evaluation.num_games
    if games >= 2 and games % 2:
        yield f"evaluation.num_games={games}: must be even (each opening is played from both seats)"
    every, ago = cfg.evaluation.every_n_epochs, cfg.evaluation.against_epochs_ago
    if ago is not None and ago >= 1 and (every < 1 or ago % every):
        yield f"evaluation.against_epochs_ago={ago}: must be a multiple of evaluation.every_n_epochs={every} (above 0)"
    if not cfg.evaluation.opponents:
        yield "evaluation.opponents=[]: must name one player or more, such as random"


def _opponent_faults(cfg: DictConfig) -> Iterator[str]:
    share, games = cfg.opponents.share, cfg.parallel.games_per_worker
    if cfg.opponents.mode == "snapshots" and 0 < share <= 1 and games >= 1 and round(share * games) < 1:
        yield (
            f"opponents.share={share:g}: must be at least {1 / games:g}, one of parallel.games_per_worker={games} games"
        )


def folder_faults(cfg: DictConfig) -> Iterator[str]:
    """Whether the folder of results can be made: it is tried, and nothing is left.

    Args:
        cfg: a composed configuration; of it ``name``, ``results_dir`` and ``output_dir`` are looked at.
    """
    if not cfg.name or cfg.name.startswith(".") or re.search(r"[/\\\0]", cfg.name):
        yield f"name={cfg.name}: must be a folder's name: not empty, no dot at its start, no slash in it"
    keys = ["results_dir"] if OmegaConf.is_interpolation(cfg, "output_dir") else ["results_dir", "output_dir"]
    for key in keys:
        if not cfg[key]:
            yield f"{key}=: must be a folder that can be written to"
        elif reason := _cannot_write(Path(cfg[key]).absolute()):
            yield f"{key}={cfg[key]}: must be a folder that can be written to ({reason})"


def _cannot_write(folder: Path) -> str:
    """Why nothing can be put into a folder, which need not be there yet; empty where it can."""
    there = next(place for place in (folder, *folder.parents) if place.exists() or place.is_symlink())
    try:
        # Tried, because permission bits say little: root may ignore them, and /proc ignores root.
        with tempfile.TemporaryDirectory(prefix=".keisei_", dir=there):
            return ""
    except OSError as error:
        return f"{there}: {error.strerror}"


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
    except Exception as error:  # noqa: BLE001 - a third party's game may raise anything; a worker would as well
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        options = f" with env.options={dict(env.options)}" if env.options else ""
        return None, [f"env.game={env.game}: cannot be made{options} ({reason}); see `keisei games` for those that can"]


def game_options(cfg: DictConfig) -> dict[str, Any]:
    """Keyword arguments for the game's maker; what is null is left to the game."""
    env = cfg.env
    options: dict[str, Any] = {"opening_plies": env.opening_plies}
    if env.max_plies is not None:
        options["max_plies"] = env.max_plies
    return {**options, **{str(key): value for key, value in env.options.items()}}


def _faults_with_the_game(cfg: DictConfig, spec: GameSpec, named: set[str]) -> Iterator[str]:
    """What follows from what the game is like."""
    parallel = cfg.parallel
    if parallel.augment_symmetry and not spec.symmetries:
        yield f"parallel.augment_symmetry=true: must be false ({spec.name} has no symmetry)"
    if _ours(cfg, "model.equivariant") and cfg.model.equivariant:
        from keisei_lightning.models.equivariant import equivariance_faults

        yield from equivariance_faults(spec, kind=cfg.model.kind, channels=cfg.model.channels)
    yield from _player_faults(cfg, spec)
    if not named & _MEMORY:
        rollouts = Rollouts(
            slots_per_worker=parallel.slots_per_worker if parallel.schedule == "async" else 1,
            games_per_worker=parallel.games_per_worker,
            plies_per_rollout=parallel.plies_per_rollout,
            bytes_per_ply=spec.observation_bytes + spec.mask_bytes + _OTHER_BYTES_PER_PLY,
        )
        yield from memory_faults(_crew(parallel, parallel.num_workers), rollouts, prefix="parallel.")


def _player_faults(cfg: DictConfig, spec: GameSpec) -> Iterator[str]:
    """Make each opponent once, here, to see that it can be made and can play the game."""
    from keisei_lightning.evaluation.registry import closing_player, make_player, parse_player

    for key, names in (("opponents", cfg.evaluation.opponents), ("ratings", cfg.evaluation.ratings)):
        for name in names:
            try:
                if key == "ratings":
                    parse_player(name)
                    continue
                with closing_player(make_player(name, spec)):
                    pass
            except KeiseiError as error:
                for fault in getattr(error, "faults", [str(error)]):
                    yield f"evaluation.{key}={name}: {' '.join(fault.split())}"


_MEMORY = {f"parallel.{key}" for key in ("num_workers", "games_per_worker", "plies_per_rollout", "slots_per_worker")}
"""Keys that decide how much memory is needed."""

_OTHER_BYTES_PER_PLY = 54
"""Bytes of a ply in a slot beside its observation and mask; a test holds it to ``SlotLayout.bytes_per_ply``."""


def _checkpoint_faults(cfg: DictConfig, spec: GameSpec | None) -> list[str]:
    path = cfg.ckpt_path
    if path is None:
        return []
    if path == "last":
        where = Path(cfg.results_dir, cfg.name)
        return [f"ckpt_path=last: there is no last.ckpt in {where}; must be null, auto, last or a checkpoint file"]
    if not Path(path).is_file():
        return [f"ckpt_path={path}: there is no such file; must be null, auto, last or a checkpoint file"]
    if not zipfile.is_zipfile(path):  # told at once: what follows imports torch and Lightning, which takes seconds
        return [f"ckpt_path={path}: cannot be read as a checkpoint (damaged or cut short: it is no zip file)"]
    if spec is None:
        return []
    from keisei_lightning.training.checkpoint import check_checkpoint

    try:
        check_checkpoint(path, spec)
    except ConfigError as error:
        return list(error.faults)
    return []
