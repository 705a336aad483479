"""The command ``keisei eval``: a policy from a checkpoint against other players, counted, rated and kept.

::

    words --> options --> checks --> players (policies.py, evaluation.registry) --> matches (evaluation) --> Report
              faults: exit code 2, nothing was started                              each is written when it is over

A match that a signal cuts off is left out: its games are played side by side, so those that have ended are the short
ones, which says little of the others.
"""

from __future__ import annotations

import atexit
import gc
import shlex
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import entry_points

from keisei_lightning.commands.evaluate.checks import check_options
from keisei_lightning.commands.evaluate.options import HELP, read_options
from keisei_lightning.errors import ConfigError, KeiseiError
from keisei_lightning.system.console import say
from keisei_lightning.system.stopping import Stopped, StopSignals

__all__ = ["main"]

DONE, FAILED, BAD_CONFIG = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate as the command line says.

    Args:
        argv: words after ``keisei eval``; None takes ``sys.argv`` after its first two.

    Returns:
        The exit code: 0 done, 1 failed, 2 bad usage, 130 Ctrl-C, 143 SIGTERM.
    """
    words = list(sys.argv[2:] if argv is None else argv)
    if any(word in ("-h", "--help", "help") for word in words):
        players = sorted(entry.name for entry in entry_points(group="keisei_lightning.players"))
        sys.stdout.write(HELP.format(players=", ".join(players)))
        return DONE
    # As it ends, the interpreter looks for cycles among all that torch has made, which takes seconds after a Ctrl-C.
    atexit.register(gc.freeze)
    try:
        options = read_options(words)
        names = check_options(options)
        with StopSignals():
            from keisei_lightning.commands.evaluate.run import evaluate  # torch: a mistyped command answers without it

            evaluate(options, names, command=shlex.join(["keisei", "eval", *words]))
    except Stopped as stop:
        say(str(stop))
        return stop.exit_code
    except ConfigError as error:
        say(*error.faults)
        return BAD_CONFIG
    except KeiseiError as error:
        say(" ".join(str(error).split()))
        return FAILED
    except Exception as error:  # noqa: BLE001 - the last line: every ending has an exit code
        traceback.print_exception(error)
        return FAILED
    return DONE
