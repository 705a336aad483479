"""One training run from its configuration: build the parts, show what will happen, train, show what came of it.

This is the only place that turns configuration into objects. The parts themselves know no Hydra: they are called here
with plain keyword arguments, as anybody's own script would call them.
"""

from __future__ import annotations

import atexit
import gc
import logging
import math
import os
import signal
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from keisei_lightning.config.game_checks import game_options
from keisei_lightning.config.option_checks import made, opponent_options, parallel_options
from keisei_lightning.config.quoting import resume_command
from keisei_lightning.config.ranks import PortableConfig, hydra_logging, ranks_to_start
from keisei_lightning.config.targets import NOT_LIGHTNINGS
from keisei_lightning.config.validation import ValidatedConfig, config_warnings, section_of, validate
from keisei_lightning.errors import ConfigError
from keisei_lightning.games import game_factory
from keisei_lightning.launching import run_ranks
from keisei_lightning.launching.logs import log_as_rank
from keisei_lightning.models import ActorCritic, num_parameters
from keisei_lightning.parallel import BatchOptions, ClusterOptions, League, OpponentOptions, SelfPlayCollector
from keisei_lightning.plug_ins import build_callbacks, build_loggers, build_policy, with_users
from keisei_lightning.results_folder import run_record
from keisei_lightning.system.allocator import keep_freed_memory
from keisei_lightning.system.console import print_table, quiet_libraries
from keisei_lightning.system.machine import available_cpus
from keisei_lightning.system.openmp import governed_spinning
from keisei_lightning.system.rank_place import present_place
from keisei_lightning.system.stopping import Stopped, StopSignals, requested
from keisei_lightning.training import (
    AtomicCheckpointIO,
    BestCheckpoint,
    CalibrationCallback,
    CurvesCallback,
    EvaluationCallback,
    ExperimentLog,
    FinalCheckpoint,
    LeagueCallback,
    LiveStateCallback,
    OrderlyStop,
    PPOModule,
    SearchTargets,
    SelfPlayDataModule,
    SelfPlayMetrics,
    SnapshotCallback,
    TrainingProgress,
    WeightSyncCallback,
    make_league,
    remove_stale_temporaries,
)
from keisei_lightning.training.ddp import RankPhases, join_group, shared_by_first_rank, strategy_of_ranks
from keisei_lightning.training.options import EvaluationOptions, MinibatchOptions, PPOOptions, SearchTargetOptions
from keisei_lightning.training.pool_folder import PoolFolder

