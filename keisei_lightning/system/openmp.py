"""How OpenMP threads wait for one another: by spinning where the machine is idle, asleep where it is busy.

torch computes one operation with several threads, which meet at its end. The GNU runtime, libgomp, lets a thread that
has nothing to do spin for milliseconds before it sleeps, in the hope that the next operation comes at once. Where each
thread has a CPU of its own, that is 5 % to 10 % quicker than to wake it. On a CPU that another program uses too, it
spins where the thread that it waits for should run, and learning takes several times as long.

The settings of the runtime (``OMP_WAIT_POLICY``, ``GOMP_SPINCOUNT``) are read once, when torch is imported. But libgomp
spins a thousandth of that time while it has more threads than there are CPUs (``gomp_throttled_spin_count_var`` in its
``config/linux/wait.h``), and decides anew at each wait. :class:`SpinningGovernor` makes use of that: it looks whether
this process's threads wait for CPUs, which the kernel tells, and holds some sleeping threads as long as they do.

Other runtimes (LLVM's libomp on macOS, Intel's libiomp) have no such thing: there :func:`limit_spinning` sets a
variable before torch is imported. ``tests/benchmarks/busy_cpu.py`` measures all this.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from keisei_lightning.system.machine import task_allowances

__all__ = [
    "SETTINGS",
    "USER_VARIABLES",
    "CpuTime",
    "ExtraThreads",
    "SpinningGovernor",
    "Throttle",
    "cpu_time",
    "governed_spinning",
    "limit_spinning",
    "spinning_limited",
]

SETTINGS = {"KMP_BLOCKTIME": "1"}
"""Milliseconds that threads of libomp and libiomp spin; 200 by default."""

USER_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Whoever has set one of these has decided how threads wait: nothing is changed then."""

_log = logging.getLogger(__name__)
_called_too_late = False
_changing_environment = threading.Lock()


def limit_spinning() -> bool:
    """Let threads of libomp and libiomp sleep soon, in this process and in those that it starts.

    To be called before torch is imported: the first line of a notebook, or of a program with a ``Trainer`` of its own,
    on macOS or with a torch from conda. (``keisei`` and ``train.py`` do so themselves.) With libgomp, torch's runtime
    on Linux, nobody needs to call it: the collector governs how its threads wait. It changes nothing where one of
    :data:`USER_VARIABLES` is set. Twice is harmless.

    Returns:
        False if torch had been imported before, so that this process's own threads are not reached.
    """
    global _called_too_late
    if not _is_decided():
        _called_too_late = "torch" in sys.modules
        os.environ.update(SETTINGS)
    return not _called_too_late


def _is_decided() -> bool:
    return any(name in os.environ for name in USER_VARIABLES)


def _is_users_choice() -> bool:
    """Whether somebody else than :func:`limit_spinning` has set a variable."""
    return any(name in os.environ and os.environ[name] != SETTINGS.get(name) for name in USER_VARIABLES)


