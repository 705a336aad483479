"""How every command ends: what a person is told of it, and the exit code.

========  ==========================================================================================
code      meaning
========  ==========================================================================================
0         done
1         failed; a line of what the package raised on purpose, a traceback of anything else
2         bad usage or configuration; a line each on standard error, and nothing was started
130, 143  stopped by Ctrl-C or SIGTERM (129: SIGHUP)
========  ==========================================================================================
"""

from __future__ import annotations

import traceback

from keisei_lightning.errors import ConfigError, KeiseiError
from keisei_lightning.system.console import say
from keisei_lightning.system.stopping import Stopped

__all__ = ["BAD_USAGE", "DONE", "FAILED", "exit_code_of"]

DONE, FAILED, BAD_USAGE = 0, 1, 2


def exit_code_of(error: BaseException) -> int:
    """Tell on standard error why a command ended, and choose its exit code.

    Args:
        error: what ended it.
    """
    if isinstance(error, Stopped):
        say(str(error))
        return error.exit_code
    if isinstance(error, ConfigError):
        say(*error.errors)
        return BAD_USAGE
    if isinstance(error, KeiseiError):
        say(" ".join(str(error).split()))
    else:
        traceback.print_exception(error)
    return FAILED
