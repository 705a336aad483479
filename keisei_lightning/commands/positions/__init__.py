"""The command ``keisei positions``: games that were played as training positions for other programs."""

from __future__ import annotations

from typing import Final

from keisei_lightning.commands.options_command import OptionsCommand
from keisei_lightning.commands.positions.options import PositionsOptions

__all__ = ["main"]

_ABOUT = """\
Writes the positions of games that were played, each with the move, the game's result and, by a checkpoint, its value
and policy, in formats that other trainers read."""

_NOTES = """\
examples:
  keisei positions records=results/eval/RUN/records to=train.psv
  keisei positions records=results/eval/RUN/records to=train.hcpe checkpoint=last.ckpt
  keisei positions records=games to=train.hcpe3 checkpoint=published:shogi simulations=64
  keisei positions records=train.hcpe3 to=train.npz
"""


def _write(options: PositionsOptions) -> None:
    from keisei_lightning.commands.positions.run import write_positions

    write_positions(options)


main: Final = OptionsCommand(
    name="positions",
    arguments="records=FOLDER to=FILE [KEY=VALUE ...]",
    about=_ABOUT,
    options=PositionsOptions,
    run=_write,
    notes=lambda: _NOTES,
)
