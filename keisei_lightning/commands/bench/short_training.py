"""The configuration of a training that is run for a few iterations, to be measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig, OmegaConf

from keisei_lightning.commands.bench.options import TrainingOptions
from keisei_lightning.commands.compose import compose_training
from keisei_lightning.config.compose_errors import COMPOSE_ERRORS, explain
from keisei_lightning.config.ranks import ranks_to_start
from keisei_lightning.config.validation import ValidatedConfig, validate
from keisei_lightning.errors import ConfigError

__all__ = ["short_training", "shown"]


def short_training(options: TrainingOptions, folder: str, further: Sequence[str] = ()) -> ValidatedConfig:
    """The configuration that is trained.

    Args:
        options: of the bench.
        folder: where the training writes.
        further: overrides of the bench's own, which count more than the user's.

    Raises:
        ConfigError: the overrides cannot be put together, or trained with, or ask for several learners.
    """
    valid = validate(_composed(options, folder, further))
    if ranks_to_start(valid.cfg) > 1:
        raise ConfigError(f"trainer.devices={valid.cfg.trainer.devices}: must be 1 (one learner is measured)")
    return valid


def _composed(options: TrainingOptions, folder: str, further: Sequence[str] = ()) -> DictConfig:
    overrides = [
        "logger=none",
        "evaluation.every_n_epochs=0",
        *options.overrides,
        *further,
        f"output_dir={folder}",
        "trainer.enable_progress_bar=false",
        "trainer.enable_checkpointing=false",
        f"trainer.max_epochs={options.iterations + 1}",
    ]
    try:
        return compose_training(overrides)
    except COMPOSE_ERRORS as error:
        raise ConfigError(explain(error, options.overrides)) from error


def shown(options: TrainingOptions) -> dict[str, Any]:
    """What ``--cfg job`` shows: the bench's own options, and the training's whole configuration."""
    own = {key: value for key, value in asdict(options).items() if key != "overrides"}
    return {**own, "training": OmegaConf.to_container(_composed(options, "TEMPORARY"))}