@contextlib.contextmanager
def spinning_limited() -> Iterator[None]:
    """Context in which to start a process as :func:`limit_spinning` would have it; the environment is put back.

    One thread at a time: the environment is the process's.
    """
    with _changing_environment:
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

    It makes few objects on purpose: Python collects garbage in whichever thread makes the object that fills its quota,
    and objects of other libraries may have to be freed in the thread that made them (rsshogi's boards do).

    Args:
        tasks: a folder for each thread, with its ``schedstat``: nanoseconds on a CPU, nanoseconds of waiting for one.
    """
    run_ns = wait_ns = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(tasks):
            try:
                descriptor = os.open(f"{tasks}/{thread}/schedstat", os.O_RDONLY)
            except OSError:  # a thread that has ended meanwhile
                continue
            try:
                run, wait, _ = os.read(descriptor, 100).split()
                run_ns, wait_ns = run_ns + int(run), wait_ns + int(wait)
            except (OSError, ValueError):
                continue
            finally:
                os.close(descriptor)
    return CpuTime(run_ns / 1e9, wait_ns / 1e9) if run_ns else None


class Throttle(Protocol):
    """What makes the runtime's threads sleep soon, and lets them spin again."""

    def engage(self) -> bool:
        """Let them sleep soon; False if that cannot be done here."""
        ...

    def release(self) -> None:
        """Let them spin as long as they do by themselves; twice is harmless."""
        ...


class ExtraThreads(Throttle):
    """So many sleeping threads of libgomp that it has more than there are CPUs, and spins only shortly.

    They belong to a team of a Python thread, whose end ends them.

    Args:
        maps: the files that this process has loaded, a line each.
    """

    def __init__(self, maps: Path = Path("/proc/self/maps")) -> None:
        self._maps = maps
        self._leave: threading.Event | None = None
        self._holder: threading.Thread | None = None

    def engage(self) -> bool:
        """Start them; False without libgomp, or where so many threads may not be started."""
        if self._holder is not None:
            return True
        path = self._library()
        if path is None:
            return False
        library = ctypes.CDLL(path)  # what is loaded already, not another one
        count = len(os.sched_getaffinity(0)) + 1
        if any(limit.free < 4 * count for limit in task_allowances()):  # libgomp would end the process
            return False
        self._leave, is_there = threading.Event(), threading.Event()
        arguments = (library, count, is_there, self._leave)
        self._holder = threading.Thread(target=_hold_team, args=arguments, name="keisei-openmp-team", daemon=True)
        self._holder.start()
        is_there.wait()
        return True

    def _library(self) -> str | None:
        try:
            loaded = set(re.findall(r"/\S*libgomp[^/\s]*$", self._maps.read_text(), flags=re.MULTILINE))
        except OSError:
            return None
        return min(loaded, key=lambda path: ("torch" not in path, path), default=None)  # others may have one too

    def release(self) -> None:
        """End them."""
        if self._holder is not None and self._leave is not None:
            self._leave.set()
            self._holder.join()
            self._holder = self._leave = None


def _hold_team(library: ctypes.CDLL, count: int, is_there: threading.Event, leave: threading.Event) -> None:
    """Make a team of this many threads, which do nothing, and keep it."""
    # GOMP_parallel(function, data, num_threads, flags) is what compiled code calls; any harmless function will do.
    library.GOMP_parallel(library.omp_get_thread_num, None, ctypes.c_uint(count), ctypes.c_uint(0))
    is_there.set()
    leave.wait()


class SpinningGovernor:
    """Lets OpenMP threads of this process spin while it has its CPUs for itself, and sleep while it has not.

    A thread of its own looks several times a second, which takes a ten-thousandth of a CPU.

    Args:
        read: what :func:`cpu_time` returns.
        throttle: makes threads sleep soon.
        interval_s: seconds between two looks.
    """

    BUSY_SHARE = 0.15
    """Of the time in which threads could run: more than this spent waiting for a CPU, and others use it too."""

    CALM_SHARE = 0.05
    """Less than this, in :attr:`CALM_LOOKS` consecutive looks, and they no longer do."""

    CALM_LOOKS = 4

    LEAST_S = 0.02
    """CPU time between two looks below which there is nothing to judge."""

    def __init__(
        self,
        *,
        read: Callable[[], CpuTime | None] = cpu_time,
        throttle: Throttle | None = None,
        interval_s: float = 0.25,
    ) -> None:
        self._read, self._interval_s = read, interval_s
        self._throttle = ExtraThreads() if throttle is None else throttle
        self._before = read()
        self._calm_looks = 0
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keisei-spinning-governor", daemon=True)
        self.is_throttled = False

    def start(self) -> None:
        """Begin to look, unless the user has decided or the kernel does not tell."""
        if self._before is not None and not _is_users_choice():
            self._thread.start()

    def close(self) -> None:
        """Look no more, and let threads spin as they do by themselves."""
        self._leave.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._throttle.release()

    def _run(self) -> None:
        while not self._leave.wait(self._interval_s):
            if not self.look():
                return

    def look(self) -> bool:
        """Decide by what has happened since the last look; False if there is no point in looking again."""
        before, self._before = self._before, self._read()
        if before is None or self._before is None:
            return False
        run_s, wait_s = (max(0.0, new - old) for new, old in zip(self._before, before, strict=True))
        if run_s + wait_s < self.LEAST_S:
            return True
        share = wait_s / (run_s + wait_s)
        if not self.is_throttled and share > self.BUSY_SHARE:
            return self._engage(share)
        self._calm_looks = self._calm_looks + 1 if share < self.CALM_SHARE else 0
        if self.is_throttled and self._calm_looks >= self.CALM_LOOKS:
            self._throttle.release()
            self.is_throttled = False
        return True

    def _engage(self, share: float) -> bool:
        self._calm_looks = 0
        self.is_throttled = self._throttle.engage()
        if self.is_throttled or "torch" not in sys.modules:
            return True
        if _called_too_late or not _is_decided():
            _log.warning(
                "this machine is busy (threads waited for a CPU in %.0f %% of their time), and OpenMP threads that "
                "wait for one another may spin, which makes learning several times slower: call "
                "keisei_lightning.limit_spinning() before torch is imported, or set OMP_WAIT_POLICY=passive",
                100 * share,
            )
        return False


_governed = threading.Lock()
_users = 0
_governor: SpinningGovernor | None = None


@contextlib.contextmanager
def governed_spinning() -> Iterator[None]:
    """Context in which a :class:`SpinningGovernor` is at work; there is one, however many contexts there are."""
    global _users, _governor
    with _governed:
        _users += 1
        if _users == 1:
            _governor = SpinningGovernor()
            _governor.start()
    try:
        yield
    finally:
        with _governed:
            _users -= 1
            ended, _governor = (_governor, None) if _users == 0 else (None, _governor)
        if ended is not None:
            ended.close()
