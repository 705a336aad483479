"""Standbys beside agents, with a fake clock and a cluster of fakes."""

from __future__ import annotations

import pytest
from fake_cluster import Clock, FakeCalls, FakeCluster, report

from keisei_lightning.parallel.cluster.calls import Agent, AgentGoneError, AnswerLostError
from keisei_lightning.parallel.cluster.fleet import Fleet
from keisei_lightning.parallel.cluster.placement import Node
from keisei_lightning.parallel.supervision.restarts import RestartPolicy


class LossesOwner:
    """An owner that counts the agents that were lost."""

    losses = 0

    def on_starting(self, agent: Agent) -> None: ...
    def on_report(self, agent: Agent, report: object) -> None: ...
    def on_found(self, agent: Agent) -> None: ...
    def on_result(self, agent: Agent, call: object, result: object) -> None: ...

    def on_lost(self, agent: Agent) -> None:
        self.losses += 1


def node(number: int) -> Node:
    return Node(node_id=f"node{number}", name=f"host{number}", resources={"CPU": 2.0})


class Fixture:
    """One agent that runs, and its standby."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.cluster = FakeCluster(self.clock, [node(0)])
        self.owner = LossesOwner()
        self.fleet = Fleet(
            self.cluster,
            self.owner,
            lambda agent: (agent.agent_id, agent.incarnation),  # type: ignore[arg-type,return-value]
            num_agents=1,
            needs={"CPU": 2.0},
            placement="spread",
            policy=RestartPolicy(heartbeat_s=10.0, start_timeout_s=60.0, max_restarts=2, restart_backoff_s=1.0),
            needs_all=False,
            has_standbys=True,
            clock=self.clock,
            jitter=lambda: 0.0,
        )
        self.fleet.start()
        assert len(self.started) == 1  # none while its agent starts
        self.run(0)

    @property
    def started(self) -> list[FakeCalls]:
        return self.cluster.started

    def run(self, number: int) -> None:
        """Let an agent answer."""
        self.started[number].polls[-1].answer(report())
        self.fleet.wait(0.0)


def test_a_standby_is_started_when_its_agent_runs_and_takes_over_when_it_dies() -> None:
    fixture = Fixture()
    standby = fixture.started[1]
    assert (standby.node.node_id, standby.boot) == ("node0", None)
    fixture.started[0].polls[-1].answer(AgentGoneError("was killed"))
    fixture.fleet.wait(0.0)
    assert fixture.fleet.agents[0].calls is standby
    assert (standby.boot, len(standby.polls), standby.killed) == ((0, 1), 1, 0)
    assert len(fixture.started) == 2  # the next one, when it runs
    fixture.run(1)
    assert (len(fixture.started), fixture.started[2].boot) == (3, None)


def test_a_standby_that_dies_is_replaced_after_the_pauses_of_the_policy_and_is_no_restart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fixture = Fixture()
    for pause in (0.0, 1.0, 30.0, 30.0):  # where the budget is spent, the longest pause
        before, number = fixture.clock.now, len(fixture.started)
        fixture.started[-1].signs[-1].answer(AgentGoneError("was killed"))
        while len(fixture.started) == number:
            fixture.run(0)
            fixture.clock.now += 0.1
        assert fixture.clock.now - before == pytest.approx(pause, abs=0.25)
    assert (fixture.fleet.agents[0].restarts, fixture.fleet.agents[0].incarnation, fixture.owner.losses) == ([], 0, 0)
    assert "the standby of agent 0 on host0 (incarnation 0) was killed; nothing is lost" in caplog.text


def test_a_standby_that_is_silent_is_killed_and_replaced() -> None:
    fixture = Fixture()
    fixture.started[1].signs[-1].answer()
    fixture.run(0)
    for _ in range(11):
        fixture.clock.now += 1.0
        fixture.run(0)
    assert [calls.killed for calls in fixture.started] == [0, 1, 0]


def test_a_standby_whose_answers_are_lost_is_asked_again_after_a_pause_and_in_the_end_counts_as_silent() -> None:
    fixture = Fixture()
    standby = fixture.started[1]
    standby.signs[-1].answer()
    fixture.run(0)
    begin = fixture.clock.now
    while standby.killed == 0:
        if not standby.signs[-1].answers:
            standby.signs[-1].answer(AnswerLostError("no connection"))
        fixture.run(0)
        fixture.clock.now += 0.1
    assert fixture.clock.now - begin == pytest.approx(10.0, abs=0.25)
    assert 30 < len(standby.signs) < 60
    assert (fixture.owner.losses, len(fixture.started)) == (0, 3)


def test_an_agent_whose_standby_died_with_it_goes_on_with_a_new_process() -> None:
    fixture = Fixture()
    fixture.started[0].polls[-1].answer(AgentGoneError("was killed"))
    fixture.started[1].signs[-1].answer(AgentGoneError("was killed"))
    fixture.fleet.wait(0.0)
    assert fixture.started[2].boot == (0, 1)
    assert (len(fixture.fleet.agents[0].restarts), fixture.owner.losses) == (1, 1)


def test_an_agent_that_goes_to_another_node_leaves_its_standby_which_ends() -> None:
    fixture = Fixture()
    fixture.cluster.alive = [node(1)]
    fixture.started[0].polls[-1].answer(AgentGoneError("went with its node"))
    fixture.fleet.wait(0.0)
    assert [calls.killed for calls in fixture.started] == [1, 1, 0]
    assert fixture.started[2].boot == (0, 1)
    fixture.run(2)
    assert fixture.started[3].node.node_id == "node1"


def test_an_agent_that_is_silent_is_replaced_by_a_new_process_since_its_standby_may_be_cut_off_too() -> None:
    fixture = Fixture()
    for _ in range(11):
        fixture.clock.now += 1.0
        fixture.started[1].signs[-1].answer()
        fixture.fleet.wait(0.0)
    assert [calls.killed for calls in fixture.started] == [1, 1, 0]
    assert fixture.started[2].boot == (0, 1)


def test_shutdown_ends_standbys() -> None:
    fixture = Fixture()
    fixture.fleet.shutdown(10.0)
    fixture.fleet.shutdown(10.0)
    assert [calls.killed for calls in fixture.started] == [1, 1]
