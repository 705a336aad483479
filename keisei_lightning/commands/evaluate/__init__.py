"""The command ``keisei eval``: a policy from a checkpoint against other players, counted, rated and kept.

::

    words --> options --> checks --> players (policies.py, evaluation.registry) --> matches (evaluation) --> Report
              errors: exit code 2, nothing was started                              each is written when it is over

A match that a signal cuts off is left out: its games are played side by side, so those that have ended are the short
ones, which says little of the others.
"""

from __future__ import annotations

import atexit
import gc
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from keisei_lightning.commands.evaluate.options import EvalOptions
from keisei_lightning.commands.options_command import OptionsCommand
from keisei_lightning.published import PREFIX, published_names

__all__ = ["main"]

_ABOUT = """\
Plays a trained policy against other players, each opening from both seats, and says how sure the result is."""

_NOTES = """\
players known here:
  {players}
policies that come with the package:
  {policies}

examples:
  keisei eval checkpoint=results/shogi/RUN/checkpoints/last.ckpt
  keisei eval checkpoint=last.ckpt 'opponents=[random,mate_in_one,fairy_stockfish(skill=-5,nodes=1000)]' games=200
  keisei eval checkpoint=new.ckpt opponents=old.ckpt greedy=false temperature=0.5
  keisei eval checkpoint=last.ckpt 'opponents=[tactics,alpha_beta(depth=5)]' round_robin=true
  keisei eval checkpoint=last.ckpt opponents=published:connect_four
  keisei eval game=connect_four 'opponents=[tactics,mcts(simulations=100)]' round_robin=true
Brackets need quotation marks around the word, as the shell has a meaning of its own for them.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate as the command line says.

    Args:
        argv: words after ``keisei eval``; None takes ``sys.argv`` after its first two.

    Returns:
        The exit code (:mod:`keisei_lightning.commands.exit_codes`).
    """
    words = list(sys.argv[2:] if argv is None else argv)
    command = OptionsCommand(
        name="eval",
        arguments="checkpoint=FILE [opponents=[PLAYER,...]] [KEY=VALUE ...]",
        about=_ABOUT,
        options=EvalOptions,
        run=lambda options: _evaluate(options, words),
        notes=_notes,
    )
    return command(words)


def _notes() -> str:
    players = sorted(entry.name for entry in entry_points(group="keisei_lightning.players"))
    policies = (PREFIX + name for name in published_names())
    return _NOTES.format(players=", ".join(players), policies=", ".join(policies))


def _evaluate(options: EvalOptions, words: Sequence[str]) -> None:
    from keisei_lightning.commands.evaluate.checks import check_options

    names = check_options(options)
    # As it ends, the interpreter looks for cycles among all that torch has made, which takes seconds after a Ctrl-C.
    atexit.register(gc.freeze)
    from keisei_lightning.commands.evaluate.run import evaluate  # torch: a mistyped command answers without it

    evaluate(options, names, command=shlex.join(["keisei", "eval", *words]))
