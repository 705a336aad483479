"""The command ``keisei convert``: records of games from one format to another."""

from __future__ import annotations

from typing import Final

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


def _convert(options: ConvertOptions) -> None:
    from keisei_lightning.commands.convert.run import convert

    convert(options)


main: Final = OptionsCommand(
    name="convert",
    arguments="record=FILE to=FILE [KEY=VALUE ...]",
    about=_ABOUT,
    options=ConvertOptions,
    run=_convert,
    notes=lambda: _NOTES,
)
