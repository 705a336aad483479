"""The sections of the configuration: which options each takes, and the schema that Hydra checks it with.

Every YAML file of a group names its schema as its first default (``- /schema@_here_: ppo``). Hydra then refuses keys
that the schema does not have and values of another type; what is in range, and what fits together, is checked by
:func:`keisei_lightning.config.validation.validate`. What an option is called, does and may be is declared beside the
component that uses it; here stand those of the parts that are not ours. This module imports no torch, so that
``--help`` and a mistyped command answer at once.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf

from keisei_lightning.models.options import NetworkOptions
from keisei_lightning.models.registry import OUR_NETWORKS
from keisei_lightning.parallel.options import (
    ClusterOptions,
    CollectorOptions,
    OpponentOptions,
    SupervisionOptions,
    WorkerOptions,
)
from keisei_lightning.system.options import Bounds, Declaration, SeedOptions, declared, option
from keisei_lightning.training.live_file import LIVE_EVERY_S
from keisei_lightning.training.options import (
    CheckpointOptions,
    EvaluationOptions,
    LeagueOptions,
    MinibatchOptions,
    PPOOptions,
    SearchTargetOptions,
    SnapshotOptions,
    WeightSyncOptions,
)

__all__ = [
    "OUR_TRAINER",
    "SCHEMAS",
    "SECTIONS",
    "CheckpointConfig",
    "Config",
    "EnvOptions",
    "LoggerOptions",
    "OpponentMode",
    "RunOptions",
    "TrainerOptions",
    "config_dir",
    "config_groups",
    "declarations",
    "register_configs",
    "schema_of",
]

OUR_TRAINER = "lightning.pytorch.Trainer"

_BATCHES_PATTERN = r"\d+|0\.\d+|1\.0|\d(\.\d+)?e-\d+"
_BATCHES_FORM = "a number of batches, 0 or more, or a share from 0.0 to 1.0"


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """The game."""

    game: str = option(
        sentence="A registered game (`keisei games` lists them), or the string of an OpenSpiel game, such as "
        "hex(board_size=5)."
    )
    max_plies: int | None = option(None, "A game is over after this many plies; null leaves it to the game.", low=1)
    opening_plies: int = option(
        0, "Every game starts after 0 to this many random legal plies, if the game has such an option.", low=0
    )
    options: dict[str, Any] = option(factory=dict, sentence="Further keyword arguments of the game's maker.")


@dataclass(frozen=True, kw_only=True)
class OpponentMode:
    """Whether there is a pool of opponents at all."""

    mode: Literal["none", "snapshots", "league"] = option(
        "none",
        "none: self-play only; snapshots: a share of the games is against frozen earlier policies, and only the "
        "learner's own moves are learned from; league: likewise, and against players, engines and other checkpoints "
        "too.",
    )


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """Lightning's Trainer; every argument but ``rank_timeout_s`` has Lightning's own meaning.

    Arguments that are not listed are added by ``+trainer.NAME=VALUE``; callbacks and loggers have groups of their own.
    """

    max_epochs: int = option(100, "Epochs of the whole training; one epoch is one PPO iteration.", low=1)
    max_time: str | None = option(
        None,
        "Longest time of the training; null: no limit.",
        pattern=r"\d+:\d\d:\d\d:\d\d",
        form="DD:HH:MM:SS, such as 00:12:00:00",
    )
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = option("cpu", "Kind of device of the learner.")
    devices: int | str = option(
        1,
        "Devices of the learner on each machine, one process (rank) each; under torchrun or srun 1 means as many as it "
        "has started.",
        pattern=r"[1-9]\d*|auto|\d+,|\d+(,\d+)+,?",
        form="a number of devices, auto, or devices' own numbers with a comma, such as 0, or 0,1",
    )
    num_nodes: int = option(1, "Machines; more than 1 under torchrun or srun only.", low=1)
    strategy: str = option("auto", "Lightning's strategy; auto is ddp with several devices.")
    rank_timeout_s: float = option(
        1800.0,
        "With several devices: seconds that a rank waits for the others before the training fails (DDP's timeout).",
        low=1.0,
        high=1e6,
    )
    # Lightning's others cast the weights, and the workers' are float32; "16" and "bf16" are its names of mixed ones.
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "32", "16", "bf16"] = option(
        "32-true", "Precision of the learner's arithmetic."
    )
    gradient_clip_val: float | None = option(0.5, "Largest norm of the gradient; null: not clipped.", low=0)
    accumulate_grad_batches: int = option(1, "Minibatches of one optimiser step.", low=1)
    check_val_every_n_epoch: int = option(1, "Epochs between validations, if there is a validation loader.", low=1)
    limit_train_batches: int | float | None = option(
        None, "Minibatches of each epoch; null: all.", pattern=_BATCHES_PATTERN, form=_BATCHES_FORM
    )
    overfit_batches: int | float = option(
        0.0, "Repeat the first minibatches of the first rollout.", pattern=_BATCHES_PATTERN, form=_BATCHES_FORM
    )
    fast_dev_run: int | bool = option(False, "Only try it out: one minibatch (or so many), nothing is kept.", low=0)
    log_every_n_steps: int = option(10, "Optimiser steps between two rows of metrics.", low=0)
    num_sanity_val_steps: int = option(0, "Validation batches before training; -1: all.", low=-1)
    deterministic: bool | None = option(None, "Only deterministic algorithms of torch; null: as torch is set.")
    detect_anomaly: bool = option(False, "Torch's anomaly detection, which is slow.")
    profiler: Literal["simple", "advanced", "pytorch"] | None = option(
        None, "Lightning's profiler, whose table is shown at the end; null: none."
    )
    enable_progress_bar: bool = option(True, "Show progress while training.")
    enable_checkpointing: bool = option(True, "Write checkpoints.")
    enable_model_summary: bool = option(False, "Show Lightning's table of the module's parts.")


@dataclass(frozen=True, kw_only=True)
class LoggerOptions:
    """Where metrics go: each entry is a Lightning logger with a ``_target_``, or null."""

    csv: dict[str, Any] | None = option(None, "metrics.csv, from which the PNG of the curves is drawn.")
    tensorboard: dict[str, Any] | None = option(None, "Event files for TensorBoard, which shows curves.")
    wandb: dict[str, Any] | None = option(None, "Weights & Biases (extra: tracking).")
    mlflow: dict[str, Any] | None = option(None, "MLflow (extra: tracking).")
    other: dict[str, Any] = option(factory=dict, sentence="Any further loggers by name.")


@dataclass(frozen=True, kw_only=True)
class RunOptions(SeedOptions):
    """A run: its name, its folders, and its sections."""

    name: str = option(sentence="Names the folder of results.")
    ckpt_path: str | None = option(
        None,
        "null: start anew; last: resume from the newest whole checkpoint of this name; auto: the same where there is "
        "one (for jobs that are queued again); else a checkpoint file.",
    )
    initial_policy: str | None = option(
        None,
        "A new training begins with the weights of this checkpoint file or published policy, of the same game and "
        "network (a resnet may have more blocks); null: with new ones.",
    )
    results_dir: str = option("results", "Holds a folder for each name, which holds a folder for each run.")
    output_dir: str = option(sentence="The folder of this run.")
    live_every_s: float = option(
        LIVE_EVERY_S,
        "Seconds between two states of workers and games in progress that `keisei serve` shows (live.json, there while "
        "the run goes on); 0: none.",
        low=0,
        high=1e6,
    )
    env: Any = option(sentence="The game.")
    model: Any = option(sentence="The network; one of your own is a file with a _target_ and keys of its own.")
    ppo: Any = option(sentence="The learning rule: PPO with two-player advantages.")
    search_targets: Any = option(sentence="What is also learned from searches.")
    parallel: Any = option(sentence="Who plays the games, and how.")
    opponents: Any = option(sentence="Whom the learner plays against.")
    weight_sync: Any = option(sentence="When the workers get new weights.")
    trainer: Any = option(sentence="Lightning's Trainer.")
    logger: Any = option(sentence="Where metrics go.")
    evaluation: Any = option(sentence="Matches of the policy while it trains.")
    callbacks: dict[str, Any] = option(
        factory=dict,
        sentence="Further callbacks of Lightning's Trainer by name, each with a _target_, or null; several options may "
        "be chosen.",
    )
    checkpoint: Any = option(sentence="What is kept of a run.")


def declarations(*options: type, **changes: Mapping[str, Any]) -> tuple[Declaration, ...]:
    """The declarations of several classes of options, in their order.

    Args:
        options: the classes.
        changes: what is otherwise here, by key, such as ``num_workers={"default": "auto"}``.
    """
    found = [declaration for cls in options for declaration in declared(cls)]
    return tuple(dataclasses.replace(each, **changes.get(each.name, {})) for each in found)


SECTIONS: dict[str, tuple[Declaration, ...]] = {
    "": declarations(RunOptions, seed={"bounds": Bounds(low=0, high=2**32 - 1)}),  # as Lightning's
    "env": declared(EnvOptions),
    "model": declared(NetworkOptions),
    "ppo": declarations(PPOOptions, MinibatchOptions, final_learning_rate={"default": 3e-4}),
    "search_targets": declared(SearchTargetOptions),
    "parallel": declarations(
        *(CollectorOptions, WorkerOptions, SupervisionOptions, ClusterOptions), num_workers={"default": "auto"}
    ),
    "opponents": declarations(OpponentMode, OpponentOptions, SnapshotOptions, LeagueOptions),
    "weight_sync": declared(WeightSyncOptions),
    "trainer": declared(TrainerOptions),
    "logger": declared(LoggerOptions),
    "evaluation": declarations(EvaluationOptions, num_games={"default": 200}),
    "checkpoint": declared(CheckpointOptions),
}
"""The options of each section of the configuration; the top level is "". A recipe may begin elsewhere than a library:
three defaults are not those of the component alone."""


def schema_of(
    name: str, options: Iterable[Declaration], *, target: str = "", sections: Mapping[str, type] | None = None
) -> type:
    """Make the dataclass that OmegaConf checks types with (which makes frozen ones read-only, and knows no Literal).

    Args:
        name: of the class.
        options: its keys.
        target: of ``_target_``; empty: there is none.
        sections: schemas of keys that are sections of their own.
    """
    fields: list[Any] = [("_target_", str, target)] if target else []
    for each in options:
        if sections and each.name in sections:
            fields.append((each.name, sections[each.name], field(default_factory=sections[each.name])))
            continue
        kind: Any = Union[(*each.kinds, *([None] if each.may_be_none else []))]
        if isinstance(each.default, list | dict):
            fields.append((each.name, kind, field(default_factory=partial(copy.copy, each.default))))
        else:
            fields.append((each.name, kind, MISSING if each.default is dataclasses.MISSING else each.default))
    made = dataclasses.make_dataclass(name, fields)
    made.__module__ = sys._getframe(1).f_globals["__name__"]  # where it can be found again, as for copies of a process
    return made


CheckpointConfig = schema_of("CheckpointConfig", SECTIONS["checkpoint"])
Config = schema_of("Config", SECTIONS[""], sections={"checkpoint": CheckpointConfig})

_TARGETS = {"mlp": OUR_NETWORKS, "resnet": OUR_NETWORKS, "trainer": OUR_TRAINER}

SCHEMAS: dict[str, type] = {
    name: schema_of(f"_{name.title()}Config", options, target=_TARGETS.get(name, ""))
    for name, options in {
        **SECTIONS,
        "resnet": declarations(NetworkOptions, num_blocks={"default": 2}, channels={"default": 32}),
        "mlp": declarations(
            NetworkOptions, kind={"default": "mlp"}, num_blocks={"default": 2}, channels={"default": 128}
        ),
    }.items()
    if name not in ("", "checkpoint", "model")  # no groups with a schema of their own
}
"""The schemas by the names that files of the groups call them by."""

globals().update({schema.__name__: schema for schema in SCHEMAS.values()})  # where pickle looks for them


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
