"""Where a training's time goes: the configuration that would be trained, a few iterations of it, stage by stage."""

from __future__ import annotations

import tempfile

from keisei_lightning.commands.bench.options import ProfileOptions
from keisei_lightning.commands.bench.report import print_report
from keisei_lightning.commands.bench.short_training import short_training

__all__ = ["run"]


def run(options: ProfileOptions) -> None:
    """Measure and print.

    Raises:
        ConfigError: the overrides are no configuration that can be trained.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = short_training(options, folder)
        from keisei_lightning.commands.bench.stages import (
            measure_stages,  # torch: a mistyped override is told without it
        )

        times = measure_stages(config)
    print_report(
        f"profile: {' '.join(options.overrides) or 'the default configuration'}",
        times.rows(),
        as_json=options.json,
        write=options.write,
        notes=times.notes(),
        one_line_a_row=True,
    )
