"""The command ``keisei usi``: a policy as a USI engine, which every shogi program can open."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path
from typing import Final

from keisei_lightning.commands.engine_options import UsiOptions
from keisei_lightning.commands.options_command import OptionsCommand
from keisei_lightning.engine.settings import EngineSettings
from keisei_lightning.errors import ConfigError
from keisei_lightning.published import is_published
from keisei_lightning.system.console import say
from keisei_lightning.system.options import declared, spelled

__all__ = ["main"]

_ABOUT = """\
Speaks USI on standard input and output, for ShogiHome, ShogiGUI, ShogiArena and others. They open a program, and not
a command with words, so install=FILE writes one that does this; choose that file as the engine."""

_NOTES = """\
examples:
  keisei usi install=keisei-shogi                    writes ./keisei-shogi; add it in your program as an engine
  keisei usi checkpoint=results/shogi/RUN/checkpoints/last.ckpt simulations=400 install=~/engines/mine
  keisei usi                                         speaks USI at once: type usi, isready, go byoyomi 1000, quit
The same can be set in the program's dialogue of engine options: Simulations, Temperature in hundredths, ResignValue in
thousandths, MultiPV for lines, USI_Hash for hash_mb, NetworkDelay, MaxPlies, Threads, Device, Mirror, Checkpoint.
"""

_MARK: Final = "# keisei usi"


def _run(options: UsiOptions) -> None:
    from keisei_lightning.commands.engine_process import check_checkpoint, run_engine

    if options.install is not None:
        check_checkpoint(options.checkpoint)
        _install(options, Path(options.install).expanduser())
        return
    from keisei_lightning.engine.usi import UsiProgram

    if sys.stdin.isatty():
        say("usi: type USI commands (usi, isready, position startpos, go byoyomi 1000, quit)")
        say("usi: for a program with a board, `keisei usi install=FILE` writes a file that it can open as an engine")
    run_engine(UsiProgram, options)


def _install(options: UsiOptions, file: Path) -> None:
    """Write the executable file.

    Raises:
        ConfigError: something else is there, or it cannot be written.
    """
    command = [sys.executable, "-m", "keisei_lightning", "usi", *_words(options)]
    script = f"#!/bin/sh\n{_MARK}\nexec {shlex.join(command)}\n"
    try:
        if file.exists() and _MARK not in file.read_text(encoding="utf-8", errors="replace").splitlines()[:2]:
            raise ConfigError(f"install={file}: must be a new file, or one that install= has written")
        file.write_text(script, encoding="utf-8")
        file.chmod(file.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError as error:
        raise ConfigError(f"install={file}: cannot be written ({error.strerror})") from error
    sys.stdout.write(f"{file.absolute()}: written\nAdd this file to the USI engines of your shogi program.\n")


def _words(options: UsiOptions) -> list[str]:
    """The words of the command line that mean these options, wherever it is started."""
    words = []
    for key in declared(EngineSettings):
        value = getattr(options, key.name)
        if key.name == "checkpoint" and not is_published(value):
            value = os.path.abspath(value)
        if value != key.default:
            words.append(f"{key.name}={spelled(value, none='null')}")
    return words


main: Final = OptionsCommand(
    name="usi",
    arguments="[checkpoint=FILE] [KEY=VALUE ...]",
    about=_ABOUT,
    options=UsiOptions,
    run=_run,
    notes=lambda: _NOTES,
)
