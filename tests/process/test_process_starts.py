"""Workers are started from several threads, with a fork server that is killed; a worker that does not end is ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import forkserver, popen_fork
from typing import Any

import pytest
from collector_helpers import FRAMES, WORKERS, collector_of, take

from keisei_lightning.errors import WorkerBootError
from keisei_lightning.parallel.supervision.restarts import WorkerState

pytestmark = pytest.mark.process


def test_two_threads_that_start_collectors_leave_the_main_module_alone() -> None:
    main, barrier, rounds = sys.modules["__main__"], threading.Barrier(2), 20
    seen: list[object] = []
    plies: list[int] = []

    def collect(seed: int) -> None:
        for number in range(rounds):
            barrier.wait(timeout=600)
            with collector_of(num_workers=1, seed=seed) as collector:
                collector.start()
                seen.append(sys.modules["__main__"])
                if number == rounds - 1:
                    take(collector, 1)
                    plies.append(collector.plies)

    threads = [threading.Thread(target=collect, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.modules["__main__"] is main
    assert {id(module) for module in seen} == {id(main)}
    assert plies == [FRAMES // WORKERS] * 2


class KilledForkServer:
    """Kills the fork server, time after time, right after it was asked for a process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self._connect, self.left = forkserver.connect_to_new_process, times
        monkeypatch.setattr(forkserver, "connect_to_new_process", self)

    def __call__(self, fds: list[int]) -> Any:
        ends = self._connect(fds)
        if self.left > 0:  # it has begun to import torch: no process can have been made yet
            self.left -= 1
            os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
        return ends


@pytest.fixture
def no_fork_server() -> None:
    """The next start of a process is the first one."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("no_fork_server")
def test_a_fork_server_that_is_killed_as_it_starts_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server = KilledForkServer(monkeypatch, times=1)
    with collector_of() as collector:
        take(collector, 1)
        assert server.left == 0
        assert [worker["incarnation"] for worker in collector.health()] == [0] * WORKERS
        assert collector.stats()["restarts"] == 0


@pytest.mark.usefixtures("no_fork_server")
def test_a_fork_server_that_is_killed_repeatedly_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server = KilledForkServer(monkeypatch, times=3)
    with (
        pytest.raises(
            WorkerBootError,
            match=r"worker 0 \(incarnation 0\) could not be started: the fork server, which starts it, was ended 3 "
            r"times \(likely out of memory",
        ) as caught,
        collector_of() as collector,
    ):
        take(collector, 1)
    assert server.left == 0
    assert isinstance(caught.value.__cause__, EOFError | ConnectionError)
    assert {worker["state"] for worker in collector.health()} <= {WorkerState.DEAD, WorkerState.STARTING}


def test_a_worker_that_no_signal_ends_holds_up_neither_the_shutdown_nor_the_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one that sleeps in the kernel: here a stopped one, and signals that are not sent."""
    with collector_of(num_workers=1, heartbeat_s=600.0) as collector:
        take(collector, 1)
        (child,) = multiprocessing.active_children()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(popen_fork.Popen, "_send_signal", lambda popen, number: None)
            collector.shutdown(timeout=0.1)
        try:
            assert not multiprocessing.active_children()  # whom the interpreter's exit waits for
            assert child.is_alive()
            assert [worker["state"] for worker in collector.health()] == [WorkerState.DEAD]
        finally:
            child.kill()
            child.join()
            child.close()
