"""Supervision of agents with a fake clock and a cluster of fakes."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fake_cluster import Clock, FakeCall, FakeCluster, report

from keisei_lightning.errors import (
    RemoteTraceback,
    TooFewWorkersError,
    WorkerBootError,
    WorkerCrashLoopError,
    WorkerError,
)
from keisei_lightning.parallel.cluster.calls import Agent, AgentGoneError, AnswerLostError
from keisei_lightning.parallel.cluster.fleet import Fleet
from keisei_lightning.parallel.cluster.messages import Report
from keisei_lightning.parallel.cluster.placement import Node
from keisei_lightning.parallel.supervision.messages import Failure, LogRecord
from keisei_lightning.parallel.supervision.restarts import RestartPolicy, WorkerState


class Log:
    """An owner that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.accepts = 0

    def on_starting(self, agent: Agent) -> None:
        self.told.append(("starting", agent.agent_id))

    def on_report(self, agent: Agent, report: Report) -> None:
        self.told.append(("report", agent.agent_id))
        agent.accepted += self.accepts

    def on_found(self, agent: Agent) -> None:
        self.told.append(("found", agent.agent_id))

    def on_result(self, agent: Agent, call: Any, result: Any) -> None:
        self.told.append(("result", agent.agent_id))

    def on_lost(self, agent: Agent) -> None:
        self.told.append(("lost", agent.agent_id))

    def take(self) -> list[tuple[str, int]]:
        told, self.told = self.told, []
        return told


class Fixture:
    def __init__(self, *, num_agents: int = 2, nodes: int = 2, needs_all: bool = False, **policy: Any) -> None:
        self.clock = Clock()
        self.cluster = FakeCluster(self.clock, [self.node(number) for number in range(nodes)])
        self.log = Log()
        options = {"heartbeat_s": 10.0, "start_timeout_s": 60.0, "max_restarts": 2, "restart_window_s": 300.0}
        self.fleet = Fleet(
            self.cluster,
            self.log,
            lambda agent: (agent.agent_id, agent.incarnation),  # type: ignore[arg-type,return-value]
            num_agents=num_agents,
            needs={"CPU": 2.0},
            placement="spread",
            policy=RestartPolicy(**{**options, "restart_backoff_s": 1.0, **policy}),
            needs_all=needs_all,
            clock=self.clock,
            jitter=lambda: 0.0,
        )

    @staticmethod
    def node(number: int) -> Node:
        return Node(node_id=f"node{number}", name=f"host{number}", resources={"CPU": 2.0})

    def poll_of(self, started: int) -> FakeCall:
        return self.cluster.started[started].polls[-1]

    def running(self) -> Fixture:
        self.fleet.start()
        for number in range(len(self.cluster.started)):
            self.poll_of(number).answer(report())
        self.fleet.wait(0.0)
        self.log.take()
        return self

    def live(self, seconds: float, silent: tuple[int, ...] = ()) -> None:
        """Let agents answer every second, except some."""
        for _ in range(int(seconds)):
            for agent in self.fleet.agents:
                if agent.call is not None and agent.agent_id not in silent:
                    agent.call.answer(report())
            self.fleet.wait(0.0)
            self.clock.now += 1.0


def test_agents_start_at_once_each_on_a_node_of_its_own_and_run_when_they_answer() -> None:
    fixture = Fixture()
    fixture.fleet.start()
    assert fixture.log.take() == [("starting", 0), ("starting", 1)]
    assert [(calls.boot, calls.node.node_id) for calls in fixture.cluster.started] == [
        ((0, 0), "node0"),
        ((1, 0), "node1"),
    ]
    fixture.poll_of(1).answer(report())
    fixture.fleet.wait(5.0, until=lambda: bool(fixture.log.told))
    assert fixture.log.take() == [("report", 1)]
    assert [agent.state for agent in fixture.fleet.agents] == [WorkerState.STARTING, WorkerState.RUNNING]


def test_the_next_poll_says_what_was_accepted() -> None:
    fixture = Fixture().running()
    fixture.log.accepts = 3
    fixture.poll_of(0).answer(report())
    fixture.fleet.wait(0.0)
    assert [poll.argument for poll in fixture.cluster.started[0].polls] == [0, 0, 3]


def test_a_silent_agent_is_killed_and_replaced_and_its_late_answer_is_thrown_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fixture = Fixture().running()
    late = fixture.poll_of(0)
    fixture.live(9, silent=(0,))
    assert fixture.log.take() == [("report", 1)] * 9
    fixture.live(3, silent=(0,))
    assert fixture.log.take() == [("report", 1)] * 2 + [("lost", 0), ("starting", 0), ("report", 1)]
    assert fixture.cluster.started[0].killed == 1
    assert fixture.cluster.started[2].boot == (0, 1)
    assert "agent 0 on host0 (incarnation 0) gave no sign of life for heartbeat_s=10; restart 1 of 2" in caplog.text
    late.answer(report(lost_rollouts=5))
    fixture.fleet.wait(0.0)
    assert ("report", 0) not in fixture.log.take()
    assert fixture.fleet.late_reports == 1


