"""The command ``keisei convert``: records of games from one format to another."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keisei_lightning.commands.convert.options import ConvertOptions
from keisei_lightning.commands.options_command import OptionsCommand

__all__ = ["main"]

_ABOUT = """\
Writes records of games in another format, and says what that format could not keep. The endings of files' names tell
their formats: .kifu .kif .ki2u .ki2 .csa .jkf .usi for shogi, .sgf for hex and othello, .txt (moves by name) for
every game of OpenSpiel."""

_NOTES = """\
examples:
  keisei convert record=game.kif to=game.csa
  keisei convert 'record=[one.csa,two.ki2]' to=games format=kifu
  keisei convert record=results/eval/RUN/records to=games format=jkf
  keisei convert record=game.sgf to=game.txt 'game=hex(board_size=7)'
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Convert as the command line says.

    Args:
        argv: words after ``keisei convert``; None takes ``sys.argv`` after its first two.

    Returns:
        The exit code (:mod:`keisei_lightning.commands.exit_codes`).
    """
    command = OptionsCommand(
        name="convert",
        arguments="record=FILE to=FILE [KEY=VALUE ...]",
        about=_ABOUT,
        options=ConvertOptions,
        run=_convert,
        notes=lambda: _NOTES,
    )
    return command(list(sys.argv[2:] if argv is None else argv))


def _convert(options: ConvertOptions) -> None:
    from keisei_lightning.commands.convert.run import convert

    convert(options)
