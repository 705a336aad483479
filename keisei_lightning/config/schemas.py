"""The configuration's schemas: one dataclass for each Hydra group, so that a typo fails before anything starts.

Every YAML file of a group names its schema as its first default (``- /schema@_here_: ppo``). Hydra then refuses keys
that the dataclass does not have and values of another type; what is in range, and what fits together, is checked by
:func:`keisei_lightning.config.validation.validate`. This module imports no torch, so that ``--help`` and a mistyped
command answer at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf

__all__ = [
    "CheckpointConfig",
    "Config",
    "EnvConfig",
    "EvaluationConfig",
    "LoggerConfig",
    "MLPConfig",
    "OpponentsConfig",
    "PPOConfig",
    "ParallelConfig",
    "ResNetConfig",
    "TrainerConfig",
    "WeightSyncConfig",
    "config_dir",
    "config_groups",
    "register_configs",
]


@dataclass
class EnvConfig:
    """The game (group ``env``).

    Attributes:
        game: a registered game (``keisei games`` lists them) or the string of an OpenSpiel game, such as
            ``hex(board_size=5)``.
        max_plies: a game is over after this many plies; null leaves it to the game.
        opening_plies: every game starts after 0 to this many random legal plies.
        options: further keyword arguments of the game's maker.
    """

    game: str = MISSING
    max_plies: int | None = None
    opening_plies: int = 0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ResNetConfig:
    """A residual network (group ``model``); any other network is a YAML file with a ``_target_`` of its own.

    Attributes:
        kind: ``resnet``.
        num_blocks: residual blocks.
        channels: channels of each block.
        value_head: ``scalar`` (one number in [-1, 1]) or ``wdl`` (win, draw, loss).
        equivariant: judge a position and its mirror image alike, by construction.
    """

    _target_: str = "keisei_lightning.models.build_network"
    kind: str = "resnet"
    num_blocks: int = 2
    channels: int = 32
    value_head: str = "scalar"
    equivariant: bool = False


@dataclass
class MLPConfig:
    """A plain perceptron (group ``model``), for the smallest games.

    Attributes:
        kind: ``mlp``.
        num_blocks: hidden layers.
        channels: units of each hidden layer.
        value_head: ``scalar`` or ``wdl``.
        equivariant: must be false.
    """

    _target_: str = "keisei_lightning.models.build_network"
    kind: str = "mlp"
    num_blocks: int = 2
    channels: int = 128
    value_head: str = "scalar"
    equivariant: bool = False


@dataclass
class PPOConfig:
    """The learning rule (group ``ppo``): proximal policy optimisation with two-player advantages.

    Attributes:
        gamma: discount of a ply.
        lmbda: lambda of generalised advantage estimation.
        clip_epsilon: the new policy's probability ratio is clipped to 1 - epsilon and 1 + epsilon.
        entropy_coeff: weight of the policy's entropy at the start.
        final_entropy_coeff: at the end (linear in between); null keeps it constant.
        critic_coeff: weight of the value loss.
        critic_loss: distance of the value from its target: ``l2``, ``smooth_l1`` or ``l1``.
        clip_value: limit of the value's change in one update; null: none.
        learning_rate: Adam's step size at the start.
        final_learning_rate: at the end (linear in between); null keeps it constant.
        epochs: passes over each batch.
        minibatch_size: plies in one optimiser step.
        normalize_advantage: give the advantages of a batch mean 0 and variance 1.
        kl_target: adapt the learning rate so that a batch changes the policy by about this KL divergence; null: do not.
        decoupled: keep the behaviour policy apart from the proximal one, for batches some versions old (async).
        adam_eps: Adam's epsilon.
        weight_decay: decoupled, as in AdamW.
        compile_mode: of ``torch.compile`` for the learner's network, as ``parallel.compile_mode``; null: not compiled.
    """

    gamma: float = 0.995
    lmbda: float = 0.95
    clip_epsilon: float = 0.2
    entropy_coeff: float = 0.01
    final_entropy_coeff: float | None = None
    critic_coeff: float = 0.5
    critic_loss: str = "l2"
    clip_value: float | None = None
    learning_rate: float = 1e-3
    final_learning_rate: float | None = 3e-4
    epochs: int = 2
    minibatch_size: int = 1024
    normalize_advantage: bool = True
    kl_target: float | None = None
    decoupled: bool = False
    adam_eps: float = 1e-5
    weight_decay: float = 0.0
    compile_mode: str | None = None


@dataclass
class ParallelConfig:
    """Who plays the games (group ``parallel``).

    Attributes:
        mode: ``workers`` (a policy copy in each worker process), ``central`` (the workers only play moves; one process
            judges positions for all of them: for an accelerator) or ``serial`` (no process; the same results as
            ``workers``).
        schedule: ``sync`` (collect, train, publish; on-policy) or ``async`` (collect while training; lag is bounded).
        num_workers: worker processes, or ``auto``: as many as this process may use CPUs; with ``async``, a quarter of
            them where the learner is on the CPU too, else all but one.
        games_per_worker: boards that a worker plays at once.
        plies_per_rollout: plies of each board in one batch.
        max_policy_lag: rollouts older than this many published versions are refused.
        slots_per_worker: rollouts that are stored for each worker; with ``async`` it plays on while one is free.
        drop_oldest: with ``async``, deliver the newest of the rollouts that wait, and drop (and count) the others.
        start_method: of the processes; null picks forkserver where there is one, spawn elsewhere.
        worker_device: device of the workers' policy, or of the inference process's: ``cpu``, ``cuda:N`` or ``auto``.
        worker_precision: of the policy's arithmetic there, ``32-true`` or ``bf16-mixed``, as ``trainer.precision``.
        compile_mode: of ``torch.compile`` for the network there (``default``, ``reduce-overhead``,
            ``max-autotune``, ``max-autotune-no-cudagraphs``); null: not compiled.
        threads_per_worker: torch threads of a worker, or of the inference process; null shares the CPUs out, with
            ``async`` half of them (at most OMP_NUM_THREADS each).
        groups_per_worker: with ``central``, a worker plays the moves of one group of its games while the positions of
            another are judged.
        heartbeat_s: a worker that is silent for this long is replaced.
        start_timeout_s: time for all workers to become ready.
        shutdown_timeout_s: time for all workers to end by themselves.
        max_restarts: restarts of one worker inside ``restart_window_s`` before training gives up.
        restart_window_s: see ``max_restarts``.
        restart_backoff_s: pause before a restart after a short life; doubled for each further one on end.
        min_healthy_workers: with fewer workers alive training gives up; 0: only when a restart budget is used up.
        stagger_games: begin the first games somewhere in their course, so that a batch holds all phases of a game.
        augment_symmetry: play half of the games in the game's mirror image.
    """

    mode: str = "workers"
    schedule: str = "sync"
    num_workers: int | str = "auto"
    games_per_worker: int = 64
    plies_per_rollout: int = 32
    max_policy_lag: int = 2
    slots_per_worker: int = 2
    drop_oldest: bool = False
    start_method: str | None = None
    worker_device: str = "cpu"
    worker_precision: str = "32-true"
    compile_mode: str | None = None
    threads_per_worker: int | None = None
    groups_per_worker: int = 2
    heartbeat_s: float = 10.0
    start_timeout_s: float = 120.0
    shutdown_timeout_s: float = 10.0
    max_restarts: int = 5
    restart_window_s: float = 300.0
    restart_backoff_s: float = 0.5
    min_healthy_workers: int = 0
    stagger_games: bool = True
    augment_symmetry: bool = False


@dataclass
class OpponentsConfig:
    """Whom the learner plays against (group ``opponents``).

    Attributes:
        mode: ``none`` (self-play only) or ``snapshots`` (a share of the games is against frozen earlier policies; only
            the learner's own moves are learned from).
        share: of the games that are played against snapshots.
        max_snapshots: of the pool; the oldest one leaves it first.
        every_n_epochs: PPO iterations between two snapshots.
        choice: of the snapshot: ``uniform``, or ``prioritised`` (those that the learner does worst against).
    """

    mode: str = "none"
    share: float = 0.5
    max_snapshots: int = 12
    every_n_epochs: int = 20
    choice: str = "uniform"


@dataclass
class WeightSyncConfig:
    """When the workers get new weights (group ``weight_sync``).

    Attributes:
        every_n_steps: publish after this many optimiser steps; null publishes once per PPO iteration.
    """

    every_n_steps: int | None = None


@dataclass
class TrainerConfig:
    """Lightning's Trainer (group ``trainer``); every argument has Lightning's own meaning.

    One epoch is one PPO iteration. Arguments that are not listed are added by ``+trainer.NAME=VALUE``; callbacks and
    loggers have groups of their own.
    """

    _target_: str = "lightning.pytorch.Trainer"
    max_epochs: int = 100
    max_time: str | None = None
    accelerator: str = "cpu"
    devices: int | str = 1
    strategy: str = "auto"
    precision: str = "32-true"
    gradient_clip_val: float | None = 0.5
    accumulate_grad_batches: int = 1
    check_val_every_n_epoch: int = 1
    limit_train_batches: int | float | None = None
    overfit_batches: int | float = 0.0
    fast_dev_run: int | bool = False
    log_every_n_steps: int = 10
    num_sanity_val_steps: int = 0
    deterministic: bool | None = None
    detect_anomaly: bool = False
    profiler: str | None = None
    enable_progress_bar: bool = True
    enable_checkpointing: bool = True
    enable_model_summary: bool = False


@dataclass
class LoggerConfig:
    """Where metrics go (group ``logger``): each entry is a Lightning logger with a ``_target_``, or null.

    Attributes:
        csv: ``metrics.csv``, from which the PNG of the curves is drawn.
        tensorboard: event files.
        wandb: Weights & Biases (extra ``tracking``).
        mlflow: MLflow (extra ``tracking``).
        other: any further loggers by name.
    """

    csv: dict[str, Any] | None = None
    tensorboard: dict[str, Any] | None = None
    wandb: dict[str, Any] | None = None
    mlflow: dict[str, Any] | None = None
    other: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluationConfig:
    """Matches of the policy, greedy, while it trains (group ``evaluation``).

    Attributes:
        opponents: players by name, such as ``random`` or ``alpha_beta(depth=3)``; the final score against the first one
            is the objective of a sweep.
        every_n_epochs: PPO iterations between evaluations; 0 evaluates only at the end. The last one is always played.
        num_games: games against each opponent (even: each opening is played from both seats).
        opening_plies: each opening has 0 to this many random plies; null takes ``env.opening_plies``.
        at_start: also evaluate the weights that training starts from.
        against_epochs_ago: also play the policy of so many iterations ago (a multiple of ``every_n_epochs``).
        ladder: of opponents whose games against each other are known, so that ``eval/rating`` (Elo) can be computed:
            ``shogi``, or the path of a ``results.json`` of ``keisei eval round_robin=true``.
        max_time_share: of the time that evaluations may take; one that would exceed it is left out. null: no limit.
    """

    opponents: list[str] = field(default_factory=lambda: ["random"])
    every_n_epochs: int = 10
    num_games: int = 200
    opening_plies: int | None = None
    at_start: bool = False
    against_epochs_ago: int | None = None
    ladder: str | None = None
    max_time_share: float | None = None


@dataclass
class CheckpointConfig:
    """What is kept of a run.

    Attributes:
        every_n_epochs: PPO iterations between checkpoints; ``last.ckpt`` is always the newest one.
        keep: how many older checkpoints stay beside ``last.ckpt``; -1 keeps all, 0 none.
        keep_best: also keep ``best.ckpt``, the evaluated policy with the highest score against the first of
            ``evaluation.opponents``.
    """

    every_n_epochs: int = 10
    keep: int = 1
    keep_best: bool = False


@dataclass
class Config:
    """The whole configuration.

    Attributes:
        name: names the folder of results.
        seed: every random stream of the run is spawned from it.
        ckpt_path: null starts anew; ``last`` goes on with the newest whole checkpoint of this name; ``auto`` does so
            where there is one (for jobs that are queued again); else a checkpoint file.
        results_dir: holds one folder for each name, which holds one folder for each run.
        output_dir: the folder of this run.
        callbacks: further callbacks of Lightning's Trainer by name, each with a ``_target_``, or null (group
            ``callbacks``, of which several may be chosen).
    """

    name: str = MISSING
    seed: int = 0
    ckpt_path: str | None = None
    results_dir: str = "results"
    output_dir: str = MISSING
    env: Any = MISSING
    model: Any = MISSING
    ppo: Any = MISSING
    parallel: Any = MISSING
    opponents: Any = MISSING
    weight_sync: Any = MISSING
    trainer: Any = MISSING
    logger: Any = MISSING
    evaluation: Any = MISSING
    callbacks: dict[str, Any] = field(default_factory=dict)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)


SCHEMAS: dict[str, type] = {
    "env": EnvConfig,
    "evaluation": EvaluationConfig,
    "logger": LoggerConfig,
    "mlp": MLPConfig,
    "opponents": OpponentsConfig,
    "parallel": ParallelConfig,
    "ppo": PPOConfig,
    "resnet": ResNetConfig,
    "trainer": TrainerConfig,
    "weight_sync": WeightSyncConfig,
}


def config_dir() -> Path:
    """Find the YAML files: in the package, or beside it in a copy of a checkout that has lost its symbolic link.

    Raises:
        FileNotFoundError: neither is there; the installation is broken.
    """
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise FileNotFoundError(
        f"no conf/config.yaml in {package} or beside it: keisei-lightning is not installed properly"
    )


def config_groups() -> dict[str, list[str]]:
    """The options of each group, both in alphabetical order; without Hydra's own groups."""
    groups: dict[str, list[str]] = {}
    for file in sorted(config_dir().glob("*/*.yaml")):
        groups.setdefault(file.parent.name, []).append(file.stem)
    return groups


def register_configs() -> None:
    """Put the schemas into Hydra's ConfigStore, and the resolvers of folders' names."""
    store = ConfigStore.instance()
    store.store(name="config_schema", node=Config)
    for name, schema in SCHEMAS.items():
        store.store(group="schema", name=name, node=schema)
    OmegaConf.register_new_resolver("keisei.slug", _slug, replace=True)
    OmegaConf.register_new_resolver("keisei.output_dir", _output_dir, replace=True)


def _output_dir(*, _parent_: DictConfig) -> str:
    """The folder of the run that Hydra has started; where it only shows a configuration (``--cfg``), what is known."""
    runtime = HydraConfig.get().runtime
    if OmegaConf.is_missing(runtime, "output_dir"):
        return str(Path(_parent_.results_dir, _parent_.name, "DATE-TIME"))
    return str(runtime.output_dir)


def _slug(text: str) -> str:
    """Make a folder's name: ``hex(board_size=5)`` becomes ``hex_board_size_5``."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_") or "run"