__all__ = ["Run", "build", "run", "run_as_rank"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The parts of one run, not yet started: no process, no thread.

    Attributes:
        trainer: Lightning's.
        module: learns.
        data: owns the collector.
        evaluation: plays matches; its last result is the run's score.
        curves: draws the curves and writes the last game.
        stop: saves a checkpoint when a signal ends the fit.
        folder: where everything goes.
        learner_threads: torch threads that the learner may have.
    """

    trainer: Trainer
    module: PPOModule
    data: SelfPlayDataModule
    evaluation: EvaluationCallback
    curves: CurvesCallback
    stop: OrderlyStop
    folder: Path
    learner_threads: int

    def fit(self, ckpt_path: str | None = None) -> None:
        """Train, with so few torch threads that workers which play at the same time keep their CPUs.

        Threads that share a CPU wait for one another.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(min(before, self.learner_threads))
        try:
            self.trainer.fit(self.module, datamodule=self.data, ckpt_path=ckpt_path, weights_only=True)
        finally:
            torch.set_num_threads(before)

    @property
    def last_checkpoint(self) -> Path:
        """Where the newest checkpoint of this run is, if it keeps any."""
        return _last_checkpoint(self.folder)


def run(config: DictConfig | ValidatedConfig) -> float:
    """Train as configured: in this process, or in one process for each device of the learner (a rank).

    With ``trainer.devices=2`` this process starts two ranks, waits for them and returns what the first one did. Under
    torchrun or srun nothing is started, and each process trains as the rank that it is, with the configuration of the
    first.

    Args:
        config: a composed configuration, or the section of a larger one that holds it, which is checked first; or one
            that has been, which is not checked again.

    Returns:
        The objective for sweeps: the final score against the first of ``evaluation.opponents``; NaN: none was played.

    Raises:
        ConfigError: the configuration cannot work, or an opponent's engine cannot be started; no worker was.
        RankError: of several ranks, one has failed or died, and the others were ended.
        Stopped: a signal (Ctrl-C, SIGTERM) ended the training; ``ckpt_path=last`` resumes it. A ``BaseException``.
    """
    valid = _valid(config)
    with StopSignals():  # for a program of somebody's own; a command has them already
        if (num_ranks := ranks_to_start(valid.cfg)) > 1:
            return run_ranks(partial(run_as_rank, valid.portable(), hydra_logging()), num_ranks)
        place = present_place()
        if place is None or not place.is_external or place.world_size == 1:
            return _run(valid)
        quiet_libraries()
        portable = valid.portable()
        text = shared_by_first_rank(portable.text, place)
        cfg = PortableConfig(portable.section, text).config()
        join_group(place, accelerator=cfg.trainer.accelerator, timeout_s=cfg.trainer.rank_timeout_s)
        return _run(ValidatedConfig(cfg))


def run_as_rank(portable: PortableConfig, logging_config: Mapping[str, Any] | None) -> float:
    """Train as one of several ranks that a parent has started.

    Args:
        portable: the valid configuration.
        logging_config: how the parent logs, for ``logging.config``; None: as Python does by itself.

    Returns:
        As :func:`run`.
    """
    atexit.register(gc.freeze)  # as the commands do: the interpreter's last looks for cycles take seconds
    keep_freed_memory()
    log_as_rank(logging_config)
    with governed_spinning():
        return _run(ValidatedConfig(portable.config()))


def _run(valid: ValidatedConfig) -> float:
    cfg, place = valid.cfg, present_place()
    is_first = place is None or place.rank == 0
    quiet_libraries()
    # "Received SIGTERM": launch tells which signal ended the run, in one line.
    logging.getLogger("lightning.pytorch.trainer.connectors.signal_connector").setLevel(logging.WARNING)
    if is_first:
        for line in config_warnings(cfg):
            log.warning(line)
    parts = build(valid)
    parts.evaluation.start()  # what cannot be started is told first; a fit would start it too
    if is_first:
        print_table(f"keisei-lightning: {cfg.name}", _start_rows(cfg, parts))
        remove_stale_temporaries(Path(cfg.results_dir, cfg.name), recursive=True)
    recorded_in = parts.folder if is_first and not cfg.trainer.fast_dev_run else None
    with run_record(recorded_in, lambda: parts.trainer.current_epoch), closing(parts.evaluation):
        try:
            parts.fit(cfg.ckpt_path)
        except (Stopped, SIGTERMException) as stop:
            if is_first and parts.stop.saved is not None:
                print_table("stopped", _end_rows(parts, parts.stop.saved, section_of(cfg)))
            # Lightning's own exception would end the process with exit code 0.
            signum = requested() or (stop.signum if isinstance(stop, Stopped) else signal.SIGTERM)
            raise Stopped(signum) from stop
    checkpoint = parts.last_checkpoint if _keeps_checkpoints(cfg) else None
    if is_first:
        print_table("done", _end_rows(parts, checkpoint, section_of(cfg)))
    result = parts.evaluation.last_result
    return math.nan if result is None else result.score


def _valid(config: DictConfig | ValidatedConfig) -> ValidatedConfig:
    return config if isinstance(config, ValidatedConfig) else validate(config)


def build(config: DictConfig | ValidatedConfig) -> Run:
    """Make the parts of a run; starts nothing.

    Args:
        config: as :func:`run` takes it.

    Raises:
        ConfigError: the configuration cannot work.
    """
    cfg = _valid(config).cfg
    seed_everything(cfg.seed, verbose=False)
    folder = Path(cfg.output_dir)
    game = game_factory(cfg.env.game, **game_options(cfg))
    spec = game(1).spec
    actor_critic = build_policy(cfg, spec)
    (options, workers, supervision), pool = parallel_options(cfg), opponent_options(cfg)
    collector = SelfPlayCollector(
        game,
        actor_critic,
        options,
        workers=workers,
        supervision=supervision,
        batches=BatchOptions(zero_copy=True),
        opponents=pool and _opponents(cfg, pool, actor_critic),
        cluster=made(ClusterOptions, cfg.parallel),
        seed=cfg.seed,
    )
    search = SearchTargets(game, made(SearchTargetOptions, cfg.search_targets), seed=cfg.seed)
    evaluation = EvaluationCallback(game, made(EvaluationOptions, cfg.evaluation), seed=cfg.seed)
    last = _last_checkpoint(folder) if _keeps_checkpoints(cfg) else None
    curves, stop = CurvesCallback(folder), OrderlyStop(last)
    callbacks: list[Callback] = [
        *([RankPhases()] if present_place() is not None else []),
        stop,
        *([FinalCheckpoint(last)] if last is not None else []),  # before all that may fail at the end
        WeightSyncCallback(cfg.weight_sync.every_n_steps),
        *([_snapshots(cfg, folder, spec.name)] if pool else []),
        SelfPlayMetrics(),
        evaluation,
        *([TrainingProgress()] if cfg.trainer.enable_progress_bar else []),
        *([LiveStateCallback(folder, every_s=cfg.live_every_s)] if cfg.live_every_s else []),
    ]
    callbacks = [
        *with_users(callbacks, build_callbacks(cfg)),  # these know the metrics of an epoch, and may end the training
        *(curves, CalibrationCallback(folder)),
        ExperimentLog(_plain(cfg)),
        *([BestCheckpoint(evaluation, last.parent)] if last is not None and cfg.checkpoint.keep_best else []),
    ]
    return Run(
        trainer=_build_trainer(cfg, callbacks, folder),
        module=PPOModule(actor_critic, made(PPOOptions, cfg.ppo), recipe=_recipe(cfg)),
        data=SelfPlayDataModule(collector, made(MinibatchOptions, cfg.ppo), search_targets=search, seed=cfg.seed),
        evaluation=evaluation,
        curves=curves,
        stop=stop,
        folder=folder,
        learner_threads=_learner_threads(collector),
    )


def _opponents(cfg: DictConfig, options: OpponentOptions, actor_critic: ActorCritic) -> OpponentOptions | League:
    return make_league(options, cfg.opponents.members, actor_critic) if cfg.opponents.mode == "league" else options


def _snapshots(cfg: DictConfig, folder: Path, game: str) -> SnapshotCallback:
    options = cfg.opponents
    if options.mode != "league":
        return SnapshotCallback(options.every_n_epochs)
    path = options.folder and os.path.expanduser(options.folder)
    shared = path and PoolFolder(path, name=cfg.name, game=game, kept=options.max_snapshots)
    return LeagueCallback(
        folder, options.every_n_epochs, options.join_score, folder=shared, own_snapshots=options.own_snapshots
    )


def _learner_threads(collector: SelfPlayCollector) -> int:
    """Torch threads of a learner on the CPU: those that workers leave which play at the same time."""
    cpus = available_cpus()
    if collector.schedule == "sync" or (cpus == 2 and collector.worker_threads == 1):
        # In turns; or one worker beside it, which plays a seventh of the time: with one thread the learner would leave
        # much of the second CPU idle (1.17 times as fast with two; docs/results/speed.md, "A busy machine").
        return cpus
    return max(1, cpus - collector.worker_threads)


def _recipe(cfg: DictConfig) -> dict[str, Any]:
    """How game and network are made, as checkpoints keep it."""
    return {"env": {"game": cfg.env.game, "options": game_options(cfg)}, "model": _plain(cfg.model)}


def _build_trainer(cfg: DictConfig, callbacks: list[Callback], folder: Path) -> Trainer:
    if _keeps_checkpoints(cfg):
        callbacks.append(
            ModelCheckpoint(
                dirpath=folder / "checkpoints",
                filename="epoch_{epoch:05d}",
                auto_insert_metric_name=False,
                monitor="step",  # the newest ones; to keep the best one is BestCheckpoint's work
                mode="max",
                save_top_k=cfg.checkpoint.keep,
                every_n_epochs=cfg.checkpoint.every_n_epochs,
                save_on_train_epoch_end=True,
                save_last=True,
                enable_version_counter=False,  # FinalCheckpoint's is the same file: no last-v1.ckpt beside it
            )
        )
    keys = OmegaConf.masked_copy(cfg.trainer, [key for key in cfg.trainer if key not in NOT_LIGHTNINGS])
    make_trainer = instantiate(keys, _partial_=True, _convert_="all")
    loggers = build_loggers(cfg.logger) or False
    try:
        trainer: Trainer = make_trainer(
            callbacks=callbacks,
            logger=loggers,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=str(folder),
            strategy=strategy_of_ranks(cfg.trainer.strategy, timeout_s=cfg.trainer.rank_timeout_s),
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:  # its arguments are the user's
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    return trainer


def _plain(cfg: DictConfig) -> dict[str, Any]:
    options = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(options, dict)
    return {str(key): value for key, value in options.items()}


def _keeps_checkpoints(cfg: DictConfig) -> bool:
    return bool(cfg.trainer.enable_checkpointing) and not cfg.trainer.fast_dev_run


def _last_checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def _start_rows(cfg: DictConfig, parts: Run) -> dict[str, object]:
    parallel, spec, collector = cfg.parallel, parts.data.collector.spec, parts.data.collector
    workers = f"{parallel.num_workers} worker{'' if parallel.num_workers == 1 else 's'}"
    where = {
        "serial": " in this process",
        "central": " and one inference process",
        "ray": f" on each of {_agents(parallel, collector.frames_per_batch)}",
    }
    player = workers + where.get(parallel.mode, "")
    size = f"{cfg.model.num_blocks} x {cfg.model.channels}" if "num_blocks" in cfg.model else ""
    kind = " ".join(word for word in (cfg.model.get("kind", "network"), size) if word)
    return {
        "game": f"{spec.name} ({spec.num_actions} actions, at most {spec.max_plies} plies)",
        "network": f"{kind}, {num_parameters(parts.module.actor_critic):,} parameters, on {cfg.trainer.accelerator}",
        "players": f"{player} x {parallel.games_per_worker} games, {parallel.schedule}",
        "plies": f"{collector.frames_per_batch:,} per epoch x {parts.trainer.max_epochs:,} epochs",
        "ranks": parts.trainer.world_size if parts.trainer.world_size > 1 else None,
        "learning": f"{cfg.ppo.epochs} passes, minibatches of {cfg.ppo.minibatch_size} plies",
        "learned from": None if cfg.ppo.advantage_share == 1 else f"{cfg.ppo.advantage_share:.0%} of the plies",
        "callbacks": ", ".join(name for name, entry in cfg.callbacks.items() if entry is not None) or None,
        "resumes from": cfg.ckpt_path,
        "results": _short(parts.folder),
    }


def _agents(parallel: DictConfig, plies_per_batch: int) -> str:
    """How many node agents there are, and on whose cluster."""
    number = plies_per_batch // (parallel.num_workers * parallel.games_per_worker * parallel.plies_per_rollout)
    agents = f"{number} node agent{'' if number == 1 else 's'}"
    if parallel.ray_address is None:
        return f"{agents} (a Ray cluster on this machine, started and stopped with the training)"
    return f"{agents} (Ray cluster {parallel.ray_address})"


def _end_rows(parts: Run, checkpoint: Path | None, section: str) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("score", parts.evaluation.last_result),
        ("checkpoint", None if checkpoint is None else _short(checkpoint)),
    ]
    rows += [
        # Rounded: a float32 of 0.2765 is a little less, and would be shown as 27.6 % beside the score's 27.7 %.
        ("best", f"{_short(Path(kept.best_model_path))} ({round(kept.best_model_score.item(), 6):.1%})")
        for kept in parts.trainer.checkpoint_callbacks
        if isinstance(kept, BestCheckpoint) and kept.best_model_score is not None
    ]
    names = {".png": "curves", ".svg": "last game"}
    rows += [(names.get(file.suffix, "its record"), _short(file)) for file in parts.curves.files]
    if checkpoint is not None:
        rows.append(("resume with", resume_command(_short(checkpoint), 2 * (parts.trainer.max_epochs or 1), section)))
    return rows


def _short(path: Path) -> str:
    """A path as seen from here, where that is shorter."""
    return os.path.relpath(path) if path.absolute().is_relative_to(Path.cwd()) else str(path)
