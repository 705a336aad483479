"""Signals that ask the program to stop: at once, or after the step or save that is under way.

::

    signal --> StopSignals --+-- not training: Stopped is raised at once, in the main thread
                             +-- training (defer .. stop_deferring): Lightning ends its loop after this step
                             |     interruptible():   waits without writing: Stopped is raised at once all the same
                             |     uninterruptible(): a step or a save: it ends first, however long it takes
                             +-- a second signal: the process ends at once, and its workers with it

If no step ends within ``grace_s`` (a callback hangs, say), Stopped is raised too. A process has one active
:class:`StopSignals`; without it, as in a script with a Trainer of its own, ``interruptible()`` and the other functions
do nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

__all__ = [
    "StopSignals",
    "Stopped",
    "defer",
    "deferred",
    "end_now",
    "interruptible",
    "is_active",
    "listen_to",
    "passing_on",
    "requested",
    "stop_all",
    "stop_deferring",
    "stop_together",
    "temporary_file",
    "uninterruptible",
]

_DOUBLED_S = 0.2
"""The same signal twice within this time counts once: timeout(1) and some launchers signal the process and its
group."""

_AGAIN_S = 0.1
"""How often to check, after the grace time, whether an uninterruptible region has ended."""


class Stopped(BaseException):
    """A signal asked the program to end.

    Not an ``Exception``: neither Hydra nor the supervision of workers may treat it as a failure and continue.

    Args:
        signum: the signal's number.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(f"stopped by {signal.Signals(signum).name}")

    def __reduce__(self) -> tuple[type[Stopped], tuple[int]]:
        """Pickle by the signal's number: a sweep's job may run in another process."""
        return type(self), (self.signum,)

    @property
    def exit_code(self) -> int:
        """Exit code that shells expect: 128 + the signal's number."""
        return 128 + self.signum


class StopSignals:
    """Context that turns SIGINT, SIGTERM and SIGHUP (a closed terminal) into :class:`Stopped`.

    Outside the main thread it does nothing.

    Args:
        grace_s: seconds that a deferred signal waits for the end of a step; a step itself may take longer.
    """

    def __init__(self, *, grace_s: float = 2.0) -> None:
        self.grace_s = grace_s
        self.requested: int | None = None
        """The first signal that came; None: none has."""
        self.deferred = False
        self.waits = 0
        self.uninterruptible = 0
        self.note_all_stop: Callable[[int], None] | None = None
        """Gets the signal by which all ranks stop; None: there is one rank."""
        self.pass_on: Callable[[int], None] | None = None
        """Tells other processes to stop, in place of this one; None: this one stops."""
        self._asked_at = 0.0
        self._relayed = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        global _active
        # Only the main thread may set handlers, and the outermost context keeps them.
        if _active is None and threading.current_thread() is threading.main_thread():
            _active = self
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                # An ignored signal stays ignored: a shell ignores SIGINT for its background jobs.
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
        """Treat a further signal as a request to stop, until the context ends."""
        before = signal.signal(signum, self._asked)
        self._before.setdefault(signum, before)

    def stop_deferring(self) -> None:
        """End the deferral: from now on a first signal raises at once."""
        self.deferred = False
        self.note_all_stop = None
        if signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _asked(self, signum: int, _frame: FrameType | None) -> None:
        if self._relayed and signum == signal.SIGTERM:
            self._relayed = False
            return
        if self.requested is not None:
            if signum == self.requested and time.monotonic() - self._asked_at < _DOUBLED_S:
                return
            end_now(signum)
        self.requested, self._asked_at = signum, time.monotonic()
        if self.pass_on is not None:
            self.pass_on(signum)
            return
        if self.deferred and self.note_all_stop is not None and not self.waits:
            return
        if self.deferred and self.note_all_stop is None and signum != signal.SIGTERM:
            # After SIGTERM Lightning's loop ends at its own safe points, with consistent counters.
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


def is_active() -> bool:
    """Whether signals are turned into requests to stop here."""
    return _active is not None


def requested() -> int | None:
    """The number of the first signal that came; None: none has."""
    return None if _active is None else _active.requested


def deferred() -> bool:
    """Whether a signal now ends the program after the step that is under way."""
    return _active is not None and _active.deferred


def defer() -> None:
    """From now on the first signal waits for the end of a step. Only a running Trainer can stop there."""
    if _active is not None:
        _active.deferred = True


def listen_to(signum: int) -> None:
    """Treat a further signal, such as a batch system's, as a request to stop."""
    if _active is not None:
        _active.listen_to(signum)


@contextlib.contextmanager
def passing_on(tell: Callable[[int], None], *further: int) -> Iterator[None]:
    """Context in which a first signal is passed on to other processes; it does not stop this one.

    Args:
        tell: gets the signal's number, within the signal's handler.
        *further: signals that are requests to stop as well.
    """
    active = _active if threading.current_thread() is threading.main_thread() else None
    if active is None:
        yield
        return
    active.pass_on = tell
    for signum in further:
        active.listen_to(signum)
    try:
        yield
    finally:
        active.pass_on = None


def stop_together(note: Callable[[int], None]) -> None:
    """From now on a deferred signal waits until all ranks of the training stop by it, at the same point.

    Lightning's own handler of SIGTERM, which would meet the other ranks from within a step, is replaced.

    Args:
        note: gets the signal by which all ranks stop.
    """
    if _active is not None:
        _active.note_all_stop = note
        _active.listen_to(signal.SIGTERM)


def stop_all(signum: int) -> None:
    """Note the signal by which all ranks stop, as if this one had got it; alone, nothing is to be noted.

    Args:
        signum: that one of the ranks got.
    """
    if _active is not None and _active.note_all_stop is not None:
        _active.requested = _active.requested or signum
        _active.note_all_stop(signum)


def stop_deferring(*, end: bool = False) -> None:
    """From now on a signal no longer waits for the end of a step.

    Args:
        end: raise :class:`Stopped` if a signal was deferred.

    Raises:
        Stopped: a signal was deferred, and ``end`` is set.
    """
    if _active is None:
        return
    _active.stop_deferring()
    if end and _active.requested is not None:
        raise Stopped(_active.requested)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Context that a signal may interrupt: it raises at once, also if it came before and was deferred.

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
    """Context that a deferred signal does not interrupt, however long it takes; a second signal does."""
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
    """Context that deletes a file at its end unless it was renamed, also if a second signal ends the process."""
    _temporary_files.add(path)
    try:
        yield path
    finally:
        _temporary_files.discard(path)
        path.unlink(missing_ok=True)


def end_now(signum: int, *, silently: bool = False) -> None:
    """End without any further hook or handler. Workers notice that their parent has ended.

    Args:
        signum: the signal that asks for it.
        silently: somebody else tells the user.
    """
    for path in tuple(_temporary_files):
        with contextlib.suppress(OSError):
            path.unlink()
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # RuntimeError: the signal came within a write
        sys.stdout.flush()
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h")  # a progress bar hides the cursor
        if not silently:
            sys.stderr.write(f"keisei: stopped by {signal.Signals(signum).name}, at once\n")
        sys.stderr.flush()
    os._exit(128 + signum)
