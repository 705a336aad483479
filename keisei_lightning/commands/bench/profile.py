"""Where a training's time goes: the configuration that would be trained, a few iterations of it, stage by stage."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from hydra import compose, initialize_config_dir

from keisei_lightning.commands.bench.report import print_report
from keisei_lightning.config.compose_errors import COMPOSE_ERRORS, explain
from keisei_lightning.config.quoting import quote_texts
from keisei_lightning.config.schemas import config_dir, register_configs
from keisei_lightning.config.validation import ValidatedConfig, validate
from keisei_lightning.errors import ConfigError

__all__ = ["run"]


def _composed(overrides: list[str], iterations: int, folder: Path) -> ValidatedConfig:
    register_configs()
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        cfg = compose(
            "config",
            overrides=[
                "logger=none",
                "evaluation.every_n_epochs=0",
                *quote_texts(overrides),
                f"output_dir={folder}",
                "trainer.enable_progress_bar=false",
                "trainer.enable_checkpointing=false",
                f"trainer.max_epochs={iterations + 1}",
            ],
        )
    return validate(cfg)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; returns the exit status.

    Raises:
        ConfigError: the overrides are no configuration that can be trained.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = _composed(arguments.overrides, arguments.iterations, Path(folder))
        except ConfigError:
            raise
        except COMPOSE_ERRORS as error:
            raise ConfigError(explain(error, arguments.overrides)) from error
        from keisei_lightning.commands.bench.stages import (
            measure_stages,  # torch: a mistyped override is told without it
        )

        rows, notes = measure_stages(config)
    print_report(
        f"profile: {' '.join(arguments.overrides) or 'the default configuration'}",
        rows,
        as_json=arguments.json,
        write=arguments.write,
        notes=notes,
        one_line_a_row=True,
    )
    return 0
