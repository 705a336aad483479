"""Measurements that a user runs on their own machine: ``keisei bench collect|learn|profile|rules|tune|weights``.

What is compared runs side by side in one process tree, in alternating rounds, and is quoted as medians and ratios: on a
noisy machine a number alone says little. What can be typed is declared in ``arguments.py``; a bench, and torch with it,
is imported when it runs.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from keisei_lightning.commands.bench.arguments import BENCHES, check_game
from keisei_lightning.errors import ConfigError
from keisei_lightning.system.console import say
from keisei_lightning.system.stopping import Stopped, StopSignals

__all__ = ["main"]

DONE, BAD_CONFIG = 0, 2


def main(argv: Sequence[str]) -> int:
    """Run ``keisei bench ...``.

    Args:
        argv: words after ``keisei bench``.

    Returns:
        The exit status: 0 done, 2 a game or a configuration that cannot be measured, 130 Ctrl-C, 143 SIGTERM.

    Raises:
        SystemExit: help was asked for (0), or a word cannot be read (2).
    """
    parser = argparse.ArgumentParser(prog="keisei bench", description="Measure this machine; prints a table or JSON.")
    commands = parser.add_subparsers(dest="bench", required=True, metavar="{" + ",".join(BENCHES) + "}")
    for name, bench in BENCHES.items():
        command = commands.add_parser(name, help=bench.help, description=bench.help)
        bench.add_arguments(command)
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
        command.add_argument("--write", type=_path, metavar="FILE", help="write JSON to this file too")
    arguments = parser.parse_args(argv)
    try:
        check_game(arguments)
        _check_file(arguments.write)
        with StopSignals():
            status: int = importlib.import_module(f"{__name__}.{arguments.bench}").run(arguments)
    except Stopped as stop:
        say(str(stop))
        return stop.exit_code
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        say(
            f"there is not enough memory here for what is to be measured{reason}; must be fewer games, plies or workers"
        )
        return BAD_CONFIG
    except ConfigError as error:
        say(*error.faults)
        return BAD_CONFIG
    return status


def _path(text: str) -> Path:
    """A path of the command line; the shell leaves the ``~`` of ``--write=~/x`` as it is."""
    return Path(os.path.expanduser(text))


def _check_file(file: Path | None) -> None:
    """Whether a report can be written: minutes of measuring must not end in a permission error.

    Raises:
        ConfigError: it cannot.
    """
    if file is None:
        return
    try:
        is_new = not file.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a", encoding="utf-8").close()
        if is_new:
            file.unlink()
    except OSError as error:
        raise ConfigError(f"--write {file}: must be a file that can be written to ({error.strerror})") from error
