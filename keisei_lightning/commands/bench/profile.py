"""Where a training's time goes: the configuration that would be trained, a few iterations of it, stage by stage."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig, OmegaConf

from keisei_lightning.commands.bench.options import ProfileOptions
from keisei_lightning.commands.bench.report import print_report
from keisei_lightning.commands.compose import compose_training
from keisei_lightning.config.compose_errors import COMPOSE_ERRORS, explain
from keisei_lightning.config.ranks import ranks_to_start
from keisei_lightning.config.validation import validate
from keisei_lightning.errors import ConfigError

__all__ = ["run", "shown"]


def _training(options: ProfileOptions, folder: str) -> DictConfig:
    """The configuration that is trained.

    Raises:
        ConfigError: the overrides cannot be put together.
    """
    overrides = [
        "logger=none",
        "evaluation.every_n_epochs=0",
        *options.overrides,
        f"output_dir={folder}",
        "trainer.enable_progress_bar=false",
        "trainer.enable_checkpointing=false",
        f"trainer.max_epochs={options.iterations + 1}",
    ]
    try:
        return compose_training(overrides)
    except COMPOSE_ERRORS as error:
        raise ConfigError(explain(error, options.overrides)) from error


def shown(options: ProfileOptions) -> dict[str, Any]:
    """What ``--cfg job`` shows: the bench's own options, and the training's whole configuration."""
    own = {key: value for key, value in asdict(options).items() if key != "overrides"}
    return {**own, "training": OmegaConf.to_container(_training(options, "TEMPORARY"))}


def run(options: ProfileOptions) -> None:
    """Measure and print.

    Raises:
        ConfigError: the overrides are no configuration that can be trained.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = validate(_training(options, folder))
        if ranks_to_start(config.cfg) > 1:
            raise ConfigError(f"trainer.devices={config.cfg.trainer.devices}: must be 1 (one learner is measured)")
        from keisei_lightning.commands.bench.stages import (
            measure_stages,  # torch: a mistyped override is told without it
        )

        rows, notes = measure_stages(config)
    print_report(
        f"profile: {' '.join(options.overrides) or 'the default configuration'}",
        rows,
        as_json=options.json,
        write=options.write,
        notes=notes,
        one_line_a_row=True,
    )
