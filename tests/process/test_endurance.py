"""Many restarts, and every way of starting (rows 32 and 33)."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
import time

import psutil
import pytest
from fault_helpers import SOAK, TIMEOUT_S, UNLIMITED, Audit, collector_of, pid_of
from leaks import shared_memory_of
from soak_report import SoakReport

from keisei_lightning.errors import ConfigError

pytestmark = [pytest.mark.process, pytest.mark.timeout(TIMEOUT_S)]


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_row_32_both_ways_of_starting_survive_a_kill(start_method: str) -> None:
    with collector_of(start_method=start_method) as collector:
        audit = Audit(collector)
        batches = iter(collector)
        audit.take(next(batches))
        os.kill(pid_of(collector), signal.SIGKILL)
        for batch in itertools.islice(batches, 3):
            audit.take(batch)
        assert collector.stats()["restarts"] == 1


def test_row_32_fork_is_refused() -> None:
    with pytest.raises(ConfigError, match="start_method=fork: must be one of forkserver, spawn, or None"):
        collector_of(start_method="fork")


def kept() -> tuple[int, list[str], set[str]]:
    """Descriptors, threads and shared memory of this process, but for what the governor of spinning does meanwhile."""
    names = sorted(thread.name for thread in threading.enumerate() if thread.name != "keisei-openmp-team")
    descriptors = []
    for _ in range(5):  # it reads files, for a moment each
        descriptors.append(len(os.listdir("/proc/self/fd")))
        time.sleep(0.01)
    processes = [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]
    return min(descriptors), names, shared_memory_of(processes)


def test_row_33_restarts_leave_no_descriptors_no_threads_and_no_memory(soak_report: SoakReport) -> None:
    count, warm_up = (1000, 50) if SOAK else (15, 5)
    me = psutil.Process()
    with collector_of(**UNLIMITED) as collector:
        batches = iter(collector)

        def restart() -> None:
            os.kill(pid_of(collector), signal.SIGKILL)
            next(batches)

        next(batches)
        for _ in range(warm_up):
            restart()
        gc.collect()
        before = kept()
        resident = me.memory_info().rss
        for _ in range(count):
            restart()
        gc.collect()
        grown = me.memory_info().rss - resident
        after = kept()
        assert collector.stats()["restarts"] == count + warm_up
    assert after == before
    assert grown < 5 * 2**20
    soak_report.add("33", "restarts", count, f"descriptors, threads, /dev/shm unchanged; RSS {grown / 2**20:+.1f} MiB")
