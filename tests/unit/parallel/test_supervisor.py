"""Supervision with a fake clock, and processes that are a pipe and a flag."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import pytest

from keisei_lightning.errors import RemoteTraceback, TooFewWorkersError, WorkerBootError, WorkerCrashLoopError
from keisei_lightning.parallel.supervision import supervisor
from keisei_lightning.parallel.supervision.events import Exited, Received, Started
from keisei_lightning.parallel.supervision.messages import Failure, LogRecord, Play, Ready, RolloutHeader, Stop
from keisei_lightning.parallel.supervision.restarts import RestartPolicy, WorkerState
from keisei_lightning.parallel.supervision.supervisor import Supervisor

STARTING, RUNNING, STOPPING, DEAD = (
    WorkerState.STARTING,
    WorkerState.RUNNING,
    WorkerState.STOPPING,
    WorkerState.DEAD,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeProcess:
    """A process is alive until its exit code is set; its sentinel is a pipe that closes then."""

    pid = None

    def __init__(self, worker_id: int, incarnation: int, connection: Connection[Any, Any]) -> None:
        self.worker_id, self.incarnation, self.connection = worker_id, incarnation, connection
        self.exitcode: int | None = None
        self.ignores_sigterm = self.ignores_sigkill = False
        self.received: list[str] = []
        self.sentinel, self._alive = os.pipe()

    # as the worker

    def send(self, message: object) -> None:
        self.connection.send(message)

    def read(self) -> list[object]:
        out = []
        while self.connection.poll():
            out.append(self.connection.recv())
        return out

    def die(self, exitcode: int) -> None:
        if self.exitcode is None:
            self.exitcode = exitcode
            os.close(self._alive)
            self.connection.close()

    # as multiprocessing.Process

    def is_alive(self) -> bool:
        return self.exitcode is None

    def terminate(self) -> None:
        self.received.append("SIGTERM")
        if not self.ignores_sigterm:
            self.die(-signal.SIGTERM)

    def kill(self) -> None:
        self.received.append("SIGKILL")
        if not self.ignores_sigkill:
            self.die(-signal.SIGKILL)

    def close(self) -> None:
        assert self.exitcode is not None, "closed alive: a zombie"
        os.close(self.sentinel)


class Scene:
    """A supervisor with its clock and every process it ever started."""

    def __init__(self, num_workers: int = 2, *, jitter: float = 0.0, **policy: Any) -> None:
        self.clock = Clock()
        self.started: list[FakeProcess] = []
        self.beats: dict[int, float] = {}
        self.abandoned: list[object] = []
        self.supervisor = Supervisor(
            self._spawn,
            num_workers=num_workers,
            policy=RestartPolicy(**{"heartbeat_s": 10.0, "start_timeout_s": 60.0, "restart_backoff_s": 1.0, **policy}),
            last_heartbeat=lambda worker_id: self.beats.get(worker_id, 0.0),
            abandon=self.abandoned.append,
            clock=self.clock,
            jitter=lambda: jitter,
        )

    def _spawn(self, worker_id: int, incarnation: int) -> tuple[FakeProcess, Connection[Any, Any]]:
        ours, theirs = Pipe()
        self.started.append(FakeProcess(worker_id, incarnation, theirs))
        return self.started[-1], ours

    def run(self) -> None:
        """Start, and let every worker get ready."""
        self.supervisor.start()
        for process in self.started:
            process.send(Ready(pid=0))
        assert len(self.supervisor.wait(0.0)) == len(self.started)

    def watch(self, seconds: float, *, beating: tuple[int, ...] = ()) -> list[object]:
        """Let time pass while the owner looks all the time, and these workers show life; returns the last events."""
        end, events = self.clock.now + seconds, list[object]()
        while self.clock.now < end and not events:
            self.clock.now = min(end, self.clock.now + 0.4)
            self.beats |= dict.fromkeys(beating, self.clock.now)
            events = list(self.supervisor.wait(0.0))
        return events

    def states(self) -> list[WorkerState]:
        return [worker.state for worker in self.supervisor.health()]

    def close(self) -> None:
        for process in self.started:
            process.die(0)
        self.supervisor.shutdown(0.0)
        for process in self.started:
            with contextlib.suppress(OSError):
                process.connection.close()


@pytest.fixture
def scenes() -> Iterator[list[Scene]]:
    made: list[Scene] = []
    yield made
    for scene in made:
        scene.close()


def header(sequence: int = 0) -> RolloutHeader:
    return RolloutHeader(worker_id=0, incarnation=0, sequence=sequence, slot=0, policy_version=0, plies=1)


def test_all_workers_are_started_at_once_and_run_once_they_are_ready(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(3))
    scene.supervisor.start()
    assert [(process.worker_id, process.incarnation) for process in scene.started] == [(0, 0), (1, 0), (2, 0)]
    assert scene.states() == [STARTING] * 3
    assert not scene.supervisor.send(1, Play(slot=0))
    scene.started[1].send(Ready(pid=0))
    assert scene.supervisor.wait(0.0) == [Started(worker_id=1, incarnation=0)]
    assert scene.states() == [STARTING, RUNNING, STARTING]
    assert scene.supervisor.send(1, Play(slot=5))
    assert scene.started[1].read() == [Play(slot=5)]


def test_what_a_worker_announced_before_its_death_comes_before_its_exit(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(1))
    scene.run()
    scene.started[0].send(header(0))
    scene.started[0].send(header(1))
    scene.started[0].die(-signal.SIGKILL)
    events = scene.supervisor.wait(0.0)
    assert events[:2] == [Received(worker_id=0, incarnation=0, message=header(n)) for n in range(2)]
    assert [type(event) for event in events[2:]] == [Exited]
    assert events[2].exit.exit_code == -signal.SIGKILL  # type: ignore[union-attr]
    assert scene.states() == [STARTING]  # its replacement


def test_restarts_wait_for_their_backoff_and_stop_past_the_budget(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(2, max_restarts=3, restart_backoff_s=1.0))
    scene.run()
    for restart, delay_s in enumerate((0.0, 1.0, 2.0)):
        scene.started[-1].die(1)
        scene.supervisor.wait(0.0)
        if delay_s > 0:  # the first comes at once
            assert scene.states() == [RUNNING, DEAD]
            scene.clock.now += delay_s - 0.01
            scene.supervisor.wait(0.0)
            assert scene.states() == [RUNNING, DEAD]
            scene.clock.now += 0.01
            scene.beats[0] = scene.clock.now
            scene.supervisor.wait(0.0)
        assert scene.states() == [RUNNING, STARTING]
        assert (scene.started[-1].worker_id, scene.started[-1].incarnation) == (1, restart + 1)
        scene.started[-1].send(Ready(pid=0))
        scene.supervisor.wait(0.0)
    assert scene.supervisor.health()[1].restarts == 3
    scene.started[-1].send(Failure(kind="ValueError", message="boom", traceback="Traceback: line 7"))
    scene.started[-1].die(1)
    with pytest.raises(WorkerCrashLoopError, match=r"worker 1 \(incarnation 3\) raised ValueError: boom; its") as info:
        scene.supervisor.wait(0.0)
    assert isinstance(info.value.__cause__, RemoteTraceback)
    assert info.value.__cause__.text == "Traceback: line 7"
    assert "(restarts: 3.0 s ago, 2.0 s ago, 0.0 s ago)" in str(info.value)
    assert len(scene.started) == 2 + 3


@pytest.mark.parametrize(("jitter", "delay_s"), [(-1.0, 8.0), (1.0, 12.0)])
def test_delays_vary_by_a_fifth(scenes: list[Scene], jitter: float, delay_s: float) -> None:
    scenes.append(scene := Scene(1, restart_backoff_s=10.0, jitter=jitter))
    scene.run()
    scene.started[0].die(1)
    scene.supervisor.wait(0.0)
    scene.started[1].send(Ready(pid=0))
    scene.supervisor.wait(0.0)
    scene.started[1].die(1)
    scene.supervisor.wait(0.0)
    scene.clock.now += delay_s - 0.01
    scene.supervisor.wait(0.0)
    assert scene.states() == [DEAD]
    scene.clock.now += 0.02
    scene.supervisor.wait(0.0)
    assert scene.states() == [STARTING]


def test_a_boot_failure_is_an_error_at_once_with_the_childs_traceback(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(2))
    scene.supervisor.start()
    scene.started[1].send(Failure(kind="ImportError", message="no game", traceback="line 3"))
    scene.started[1].die(1)
    with pytest.raises(
        WorkerBootError, match=r"worker 1 \(incarnation 0\) raised ImportError: no game, before"
    ) as info:
        scene.supervisor.wait(0.0)
    assert isinstance(info.value.__cause__, RemoteTraceback)
    assert len(scene.started) == 2


def test_too_few_workers_end_the_run_and_the_error_names_the_dead_worker(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(3, min_healthy_workers=2))
    scene.run()
    scene.started[0].die(1)
    assert len(scene.supervisor.wait(0.0)) == 1  # two are left, and a replacement comes: a warning
    scene.started[-1].die(1)
    scene.started[1].die(-signal.SIGSEGV)
    with pytest.raises(
        TooFewWorkersError, match=r"worker 1 .* SIGSEGV; 1 of 3 workers are left, min_healthy_workers=2"
    ):
        scene.supervisor.wait(0.0)


@pytest.mark.parametrize("ignores_sigterm", [False, True])
def test_a_worker_without_a_sign_of_life_is_ended_and_replaced(scenes: list[Scene], ignores_sigterm: bool) -> None:
    scenes.append(scene := Scene(2, heartbeat_s=10.0))
    scene.run()
    hung = scene.started[0]
    hung.ignores_sigterm = ignores_sigterm
    assert scene.watch(9.9, beating=(1,)) == []
    events = scene.watch(0.1, beating=(1,))
    assert hung.received == (["SIGTERM", "SIGKILL"] if ignores_sigterm else ["SIGTERM"])
    assert [event.exit.describe() for event in events if isinstance(event, Exited)] == [
        "worker 0 (incarnation 0) gave no sign of life for heartbeat_s=10"
    ]
    assert scene.states() == [STARTING, RUNNING]
    scene.clock.now += 1.0
    scene.supervisor.wait(0.0)
    assert scene.states() == [STARTING, RUNNING]


def test_messages_of_a_hung_worker_that_continues_while_it_is_ended_are_ignored(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(1, heartbeat_s=10.0))
    scene.run()
    hung = scene.started[0]
    cut_off = []

    def wake() -> None:
        try:
            hung.send(header())
        except OSError:
            cut_off.append(True)
        hung.die(1)

    hung.terminate = wake  # type: ignore[method-assign]
    assert [type(event) for event in scene.watch(10.0)] == [Exited]
    assert cut_off == [True]


def test_a_heartbeat_or_a_message_is_a_sign_of_life(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(2, heartbeat_s=10.0))
    scene.run()
    scene.clock.now += 9.0
    scene.beats[0] = scene.clock.now
    scene.started[1].send(LogRecord(level=logging.INFO, name="x", message="still here"))
    scene.supervisor.wait(0.0)
    scene.clock.now += 9.0
    scene.supervisor.wait(0.0)
    assert scene.states() == [RUNNING, RUNNING]
    assert [worker.last_sign_of_life_s for worker in scene.supervisor.health()] == [9.0, 9.0]


def test_a_worker_that_sent_a_message_while_the_owner_was_busy_is_not_late(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(1, start_timeout_s=60.0))
    scene.supervisor.start()
    scene.started[0].send(Ready(pid=0))
    scene.clock.now += 3600.0  # the owner compiled its network
    assert scene.supervisor.wait(0.0) == [Started(worker_id=0, incarnation=0)]
    assert scene.states() == [RUNNING]


def test_a_worker_that_was_stopped_together_with_the_owner_is_not_hung(
    scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes.append(scene := Scene(2, heartbeat_s=10.0))
    scene.run()

    def stopped_for_an_hour(items: object, timeout: float | None = None) -> list[object]:
        scene.clock.now += 3600.0 if timeout else 0.0
        return []

    with monkeypatch.context() as patch:
        patch.setattr("keisei_lightning.parallel.supervision.supervisor.wait", stopped_for_an_hour)
        assert scene.supervisor.wait(1.0) == []
    assert scene.states() == [RUNNING, RUNNING]


def test_a_worker_that_was_silent_while_the_owner_was_away_gets_a_grace_period(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(2, heartbeat_s=10.0))
    scene.run()
    scene.clock.now += 3600.0  # the owner was busy, or stopped and its workers with it: it cannot tell
    assert scene.supervisor.wait(0.0) == []
    scene.beats[1] = scene.clock.now
    assert scene.watch(1.9) == []
    (event,) = scene.watch(0.2)
    assert isinstance(event, Exited)
    assert event.exit.worker_id == 0
    assert scene.watch(7.5) == []
    (event,) = scene.watch(0.5)
    assert isinstance(event, Exited)  # it showed life once, a heartbeat ago
    assert event.exit.worker_id == 1


@pytest.mark.parametrize("away_s", [0.3, 0.6, 3.0, 30.0])
def test_a_hung_worker_is_ended_though_the_other_one_has_always_something_to_say(
    scenes: list[Scene], away_s: float
) -> None:
    """The owner is busy for a while, again and again, and finds a message each time: it never waits."""
    scenes.append(scene := Scene(2, heartbeat_s=10.0))
    scene.run()
    begin, exits = scene.clock.now, []
    while not exits:
        assert scene.clock.now < begin + 10.0 + 2 * max(away_s, 2.0)
        scene.clock.now += away_s
        scene.started[1].send(header())
        exits = [event.exit for event in scene.supervisor.wait(1.0) if isinstance(event, Exited)]
    assert [exit.worker_id for exit in exits] == [0]
    assert scene.clock.now >= begin + 10.0


def test_workers_that_show_signs_of_life_are_excused_each_time_the_owner_was_away(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(1, heartbeat_s=10.0))
    scene.run()
    for _ in range(5):
        scene.clock.now += 3600.0  # stopped together, again and again
        assert scene.supervisor.wait(0.0) == []
        scene.beats[0] = scene.clock.now + 0.1
        assert scene.watch(5.0) == []


def test_a_start_that_takes_too_long_is_a_boot_failure(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(1, start_timeout_s=60.0, heartbeat_s=1.0))
    scene.supervisor.start()
    scene.clock.now += 59.9
    assert scene.supervisor.wait(0.0) == []  # a slow start is no missed heartbeat
    assert scene.states() == [STARTING]
    scene.clock.now += 0.1
    with pytest.raises(WorkerBootError, match=r"was not ready within start_timeout_s=60, before it was ready"):
        scene.supervisor.wait(0.0)


def test_a_worker_that_closes_its_pipe_and_stays_is_ended_after_a_grace(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(1))
    scene.run()
    scene.started[0].connection.close()
    assert scene.supervisor.wait(0.0) == []
    scene.clock.now += 1.0
    events = scene.supervisor.wait(0.0)
    assert scene.started[0].received == ["SIGTERM"]
    assert "closed its pipe but did not end" in events[0].exit.describe()  # type: ignore[union-attr]


def test_a_workers_log_records_arrive_with_its_name(scenes: list[Scene], caplog: pytest.LogCaptureFixture) -> None:
    scenes.append(scene := Scene(1))
    scene.run()
    scene.started[0].send(LogRecord(level=logging.WARNING, name="game", message="odd position"))
    scene.supervisor.wait(0.0)
    assert caplog.record_tuples == [("keisei_lightning.worker", logging.WARNING, "[worker 0.0] odd position")]


def test_shutdown_asks_then_terminates_then_kills_and_reaps_everybody() -> None:
    scene = Scene(3)
    scene.supervisor._clock = time.monotonic
    scene.run()
    polite, deaf, stubborn = scene.started
    stubborn.ignores_sigterm = True
    polite.die(0)  # as if it had read the Stop that was sent
    scene.supervisor.shutdown(0.2)
    assert [process.received for process in scene.started] == [[], ["SIGTERM"], ["SIGTERM", "SIGKILL"]]
    assert scene.states() == [DEAD] * 3
    scene.supervisor.shutdown(0.2)  # twice is harmless
    assert deaf.received == ["SIGTERM"]


def sleep_in_the_kernel(process: FakeProcess) -> None:
    """No signal reaches it, as where a network drive does not answer."""
    process.ignores_sigterm = process.ignores_sigkill = True


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_REAP_S", "_EXIT_CODE_S", "_KILL_GRACE_S"):
        monkeypatch.setattr(supervisor, name, 0.02)


@pytest.mark.usefixtures("little_patience")
def test_shutdown_leaves_behind_whom_sigkill_does_not_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_by, deadlines = supervisor.ends_by, set[float]()

    def noted(process: FakeProcess, deadline: float) -> bool:
        deadlines.add(deadline)
        return ends_by(process, deadline)

    scene = Scene(8)
    scene.run()
    for process in scene.started[1:]:
        sleep_in_the_kernel(process)
    monkeypatch.setattr(supervisor, "ends_by", noted)
    scene.supervisor.shutdown(0.0)
    assert len(deadlines) == 1  # all of them together get as long as one
    assert scene.abandoned == scene.started[1:]
    assert scene.states() == [DEAD] * 8
    assert [worker.pid for worker in scene.supervisor.health()] == [None] * 8
    assert caplog.text.count("SIGKILL does not end its process") == 7
    for process in scene.started[1:]:
        process.die(-signal.SIGKILL)
        process.close()


@pytest.mark.usefixtures("little_patience")
def test_a_hung_worker_that_sigkill_does_not_end_is_replaced(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(2, heartbeat_s=10.0))
    scene.run()
    stuck = scene.started[0]
    sleep_in_the_kernel(stuck)
    (event,) = scene.watch(11.0, beating=(1,))
    assert isinstance(event, Exited)
    assert event.exit.exit_code is None
    assert event.exit.describe() == "worker 0 (incarnation 0) gave no sign of life for heartbeat_s=10"
    assert stuck.received == ["SIGTERM", "SIGKILL"]
    assert scene.abandoned == [stuck]
    assert [process.worker_id for process in scene.started] == [0, 1, 0]
    stuck.die(-signal.SIGKILL)
    stuck.close()


@pytest.mark.usefixtures("little_patience")
def test_a_process_that_closes_its_sentinel_and_stays_is_killed(scenes: list[Scene]) -> None:
    """As a game does that closes every descriptor it finds: where a process is spawned, that is all there is to see."""
    scenes.append(scene := Scene(1))
    scene.run()
    os.close(scene.started[0]._alive)
    scene.started[0]._alive = os.open(os.devnull, os.O_RDONLY)
    (event,) = scene.supervisor.wait(0.0)
    assert isinstance(event, Exited)
    assert event.exit.exit_code == -signal.SIGKILL
    assert scene.started[0].received == ["SIGKILL"]
    assert not scene.abandoned


def test_shutdown_asks_running_workers_and_ends_starting_ones_at_once(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(2))
    scene.supervisor.start()
    scene.started[0].send(Ready(pid=0))
    scene.supervisor.wait(0.0)
    running, starting = scene.started
    scene.supervisor.shutdown(0.0)
    assert starting.received == ["SIGTERM"]
    assert running.received == ["SIGTERM"] or running.received == ["SIGTERM", "SIGKILL"]


def test_a_second_ctrl_c_during_shutdown_still_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(2)
    scene.run()
    calls = [0]

    def interrupted(items: object, timeout: float | None = None) -> list[object]:
        calls[0] += 1
        if calls[0] == 1:
            raise KeyboardInterrupt
        return list(items)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr("keisei_lightning.parallel.supervision.supervisor.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            scene.supervisor.shutdown(10.0)
    assert [process.received for process in scene.started] == [["SIGKILL"], ["SIGKILL"]]
    assert scene.states() == [DEAD, DEAD]


@pytest.mark.parametrize(
    ("state", "to"),
    [(RUNNING, STARTING), (DEAD, RUNNING), (DEAD, STOPPING), (STOPPING, RUNNING), (RUNNING, RUNNING)],
)
def test_an_illegal_transition_is_refused(state: WorkerState, to: WorkerState) -> None:
    scene = Scene(1)
    worker = scene.supervisor._workers[0]
    worker.state = state
    with pytest.raises(RuntimeError, match=f"worker 0 cannot go from {state} to {to}"):
        worker.move(to)


def test_a_worker_that_gets_ready_twice_breaks_the_protocol(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(1))
    scene.run()
    scene.started[0].send(Ready(pid=0))
    with pytest.raises(RuntimeError, match="cannot go from running to running"):
        scene.supervisor.wait(0.0)


def test_a_running_worker_receives_stop_at_shutdown() -> None:
    scene = Scene(1)
    scene.run()
    received: list[object] = []
    process = scene.started[0]
    process.terminate = lambda: (received.extend(process.read()), process.die(0))  # type: ignore[method-assign,assignment]
    scene.supervisor.shutdown(0.0)
    assert received == [Stop()]


class ClosedToOthers(FakeProcess):
    """Tells its number to who started it, and then as a process does that another thread is just closing."""

    asked = 0

    @property
    def pid(self) -> int:  # type: ignore[override]
        self.asked += 1
        if self.asked > 1:
            raise ValueError("process object is closed")
        return 4711


def test_health_can_be_asked_for_by_another_thread_while_a_process_is_being_closed(
    scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.FakeProcess", ClosedToOthers)
    scenes.append(scene := Scene(1))
    scene.run()
    (first,) = scene.started
    assert [worker.pid for worker in scene.supervisor.health()] == [4711]
    first.die(-signal.SIGKILL)
    scene.supervisor.wait(0.0)
    assert [(worker.pid, worker.incarnation) for worker in scene.supervisor.health()] == [(4711, 1)]
