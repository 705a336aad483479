"""Measurements that a user runs on their own machine: ``keisei bench collect|learn|profile|rules|scale|tune|weights``.

What is compared runs side by side in one process tree, in alternating rounds, and is quoted as medians and ratios: on a
noisy machine a number alone says little. What can be typed is declared in ``options.py``; a bench, and torch with it,
is imported when it runs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keisei_lightning.commands.bench.options import BENCHES, GameOptions, ReportOptions, TrainingOptions, check_game
from keisei_lightning.commands.exit_codes import BAD_USAGE, DONE
from keisei_lightning.commands.options_command import OptionsCommand
from keisei_lightning.errors import ConfigError
from keisei_lightning.system.console import say

__all__ = ["main"]

_HELP = """\
usage: keisei bench NAME [KEY=VALUE ...]      `keisei bench NAME --help` lists its keys

Measures this machine; prints a table or JSON.

names:
{names}

examples:
  keisei bench collect 'mode=[workers,central]' 'workers=[1,2]' write=results/collect.json
  keisei bench profile experiment=shogi model=medium iterations=20
  keisei bench scale experiment=shogi 'nodes=[1,10,100,1000]' write=results/scale.json
Brackets need quotation marks around the word, as the shell has a meaning of its own for them.
"""


def main(argv: Sequence[str]) -> int:
    """Run ``keisei bench ...``.

    Args:
        argv: words after ``keisei bench``.

    Returns:
        The exit code (:mod:`keisei_lightning.commands.exit_codes`).
    """
    if argv and argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(_HELP.format(names="\n".join(f"  {name:<8} {b.help}" for name, b in BENCHES.items())))
        return DONE
    if not argv or argv[0] not in BENCHES:
        reason = f"bench {argv[0]}: no such bench" if argv else "bench: its name is missing"
        say(f"{reason}; must be one of {', '.join(BENCHES)}")
        return BAD_USAGE
    return _command(argv[0])(argv[1:])


def _command(name: str) -> OptionsCommand[ReportOptions]:
    bench = BENCHES[name]
    trains = issubclass(bench.options, TrainingOptions)
    return OptionsCommand(
        name=f"bench {name}",
        arguments="[OVERRIDE ...] [KEY=VALUE ...]" if trains else "[KEY=VALUE ...]",
        about=f"{bench.help}.{' Overrides are those of `keisei train`.' if trains else ''}",
        options=bench.options,
        run=lambda options: _run(name, options),
        rest="overrides" if trains else None,
        shown=_shown_training if trains else asdict,
    )


def _run(name: str, options: ReportOptions) -> None:
    """Measure.

    Raises:
        ConfigError: what was asked for cannot be measured.
    """
    if isinstance(options, GameOptions):
        check_game(options)
    if options.write is not None:
        _check_file(options.write)
    try:
        importlib.import_module(f"{__name__}.{name}").run(options)
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        raise ConfigError(
            f"there is not enough memory here for what is to be measured{reason}; must be fewer games, plies or workers"
        ) from error


def _shown_training(options: Any) -> dict[str, Any]:
    from keisei_lightning.commands.bench.short_training import shown  # Hydra, which help does not need

    return shown(options)


def _check_file(name: str) -> None:
    """Whether a report can be written: minutes of measuring must not end in a permission error.

    Raises:
        ConfigError: it cannot.
    """
    file = Path(name)
    try:
        is_new = not file.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a", encoding="utf-8").close()
        if is_new:
            file.unlink()
    except OSError as error:
        raise ConfigError(f"write={name}: must be a file that can be written to ({error.strerror})") from error
