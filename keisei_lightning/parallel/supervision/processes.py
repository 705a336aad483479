"""A child process as its supervisor uses it, and waits for its end that always return."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from multiprocessing.connection import wait
from typing import Protocol

__all__ = ["ProcessHandle", "dump_stack", "ends_by"]

_POLL_S = 0.001  # between the end of a process and its exit code there is no descriptor to wait on
_DUMP_GRACE_S = 0.1  # to write a stack


class ProcessHandle(Protocol):
    """The part of ``multiprocessing.Process`` that is used here (tests give their own)."""

    @property
    def pid(self) -> int | None: ...  # noqa: D102
    @property
    def exitcode(self) -> int | None: ...  # noqa: D102
    @property
    def sentinel(self) -> int: ...  # noqa: D102
    def is_alive(self) -> bool: ...  # noqa: D102
    def terminate(self) -> None: ...  # noqa: D102
    def kill(self) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


def ends_by(process: ProcessHandle, deadline: float) -> bool:
    """Wait until a process has an exit code, at most until a time of ``time.monotonic``.

    ``Process.join`` will not do: it waits for the sentinel at most as long as its timeout, and then for the exit code
    without a limit. A process may hang between the two, and one that closes every descriptor that it finds never dies.
    """
    while process.exitcode is None:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        if wait([process.sentinel], left):
            time.sleep(_POLL_S)
    return True


def dump_stack(process: ProcessHandle) -> None:
    """Have a hung worker dump its stacks to stderr: the handler is C code and needs no interpreter lock."""
    if process.pid is not None:
        with contextlib.suppress(OSError):
            os.kill(process.pid, signal.SIGUSR1)
            ends_by(process, time.monotonic() + _DUMP_GRACE_S)
