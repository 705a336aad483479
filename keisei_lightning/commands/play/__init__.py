"""The command ``keisei play``: a game against a trained policy, or another player, in the terminal.

::

    words --> options --> checks (no torch) --> menu, where nothing is named --> policy, opponent --> run
                                                                                 Dialogue <--> Terminal, files

What a game says to a line that was typed is decided by :class:`~keisei_lightning.play.Dialogue`; here are the screen,
the files and Ctrl-C.
"""

from __future__ import annotations

import atexit
import gc
from typing import Final

from keisei_lightning.commands.options_command import OptionsCommand
from keisei_lightning.commands.play.options import PlayOptions
from keisei_lightning.published import PREFIX, published_names

__all__ = ["main"]

_ABOUT = """\
Plays a game with you in the terminal: against a trained policy, with a search, or against any other player.
Without keys it asks which game. Type `help` at its prompt for what can be typed there."""

_NOTES = """\
policies that come with the package:
  {policies}

examples:
  keisei play
  keisei play checkpoint=published:connect_four
  keisei play checkpoint=results/shogi/RUN/checkpoints/last.ckpt side=second simulations=400 hints=true
  keisei play game=tic_tac_toe 'opponent=alpha_beta(depth=9)'
  keisei play game=othello side=both save=game.json
  keisei play checkpoint=published:shogi 'position=4k4/9/4P4/9/9/9/9/9/4K4 b G 1'
  keisei play checkpoint=published:hex side=none temperature=0.5 seed=1
Brackets and blanks need quotation marks around the word, as the shell has a meaning of its own for them.
"""


def _notes() -> str:
    return _NOTES.format(policies=", ".join(PREFIX + name for name in published_names()))


def _play(options: PlayOptions) -> None:
    from keisei_lightning.commands.play.checks import check_options  # NumPy and the games: help answers without them

    check_options(options)
    # As it ends, the interpreter looks for cycles among all that torch has made, which takes seconds after a Ctrl-C.
    atexit.register(gc.freeze)
    from keisei_lightning.commands.play.run import play

    play(options)


main: Final = OptionsCommand(
    name="play",
    arguments="[checkpoint=FILE] [KEY=VALUE ...]",
    about=_ABOUT,
    options=PlayOptions,
    run=_play,
    notes=_notes,
)
