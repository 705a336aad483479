"""Checks of a configuration that need neither torch nor a game: names, types, ranges, and what goes together.

Each fault is one line: key, value, what is allowed, and the arithmetic where there is one.
"""

from __future__ import annotations

import math
import os
import re
import sys
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from keisei_lightning.config.bounds import BOUNDS, CHOICES, Bounds
from keisei_lightning.config.compose_errors import known_keys, no_such_key
from keisei_lightning.config.targets import callback_errors, logger_errors, trainer_errors
from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.ladder import load_ladder
from keisei_lightning.evaluation.registry import parse_player
from keisei_lightning.games import canonical_name, game_names
from keisei_lightning.models.registry import OUR_NETWORKS
from keisei_lightning.system.limits import WorkerDemand, most_workers, worker_errors
from keisei_lightning.training.integrity import checkpoint_files

__all__ = [
    "folder_errors",
    "is_ours",
    "missing_keys",
    "no_path",
    "one_line",
    "option_errors",
    "path_errors",
    "publishes_per_iteration",
    "worker_demand",
]

_MAX_NAME_BYTES = 255
"""Of a file's name on the file systems of Linux and macOS."""

_MAX_PATH_BYTES = 3840
"""Of a run's folder: Linux takes paths of 4095 bytes, and there are files in it."""


def option_errors(cfg: DictConfig) -> list[str]:
    """Everything that can be told without torch and without making the game.

    Args:
        cfg: a composed configuration without :func:`missing_keys`, its number of workers resolved.

    Returns:
        A line for each fault.
    """
    faults = [
        *_unknown_keys(cfg),
        *_out_of_bounds(cfg),
        *_bad_choices(cfg),
        *_worker_errors(cfg),
        *_evaluation_errors(cfg),
        *_player_name_errors(cfg),
        *_opponent_errors(cfg),
        *folder_errors(cfg),
        *_game_name_errors(cfg),
        *_checkpoint_path_errors(cfg),
    ]
    named = {fault.partition("=")[0] for fault in faults}
    faults += [
        fault
        for fault in (*trainer_errors(cfg), *logger_errors(cfg), *callback_errors(cfg))
        if fault.partition("=")[0] not in named
    ]
    if not named & {"parallel.num_workers", "parallel.games_per_worker", "parallel.plies_per_rollout"}:
        faults += _batch_errors(cfg, named)
    return faults


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
        if section == "model" and not is_ours(cfg, "model."):
            continue
        for key in cfg[section]:
            if key != "_target_" and key not in known_keys(section):
                yield no_such_key(f"{section}.{key}", cfg[section][key])


