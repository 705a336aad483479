"""How OpenMP threads wait for one another: they spin on an idle machine and sleep on a busy one.

torch computes one operation with several threads, which meet at its end. The GNU runtime, libgomp, lets an idle thread
spin for milliseconds before it sleeps, in case the next operation comes at once. If each thread has a CPU of its own,
that is 5 % to 10 % quicker than to wake it. On a CPU that another program also uses, it spins where the thread that it
waits for should run, and learning takes several times as long.

The runtime reads its settings (``OMP_WAIT_POLICY``, ``GOMP_SPINCOUNT``) once, when torch is imported. But libgomp spins
for a thousandth of that time while it has more threads than there are CPUs (``gomp_throttled_spin_count_var`` in its
``config/linux/wait.h``), and decides this at each wait. :class:`SpinningGovernor` uses that: it samples how long this
process's threads wait for CPUs, which the kernel reports, and holds extra sleeping threads as long as they do.

Other runtimes (LLVM's libomp on macOS, Intel's libiomp) cannot be governed so: there :func:`limit_spinning` sets a
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
"""A user who sets one of these decides how threads wait: this module then changes nothing."""

_log = logging.getLogger(__name__)
_called_too_late = False
_changing_environment = threading.Lock()


def limit_spinning() -> bool:
    """Let threads of libomp and libiomp sleep soon, in this process and in those that it starts.

    Call it before torch is imported: in the first line of a notebook, or of a program with a ``Trainer`` of its own, on
    macOS or with a torch from conda. (``keisei`` and ``train.py`` call it.) With libgomp, torch's runtime on Linux, the
    call is not needed: the collector governs how threads wait. It changes nothing if one of :data:`USER_VARIABLES` is
    set. It may be called twice.

    Returns:
        False if torch was imported before, so that this process's own threads are not affected.
    """
    global _called_too_late
    if not _is_decided():
        _called_too_late = "torch" in sys.modules
        os.environ.update(SETTINGS)
    return not _called_too_late


def _is_decided() -> bool:
    return any(name in os.environ for name in USER_VARIABLES)


def _is_users_choice() -> bool:
    """Whether a variable was set by the user, not by :func:`limit_spinning`."""
    return any(name in os.environ and os.environ[name] != SETTINGS.get(name) for name in USER_VARIABLES)


@contextlib.contextmanager
def spinning_limited() -> Iterator[None]:
    """Context with the environment of :func:`limit_spinning`, to start a process in; afterwards it is restored.

    One thread at a time enters it, because all threads share the environment.
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
    """CPU time of this process's threads, summed.

    Attributes:
        run_s: seconds on a CPU.
        wait_s: seconds ready to run, while other threads had the CPU.
    """

    run_s: float
    wait_s: float


def cpu_time(tasks: Path = Path("/proc/self/task")) -> CpuTime | None:
    """CPU time of the threads that this process has now; None where the kernel does not report it (macOS).

    The function creates few objects on purpose: Python collects garbage in the thread whose new object fills its quota,
    and some objects must be freed in the thread that made them (rsshogi's boards, for example).

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
    """Makes the runtime's threads sleep soon, and lets them spin again."""

    def engage(self) -> bool:
        """Let threads sleep soon; False if that is impossible here."""
        ...

    def release(self) -> None:
        """Let threads spin as long as the runtime does by itself. May be repeated."""
        ...


class ExtraThreads(Throttle):
    """Sleeping threads of libgomp, so many that it has more than there are CPUs and spins only briefly.

    They form the team of one Python thread, and end with it.

    Args:
        maps: the kernel's list of files that this process has mapped.
    """

    def __init__(self, maps: Path = Path("/proc/self/maps")) -> None:
        self._maps = maps
        self._leave: threading.Event | None = None
        self._holder: threading.Thread | None = None

    def engage(self) -> bool:
        """Start the threads; False without libgomp, or where so many threads are not allowed."""
        if self._holder is not None:
            return True
        path = self._library()
        if path is None:
            return False
        library = ctypes.CDLL(path)  # the library that is loaded already
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
        # Other packages may bring a library of this name too.
        return min(loaded, key=lambda path: ("torch" not in path, path), default=None)

    def release(self) -> None:
        """End the threads."""
        if self._holder is not None and self._leave is not None:
            self._leave.set()
            self._holder.join()
            self._holder = self._leave = None


def _hold_team(library: ctypes.CDLL, count: int, is_there: threading.Event, leave: threading.Event) -> None:
    """Create a team of this many idle threads and keep it."""
    # GOMP_parallel(function, data, num_threads, flags) is what compiled code calls; any harmless function will do.
    library.GOMP_parallel(library.omp_get_thread_num, None, ctypes.c_uint(count), ctypes.c_uint(0))
    is_there.set()
    leave.wait()


class SpinningGovernor:
    """Lets OpenMP threads of this process spin while no other program uses its CPUs, and sleep otherwise.

    A thread of its own samples CPU times several times a second, which takes a ten-thousandth of a CPU.

    Args:
        read: returns :func:`cpu_time`.
        throttle: makes threads sleep soon.
        interval_s: seconds between two samples.
    """

    BUSY_SHARE = 0.15
    """The machine is busy if threads wait for a CPU in more than this share of the time in which they could run."""

    CALM_SHARE = 0.05
    """The machine is calm if the share is less than this in :attr:`CALM_SAMPLES` consecutive samples."""

    CALM_SAMPLES = 4

    LEAST_S = 0.02
    """An interval with less CPU time than this is ignored."""

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
        self._calm_samples = 0
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keisei-spinning-governor", daemon=True)
        self.is_throttled = False

    def start(self) -> None:
        """Begin to sample, unless the user has decided or the kernel does not report CPU times."""
        if self._before is not None and not _is_users_choice():
            self._thread.start()

    def close(self) -> None:
        """Stop sampling, and let threads spin as long as the runtime does by itself."""
        self._leave.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._throttle.release()

    def _run(self) -> None:
        while not self._leave.wait(self._interval_s):
            if not self.sample():
                return

    def sample(self) -> bool:
        """Decide by the CPU times since the last sample; False if further samples are pointless."""
        before, self._before = self._before, self._read()
        if before is None or self._before is None:
            return False
        run_s, wait_s = (max(0.0, new - old) for new, old in zip(self._before, before, strict=True))
        if run_s + wait_s < self.LEAST_S:
            return True
        share = wait_s / (run_s + wait_s)
        if not self.is_throttled and share > self.BUSY_SHARE:
            return self._engage(share)
        self._calm_samples = self._calm_samples + 1 if share < self.CALM_SHARE else 0
        if self.is_throttled and self._calm_samples >= self.CALM_SAMPLES:
            self._throttle.release()
            self.is_throttled = False
        return True

    def _engage(self, share: float) -> bool:
        self._calm_samples = 0
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
    """Context in which a :class:`SpinningGovernor` runs; all contexts share one."""
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
