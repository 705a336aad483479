"""One rank: runs the function that the parent has sent, and ends in order when the parent says so or is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, MutableSequence
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any

from keisei_lightning.launching import phases
from keisei_lightning.launching.outcomes import Done, Halted, Outcome, failure_of
from keisei_lightning.system import stopping
from keisei_lightning.system.rank_place import in_slurm_job
from keisei_lightning.system.stopping import Stopped, StopSignals

__all__ = ["rank_main"]

_ORPHAN_S = 10.0
"""How long a rank whose parent is gone may take to end in order."""


def rank_main(
    function: Callable[[], Any], rank: int, connection: Connection, phase_of_each: MutableSequence[int]
) -> None:
    """Run the function, and tell the parent how it ended.

    Args:
        function: the training.
        rank: of this process.
        connection: to the parent.
        phase_of_each: an entry for each rank, in shared memory.
    """
    phases.report_to(phase_of_each, rank)
    _wake_when_parent_ends()
    with StopSignals() as signals:
        if in_slurm_job():
            signals.listen_to(signal.SIGUSR1)
        is_over = threading.Event()
        threading.Thread(target=_listen, args=(connection, is_over), name="keisei-parent", daemon=True).start()
        outcome = _outcome(function)
        is_over.set()
        with contextlib.suppress(ConnectionError):  # the parent is gone, and nobody asks
            connection.send(outcome)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: this process is ending, and its parent answers it
    if isinstance(outcome, Halted):
        raise SystemExit(128 + outcome.signum)
    raise SystemExit(0 if isinstance(outcome, Done) else 1)


def _wake_when_parent_ends() -> None:
    """Let the kernel wake this process if its parent ends while it is stopped (SIGSTOP): it could not end by itself."""
    parent = parent_process()
    if parent is not None and hasattr(fcntl, "F_SETSIG"):  # Linux; the sentinel is a pipe of this process's own
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGCONT)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, fcntl.fcntl(parent.sentinel, fcntl.F_GETFL) | os.O_ASYNC)


def _outcome(function: Callable[[], Any]) -> Outcome:
    try:
        return Done(function())
    except Stopped as stop:
        return Halted(stop.signum)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must know
        return failure_of(error, phases.present_phase())


def _listen(connection: Connection, is_over: threading.Event) -> None:
    """Do what the parent says, until the function is over: a number is a signal that asks all ranks to stop."""
    while True:
        try:
            signum = int(connection.recv())
        except (EOFError, OSError):
            break
        _stop(signum, is_over)
    # The parent is gone. If it had been asked to stop, then by a second signal, which ends everything at once.
    if is_over.is_set() or stopping.requested() is None:
        _stop(signal.SIGTERM, is_over)
        time.sleep(_ORPHAN_S)
    stopping.end_now(signal.SIGTERM, silently=True)


def _stop(signum: int, is_over: threading.Event) -> None:
    """Ask the main thread to stop, unless a signal has done so: a terminal signals all processes of the group."""
    main_thread = threading.main_thread().ident
    if main_thread is not None and not is_over.is_set() and stopping.requested() is None:
        signal.pthread_kill(main_thread, signum)  # a signal to the process might come to this thread, and wake nobody