def _select(cfg: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(cfg, key)
    except OmegaConfBaseException:  # an interpolation that does not resolve is reported where it is used
        return None


def is_ours(cfg: DictConfig, key: str) -> bool:
    """Whether a key is one that we know the meaning of: a third party's network has keys of its own.

    Args:
        cfg: a composed configuration.
        key: such as ``model.channels``.
    """
    return not key.startswith("model.") or cfg.model.get("_target_") == OUR_NETWORKS


def _out_of_bounds(cfg: DictConfig) -> Iterator[str]:
    for key, bounds in BOUNDS.items():
        value = _select(cfg, key) if is_ours(cfg, key) else None
        if value is not None and not bounds.contain(value):
            yield f"{key}={_number(value)}: must be {bounds}"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bad_choices(cfg: DictConfig) -> Iterator[str]:
    for key, allowed in CHOICES.items():
        value = _select(cfg, key) if is_ours(cfg, key) else None
        if value is not None and value not in allowed:
            yield f"{key}={value}: must be one of {', '.join(allowed)}"


def worker_demand(parallel: DictConfig, workers: int) -> WorkerDemand:
    """The workers that are asked for; what is not legal about them is told elsewhere.

    Args:
        parallel: section ``parallel`` of a configuration.
        workers: their number.
    """
    return WorkerDemand(
        num_workers=workers,
        in_processes=parallel.mode != "serial",
        start_method=parallel.start_method,
        threads_per_worker=parallel.threads_per_worker,
        is_central=parallel.mode == "central",
    )


def _worker_errors(cfg: DictConfig) -> Iterator[str]:
    parallel = cfg.parallel
    workers = parallel.num_workers
    if not Bounds(low=1).contain(workers):
        most = most_workers(worker_demand(parallel, sys.maxsize))
        yield f"parallel.num_workers={workers}: must be from 1 to {most}, or auto"
    else:
        yield from worker_errors(worker_demand(parallel, workers), prefix="parallel.")
        if parallel.min_healthy_workers > workers:
            yield (
                f"parallel.min_healthy_workers={parallel.min_healthy_workers}: must be from 0 to {workers} "
                "(parallel.num_workers)"
            )
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", parallel.worker_device):
        yield f"parallel.worker_device={parallel.worker_device}: must be auto, cpu or cuda:N"
    if parallel.mode == "serial" and parallel.schedule == "async":
        yield "parallel.schedule=async: must be sync with parallel.mode=serial (one process cannot do both at once)"


def _evaluation_errors(cfg: DictConfig) -> Iterator[str]:
    games = cfg.evaluation.num_games
    if games >= 2 and games % 2:
        yield f"evaluation.num_games={games}: must be even (each opening is played from both seats)"
    every, ago = cfg.evaluation.every_n_epochs, cfg.evaluation.against_epochs_ago
    if ago is not None and ago >= 1 and (every < 1 or ago % every):
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
            yield from (f"evaluation.opponents={name}: {' '.join(fault.split())}" for fault in error.faults)
    yield from _ladder_errors(cfg, opponents)


def _ladder_errors(cfg: DictConfig, opponents: Set[str]) -> Iterator[str]:
    """Whether there is such a ladder, and anybody to meet on it; its game is compared with the game."""
    if cfg.evaluation.ladder is None:
        return
    try:
        names = load_ladder(cfg.evaluation.ladder).names
    except ConfigError as error:
        yield from (f"evaluation.{fault.replace('ladder ', 'ladder=', 1)}" for fault in error.faults)
    else:
        if not opponents & set(names):
            yield (
                f"evaluation.ladder={cfg.evaluation.ladder}: evaluation.opponents must name one or more of its players "
                f"({', '.join(names)})"
            )


def _opponent_errors(cfg: DictConfig) -> Iterator[str]:
    share, games = cfg.opponents.share, cfg.parallel.games_per_worker
    if cfg.opponents.mode == "snapshots" and 0 < share <= 1 and games >= 1 and round(share * games) < 1:
        yield (
            f"opponents.share={share:g}: must be at least {1 / games:g}, one of parallel.games_per_worker={games} games"
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


def path_errors(key: str, path: str) -> Iterator[str]:
    """Whether a folder can be made, and written to: it is tried, and nothing is left.

    Args:
        key: for the message.
        path: of the folder, which need not be there yet.
    """
    if not path:
        yield f"{key}=: must be a folder that can be written to"
    elif reason := no_path(Path(path)) or _cannot_write(Path(path).absolute()):
        yield f"{key}={one_line(path)}: must be a folder that can be written to ({reason})"


def one_line(text: str) -> str:
    """A text with its control characters as escapes, for a message."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def no_path(path: Path) -> str:
    """Why this cannot be a path, here or at all; empty where it can.

    Args:
        path: whatever somebody typed; nothing is looked up.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in str(path)):
        return "it holds a control character, or what is no character"
    if str(path).startswith("~"):
        return "there is no such user, whose home folder it would be in; a folder of that name is ./~..."
    if max((len(os.fsencode(part)) for part in path.parts), default=0) > _MAX_NAME_BYTES:
        return f"a name in it is longer than {_MAX_NAME_BYTES} bytes"
    if len(os.fsencode(path.absolute())) > _MAX_PATH_BYTES:
        return f"it is longer than {_MAX_PATH_BYTES} bytes"
    return ""


def _cannot_write(folder: Path) -> str:
    """Why nothing can be put into a folder, which need not be there yet; empty where it can."""
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    try:
        # Tried, because permission bits say little: root may ignore them, and /proc ignores root.
        with tempfile.TemporaryDirectory(prefix=".keisei_", dir=there):
            return ""
    except OSError as error:
        return f"{there}: {error.strerror}"


def _game_name_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether there is such a game. OpenSpiel is asked only where the name is not one of those that we know."""
    name = cfg.env.game
    if name.partition("(")[0].strip() in game_names():
        return
    try:
        canonical_name(name)
    except ConfigError as error:
        lines = (" ".join(fault.split()).removeprefix(f"game {name}: ") for fault in error.faults)
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
        yield f"ckpt_path={path}: cannot be read as a checkpoint (damaged or cut short: it is no zip file)"


def _batch_errors(cfg: DictConfig, named: set[str]) -> Iterator[str]:
    """What follows from the size of a batch."""
    parallel, size, plies = cfg.parallel, cfg.ppo.minibatch_size, _plies_per_batch(cfg)
    if size > plies:
        yield (
            f"ppo.minibatch_size={size}: must be from 1 to the plies of one batch, {plies} = {parallel.num_workers} "
            f"workers x {parallel.games_per_worker} games x {parallel.plies_per_rollout} plies"
        )
    elif parallel.schedule == "async" and not named & _PUBLISHING:
        publishes, arithmetic = publishes_per_iteration(cfg)
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
