"""A wait in C that signals end, also a signal that comes just before the wait begins."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Final

__all__ = ["woken_by_signals"]

_KICK: Final = signal.SIGURG  # ignored where nothing handles it, and sent by nobody else here
_KICKS: Final = 50
_KICK_S: Final = 0.1
_END: Final = b"\0"


@contextlib.contextmanager
def woken_by_signals() -> Iterator[None]:
    """Context in which a signal's handler runs soon, even if the main thread waits in C; in other threads, nothing.

    ``input()`` with readline, and reading from a pipe, look for signals only after their wait has been interrupted. A
    signal between the last look and the wait is seen with the next key, or never. Here a thread is told of each signal
    (:func:`signal.set_wakeup_fd`) and interrupts the wait again until the context ends, for some seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handler = signal.signal(_KICK, lambda signum, frame: None)
    told_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    has_ended = threading.Event()
    kicker = threading.Thread(
        target=_kick, args=(reading, threading.get_ident(), has_ended), name="keisei-waking", daemon=True
    )
    kicker.start()
    try:
        yield
    finally:
        has_ended.set()
        signal.set_wakeup_fd(told_before)
        with contextlib.suppress(BlockingIOError):  # full: the thread does not wait
            os.write(writing, _END)
        kicker.join()
        signal.signal(_KICK, handler or signal.SIG_DFL)
        os.close(reading)
        os.close(writing)


def _kick(told_of: int, thread: int, has_ended: threading.Event) -> None:
    """Interrupt a thread's wait after each signal, until the context has ended."""
    while (told := os.read(told_of, 1)) != _END:
        if told[0] == _KICK:  # one of its own
            continue
        for _ in range(_KICKS):
            if has_ended.wait(_KICK_S):
                return
            signal.pthread_kill(thread, _KICK)
