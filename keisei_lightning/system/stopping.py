"""Signals that ask the program to stop: at once, or as soon as what is being done is whole.

::

    signal --> StopSignals --+-- nothing to keep: Stopped is raised where the main thread is
                             +-- training (defer .. stop_deferring): Lightning is told; the loop ends after this step
                             |     interruptible():  nothing is being written here: Stopped is raised at once after all
                             |     uninterruptible(): a step or a save; however long it takes, it ends first
                             +-- a second signal: the process ends now; workers end with it

Where no step ends within ``grace_s`` (a callback that hangs, say), Stopped is raised as well. Signals belong to the
process, and so does the one :class:`StopSignals` in use: ``interruptible()`` and its like do nothing where there is
none, as in a script with a Trainer of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

__all__ = [
    "StopSignals",
    "Stopped",
    "defer",
    "deferred",
    "interruptible",
    "listen_to",
    "requested",
    "stop_deferring",
    "temporary_file",
    "uninterruptible",
]

_DOUBLED_S = 0.2
"""The same signal again within this time is one: timeout(1) and some launchers send theirs to the process and to its
group."""

_AGAIN_S = 0.1
"""How often an uninterruptible region is looked at when the grace is over."""


class Stopped(BaseException):
    """A signal asked the program to end.

    Not an ``Exception``: neither Hydra nor a worker's supervision may take it for a failure and go on.

    Args:
        signum: the signal's number.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(f"stopped by {signal.Signals(signum).name}")

    @property
    def exit_code(self) -> int:
        """What shells expect: 128 + the signal's number."""
        return 128 + self.signum


class StopSignals:
    """Context that turns SIGINT, SIGTERM and SIGHUP (a terminal that was closed) into :class:`Stopped`.

    Outside the main thread it does nothing.

    Args:
        grace_s: seconds that a deferred signal waits for the end of a step; a step itself may take longer.
    """

    def __init__(self, *, grace_s: float = 2.0) -> None:
        self.grace_s = grace_s
        self.requested: int | None = None
        """The signal that asked, once one has."""
        self.deferred = False
        self.waits = 0
        self.uninterruptible = 0
        self._asked_at = 0.0
        self._relayed = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        global _active
        # Only the main thread may set handlers; and whoever was first has them, and ends the program.
        if _active is None and threading.current_thread() is threading.main_thread():
            _active = self
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                # What the caller has chosen to ignore stays ignored: a shell does so for its background jobs.
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self.listen_to(signum)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        global _active
        if _active is not self:
            return
        _active = None
        self.stop_deferring()
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def listen_to(self, signum: int) -> None:
        """Let a further signal ask for a stop, until the context ends."""
        before = signal.signal(signum, self._asked)
        self._before.setdefault(signum, before)

    def stop_deferring(self) -> None:
        """End the deferral: from now on a first signal raises at once."""
        self.deferred = False
        if signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _asked(self, signum: int, _frame: FrameType | None) -> None:
        if self._relayed and signum == signal.SIGTERM:
            self._relayed = False
            return
        if self.requested is not None:
            if signum == self.requested and time.monotonic() - self._asked_at < _DOUBLED_S:
                return
            _end_now(signum)
        self.requested, self._asked_at = signum, time.monotonic()
        if self.deferred and signum != signal.SIGTERM:
            # Lightning's loop ends at its own safe points, with all its counters whole, when SIGTERM has come.
            self._relayed = True
            signal.raise_signal(signal.SIGTERM)
        if not self.deferred or self.waits:
            raise Stopped(signum)
        self._before.setdefault(signal.SIGALRM, signal.getsignal(signal.SIGALRM))
        signal.signal(signal.SIGALRM, self._grace_is_over)
        signal.setitimer(signal.ITIMER_REAL, self.grace_s)

    def _grace_is_over(self, _signum: int, _frame: FrameType | None) -> None:
        if self.requested is None or not self.deferred:
            return
        if self.uninterruptible:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
            return
        raise Stopped(self.requested)


_active: StopSignals | None = None

_temporary_files: set[Path] = set()


def requested() -> int | None:
    """The number of the signal that has asked for a stop; None: none has."""
    return None if _active is None else _active.requested


def deferred() -> bool:
    """Whether somebody will see to it that a signal that has come ends the program."""
    return _active is not None and _active.deferred


def defer() -> None:
    """From now on the first signal waits for the end of a step. Only a running Trainer can end at one."""
    if _active is not None:
        _active.deferred = True


def listen_to(signum: int) -> None:
    """Let a further signal, such as a batch system's, ask for a stop."""
    if _active is not None:
        _active.listen_to(signum)


def stop_deferring(*, end: bool = False) -> None:
    """No longer wait for the end of a step.

    Args:
        end: raise what has been put off.

    Raises:
        Stopped: a signal came while it was deferred, and ``end`` is set.
    """
    if _active is None:
        return
    _active.stop_deferring()
    if end and _active.requested is not None:
        raise Stopped(_active.requested)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Context in which nothing is written that must be whole: a signal raises at once, also one that came before.

    Raises:
        Stopped: a signal has come.
    """
    active = _active
    if active is None:
        yield
        return
    active.waits += 1
    try:
        if active.requested is not None and active.deferred:
            raise Stopped(active.requested)
        yield
    finally:
        active.waits -= 1


@contextlib.contextmanager
def uninterruptible() -> Iterator[None]:
    """Context that a deferred signal does not break into, however long it takes; a second signal does."""
    active = _active
    if active is None:
        yield
        return
    active.uninterruptible += 1
    try:
        yield
    finally:
        active.uninterruptible -= 1


@contextlib.contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Context after which a file is gone, unless it was renamed; also when a second signal ends the process in it."""
    _temporary_files.add(path)
    try:
        yield path
    finally:
        _temporary_files.discard(path)
        path.unlink(missing_ok=True)


def _end_now(signum: int) -> None:
    """End without any further hook or handler. Workers notice that their parent is gone."""
    for path in tuple(_temporary_files):
        with contextlib.suppress(OSError):
            path.unlink()
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # RuntimeError: the signal came within a write
        sys.stdout.flush()
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h")  # a progress bar hides the cursor
        sys.stderr.write(f"keisei: stopped by {signal.Signals(signum).name}, at once\n")
        sys.stderr.flush()
    os._exit(128 + signum)