def test_a_busy_owner_does_not_mistake_agents_that_have_answered_for_hung_ones() -> None:
    fixture = Fixture().running()
    for number in (0, 1):
        fixture.poll_of(number).answer(report())
    fixture.clock.now += 1000.0
    fixture.fleet.wait(0.0)
    assert fixture.log.take() == [("report", 0), ("report", 1)]


def test_an_owner_that_was_stopped_with_its_agents_excuses_them_once() -> None:
    fixture = Fixture().running()
    fixture.clock.now += 1000.0  # as after Ctrl-Z: no answer is there yet
    fixture.fleet.wait(0.0)
    assert fixture.log.take() == []
    fixture.fleet.wait(3.0, until=lambda: bool(fixture.log.told))
    assert fixture.log.take()[0] == ("lost", 0)


def test_an_agent_that_ends_is_replaced_at_once_and_the_next_time_after_a_pause() -> None:
    fixture = Fixture(num_agents=1).running()
    for pause in (0.0, 1.0):
        fixture.poll_of(-1).answer(AgentGoneError("was killed"))
        before = fixture.clock.now
        fixture.fleet.wait(5.0, until=lambda: ("starting", 0) in fixture.log.told)
        assert fixture.clock.now - before == pytest.approx(pause, abs=0.01)
        assert fixture.log.take() == [("lost", 0), ("starting", 0)]
        fixture.poll_of(-1).answer(report())
        fixture.fleet.wait(0.0)
        fixture.log.take()
    fixture.poll_of(-1).answer(AgentGoneError("was killed"))
    with pytest.raises(WorkerCrashLoopError, match=r"^agent 0 on host0 \(incarnation 2\) was killed; its budget of 2"):
        fixture.fleet.wait(5.0)


def test_an_agent_that_fails_at_its_first_start_ends_the_training() -> None:
    fixture = Fixture(num_agents=1)
    fixture.fleet.start()
    fixture.poll_of(0).answer(AgentGoneError("failed (no such game)", is_own_fault=True))
    with pytest.raises(WorkerBootError, match=r"agent 0 on host0 \(incarnation 0\) failed \(no such game\)"):
        fixture.fleet.wait(1.0)


def test_an_agent_that_is_not_ready_in_time_ends_the_training() -> None:
    fixture = Fixture(num_agents=1)
    fixture.fleet.start()
    with pytest.raises(WorkerBootError, match=r"was not ready within start_timeout_s=60"):
        fixture.fleet.wait(100.0)


def test_a_node_that_dies_while_its_agent_starts_is_no_failed_start() -> None:
    fixture = Fixture(num_agents=1)
    fixture.fleet.start()
    fixture.cluster.alive = [fixture.node(1)]
    fixture.poll_of(0).answer(AgentGoneError("went with its node"))
    fixture.fleet.wait(1.0, until=lambda: len(fixture.cluster.started) == 2)
    assert fixture.cluster.started[1].node == fixture.node(1)


def test_an_agent_without_a_node_waits_for_one_to_join(caplog: pytest.LogCaptureFixture) -> None:
    fixture = Fixture(num_agents=2, nodes=1).running()
    assert len(fixture.cluster.started) == 1
    fixture.live(200)
    assert len(fixture.cluster.started) == 1
    fixture.cluster.alive.append(fixture.node(5))
    fixture.live(2)
    assert fixture.cluster.started[1].node == fixture.node(5)
    assert fixture.fleet.agents[1].restarts == []  # to wait is no restart


def test_one_that_lost_its_node_waits_too_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    fixture = Fixture().running()
    fixture.cluster.alive = [fixture.node(0)]
    fixture.poll_of(1).answer(AgentGoneError("went with its node"))
    fixture.fleet.wait(0.0)
    fixture.live(100)
    assert caplog.text.count("agent 1 waits for a node with 2 CPU") == 1
    fixture.cluster.alive.append(fixture.node(1))
    fixture.live(2)
    assert fixture.cluster.started[2].boot == (1, 1)
    assert len(fixture.fleet.agents[1].restarts) == 1


@pytest.mark.parametrize(("nodes", "needs_all"), [(1, True), (0, False)], ids=["one is needed", "there is none"])
def test_training_ends_where_it_cannot_go_on_without_a_node(nodes: int, needs_all: bool) -> None:
    fixture = Fixture(num_agents=2, nodes=nodes, needs_all=needs_all)
    fixture.fleet.start()
    with pytest.raises(
        TooFewWorkersError, match=r"found no node with 2 CPU within start_timeout_s=60 \(nodes: (host0: 2 CPU|none is)"
    ):
        fixture.live(70)


def test_an_answer_that_was_lost_is_asked_for_again_until_it_is_silence(caplog: pytest.LogCaptureFixture) -> None:
    fixture = Fixture(num_agents=1).running()
    fixture.poll_of(0).answer(AnswerLostError("no room in the object store"))
    fixture.fleet.wait(1.0)
    assert fixture.log.take() == []
    assert len(fixture.cluster.started[0].polls) == 3
    fixture.poll_of(0).answer(report())
    fixture.fleet.wait(0.0)
    assert fixture.log.take() == [("report", 0), ("found", 0)]
    for _ in range(12):
        fixture.poll_of(0).answer(AnswerLostError("no room in the object store"))
        fixture.fleet.wait(1.0)
    assert ("lost", 0) in fixture.log.take()


