"""The fork server: once it has imported torch, it starts worker processes in a fraction of a second."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from typing import Final

from keisei_lightning.games.registry import GAMES
from keisei_lightning.parallel.supervision.main_module import without_main_module
from keisei_lightning.system.openmp import spinning_limited
from keisei_lightning.system.start_method import choose_start_method

__all__ = ["start_context", "start_fork_server", "starting_workers"]

_PRELOAD: Final = (
    "keisei_lightning.parallel.central.inference",
    "keisei_lightning.models",
    *GAMES.built_in_modules(),
)
"""Imported once by the fork server. There is one fork server for all modes; workers that need no torch share its memory
with it."""


def start_context(start_method: str | None) -> BaseContext:
    """What starts worker processes.

    Args:
        start_method: "forkserver", "spawn" or None for the best that this system offers.
    """
    context = multiprocessing.get_context(choose_start_method(start_method))
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(list(_PRELOAD))
    return context


def start_fork_server(start_method: str | None) -> None:
    """Start the fork server now, if there is to be one: it imports torch for seconds, while this process does too."""
    if start_context(start_method).get_start_method() == "forkserver":
        with starting_workers():
            multiprocessing.forkserver.ensure_running()


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Context in which processes are started: without the main module, with limited spinning, deaf to SIGINT.

    Only the learner handles Ctrl-C. A signal mask is inherited. Without it the fork server, which first imports torch,
    would show a traceback. For this process a Ctrl-C is only delayed.
    """
    resource_tracker.ensure_running()  # it would unblock SIGINT as it starts
    with without_main_module(), spinning_limited():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
