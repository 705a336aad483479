"""How long idle OpenMP threads spin before they sleep: not long, so that a busy machine stays a quick one.

torch computes one operation with several threads, which meet at its end. The GNU runtime lets a thread that has nothing
to do spin for milliseconds, in the hope that the next operation comes at once. On a CPU that another program uses too,
it spins where the thread that it waits for should run, and learning slows down several times over.

The runtimes read their settings from the environment, once, when they are loaded. So :func:`limit_spinning` must be
called before torch is imported: ``keisei`` and ``train.py`` do so, and the collector starts its processes with these
settings. ``tests/benchmarks/busy_cpu.py`` measures what they bring.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["SETTINGS", "USER_VARIABLES", "CpuTime", "SpinningWatch", "cpu_time", "limit_spinning", "spinning_limited"]

SETTINGS = {
    "GOMP_SPINCOUNT": "2000",  # libgomp (torch on Linux): turns of a loop, about 50 microseconds; 300,000 by default
    "KMP_BLOCKTIME": "1",  # libomp and libiomp (torch on macOS and from conda): milliseconds; 200 by default
}
"""What is set where the user has set nothing (chosen by measurement, see RESULTS.md, "A busy machine")."""

USER_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Whoever has set one of these has decided how threads wait."""

_log = logging.getLogger(__name__)
_called_too_late = False


def limit_spinning() -> bool:
    """Let OpenMP threads that wait sleep soon, in this process and in those that it starts.

    To be called before torch is imported: the first line of a notebook, or of a program with a ``Trainer`` of its own.
    It changes nothing where one of :data:`USER_VARIABLES` is set. Twice is harmless.

    Returns:
        False if torch had been imported before, so that this process's own threads go on spinning.
    """
    global _called_too_late
    if not _is_decided():
        _called_too_late = "torch" in sys.modules
        os.environ.update(SETTINGS)
    return not _called_too_late


def _is_decided() -> bool:
    return any(name in os.environ for name in USER_VARIABLES)


@contextlib.contextmanager
def spinning_limited() -> Iterator[None]:
    """Context in which to start a process whose threads sleep soon; this process's environment is put back."""
    if _is_decided():
        yield
        return
    os.environ.update(SETTINGS)
    try:
        yield
    finally:
        for name in SETTINGS:
            os.environ.pop(name, None)


class CpuTime(NamedTuple):
    """Seconds of this process's threads, all together.

    Attributes:
        run_s: on a CPU.
        wait_s: ready to run, while others had the CPU.
    """

    run_s: float
    wait_s: float


def cpu_time(tasks: Path = Path("/proc/self/task")) -> CpuTime | None:
    """CPU time of the threads that this process has now; None where the kernel does not tell (macOS).

    Args:
        tasks: a folder for each thread, with its ``schedstat``: nanoseconds on a CPU, nanoseconds of waiting for one.
    """
    run_ns = wait_ns = 0
    for file in tasks.glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):  # a thread that ended between the two calls
            run, wait, _ = map(int, file.read_text().split())
            run_ns, wait_ns = run_ns + run, wait_ns + wait
    return CpuTime(run_ns / 1e9, wait_ns / 1e9) if run_ns else None


class SpinningWatch:
    """Warns, once, of a process whose threads spin on CPUs that other programs use too.

    Args:
        clock: seconds.
        read: what :func:`cpu_time` returns.
    """

    INTERVAL_S = 5.0
    """Between two looks."""

    BUSY_SHARE = 0.2
    """Of the time of threads that could run: more than this spent waiting for a CPU means that others use it too."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, read: Callable[[], CpuTime | None] = cpu_time
    ) -> None:
        self._clock, self._read = clock, read
        self._next_look_s = -float("inf")
        self._before: CpuTime | None = None

    def look(self, num_threads: int) -> None:
        """Look whether there is reason to warn; takes a microsecond unless :attr:`INTERVAL_S` has passed.

        Args:
            num_threads: of this process's torch; one alone waits for nobody.
        """
        now = self._clock()
        if now < self._next_look_s or num_threads < 2 or (_is_decided() and not _called_too_late):
            return
        self._next_look_s = now + self.INTERVAL_S
        before, self._before = self._before, self._read()
        if before is None or self._before is None:
            return
        run_s, wait_s = (max(0.0, new - old) for new, old in zip(self._before, before, strict=True))
        if wait_s > self.BUSY_SHARE * (run_s + wait_s):
            self._next_look_s = float("inf")
            _log.warning(
                "this machine is busy (threads of this process waited for a CPU in %.0f %% of their time), and OpenMP "
                "threads spin while they wait for one another, which makes learning several times slower: call "
                "keisei_lightning.limit_spinning() before torch is imported, or set OMP_WAIT_POLICY=passive",
                100 * wait_s / (run_s + wait_s),
            )