def test_an_answer_that_was_lost_holds_up_no_other_agent() -> None:
    fixture = Fixture().running()
    fixture.poll_of(0).answer(AnswerLostError("connection reset"))
    fixture.poll_of(1).answer(report())
    before = fixture.clock.now
    fixture.fleet.wait(5.0, until=lambda: bool(fixture.log.told))
    assert fixture.log.take() == [("report", 1)]
    assert fixture.clock.now == before
    fixture.poll_of(1).answer(report())
    fixture.fleet.wait(5.0, until=lambda: bool(fixture.log.told))
    assert fixture.log.take() == [("report", 1)]
    assert fixture.clock.now == before


def test_an_agent_leaves_a_silent_node_when_another_joins_and_its_budget_is_not_charged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A node without power is alive to Ray for some time, and an agent that is started there never answers."""
    fixture = Fixture().running()
    fixture.live(12, silent=(0,))
    assert [calls.node.node_id for calls in fixture.cluster.started] == ["node0", "node1", "node0"]
    fixture.live(5, silent=(0,))
    assert len(fixture.cluster.started) == 3
    fixture.cluster.alive.append(fixture.node(2))
    fixture.live(3, silent=(0,))
    assert [calls.node.node_id for calls in fixture.cluster.started[3:]] == ["node2"]
    assert fixture.cluster.started[2].killed == 1
    assert fixture.cluster.started[3].boot == (0, 2)
    assert "agent 0 on host0 has not started there; another node has room" in caplog.text
    assert len(fixture.fleet.agents[0].restarts) == 1
    fixture.log.take()
    fixture.live(2)
    assert fixture.log.take() == [("report", 0), ("report", 1)] * 2


def test_what_an_agent_reports_as_its_end_is_raised_as_what_it_is() -> None:
    fixture = Fixture().running()
    failure = Failure(kind="WorkerCrashLoopError", message="worker 1 died", traceback="Traceback: far away")
    fixture.poll_of(1).answer(report(failure=failure))
    with pytest.raises(WorkerCrashLoopError, match=r"^agent 1 on host1: worker 1 died$") as info:
        fixture.fleet.wait(1.0)
    assert isinstance(info.value.__cause__, RemoteTraceback)
    assert fixture.log.take() == [("report", 1)]


def test_another_exception_of_an_agent_is_raised_as_a_workers_error() -> None:
    fixture = Fixture().running()
    fixture.poll_of(0).answer(report(failure=Failure(kind="ZeroDivisionError", message="by zero", traceback="")))
    with pytest.raises(WorkerError, match=r"^agent 0 on host0 raised ZeroDivisionError: by zero$"):
        fixture.fleet.wait(1.0)


def test_the_log_of_an_agent_is_the_learners_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    fixture = Fixture().running()
    record = LogRecord(level=logging.WARNING, name="keisei_lightning.worker", message="[worker 1.0] a lamp is lit")
    with caplog.at_level(logging.INFO):
        fixture.poll_of(0).answer(report(logs=(record,)))
        fixture.fleet.wait(0.0)
    assert caplog.record_tuples[-1] == (
        "keisei_lightning.worker",
        logging.WARNING,
        "[agent 0 on host0] [worker 1.0] a lamp is lit",
    )


def test_results_of_other_calls_are_told_unless_their_incarnation_has_ended() -> None:
    fixture = Fixture(num_agents=1).running()
    agent = fixture.fleet.agents[0]
    call = FakeCall("receive", None)
    fixture.fleet.watch(agent, call)
    call.answer()
    fixture.fleet.wait(0.0)
    assert fixture.log.take() == [("result", 0)]
    old = FakeCall("receive", None)
    fixture.fleet.watch(agent, old)
    fixture.poll_of(0).answer(AgentGoneError("was killed"))
    fixture.fleet.wait(0.0)
    old.answer()
    fixture.fleet.wait(0.0)
    assert fixture.log.take() == [("lost", 0), ("starting", 0)]


def test_an_agent_that_cannot_get_its_weights_is_replaced() -> None:
    fixture = Fixture(num_agents=1).running()
    call = FakeCall("receive", None)
    fixture.fleet.watch(fixture.fleet.agents[0], call)
    call.answer(AgentGoneError("failed (GetTimeoutError)", is_own_fault=True))
    fixture.fleet.wait(0.0)
    assert fixture.log.take() == [("lost", 0), ("starting", 0)]


def test_shutdown_asks_then_kills_and_does_so_once() -> None:
    fixture = Fixture().running()
    fixture.fleet.shutdown(10.0)
    fixture.fleet.shutdown(10.0)
    assert [[call.argument for call in calls.stops] for calls in fixture.cluster.started] == [[7.0], [7.0]]
    assert [calls.killed for calls in fixture.cluster.started] == [1, 1]
    assert {agent.state for agent in fixture.fleet.agents} == {WorkerState.DEAD}
