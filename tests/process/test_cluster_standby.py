"""Agents, standbys and their node are killed while they play: real processes on simulated nodes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from fault_helpers import FOR_EVER_S, TIMEOUT_S, wait_until
from rollout_accounts import RolloutAccounts
from simulated_cluster import SimulatedCluster, actor_of, family_of

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(TIMEOUT_S)]

HANG_S = 300.0


class Fixture:
    """A collector with one agent, which plays a rollout in about a tenth of a second, and its standby."""

    def __init__(self, folder: Path, cluster: SimulatedCluster) -> None:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        self.cluster = cluster
        self.accounts = RolloutAccounts.of(
            folder,
            mode="ray",
            num_agents=1,
            standby_agents=True,
            games_per_worker=4,
            plies_per_rollout=8,
            step_s=0.01,
            schedule="async",
            max_policy_lag=1_000_000,
            heartbeat_s=HANG_S,
            start_timeout_s=FOR_EVER_S,
            restart_backoff_s=0.05,
        )
        self.accounts.step()

    def step_until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + HANG_S
        while not condition():
            self.accounts.step()
            assert time.monotonic() < deadline, self.accounts.collector.health()

    @property
    def agent(self) -> psutil.Process:
        return actor_of(self.health()[0]["pid"])

    def health(self) -> list[dict[str, Any]]:
        """Of the worker, and of the agent."""
        return self.accounts.collector.health()

    def standbys(self) -> list[psutil.Process]:
        """Actors on all nodes beside the agent."""
        found, agent = [], self.agent
        for node in self.cluster.nodes:
            for process in family_of(self.cluster.raylet_of(node).pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if process.name().startswith("ray::AgentActor") and process != agent:
                        found.append(process)
        return found

    def next_standby(self, *before: psutil.Process) -> psutil.Process:
        """Play until there is a standby that is none of these."""
        self.step_until(lambda: any(one not in before for one in self.standbys()))
        (standby,) = (one for one in self.standbys() if one not in before)
        return standby

    def play_next_life(self) -> None:
        """Play until a later incarnation of the worker than that of now has delivered."""
        before = self.health()[0]["incarnation"]
        self.step_until(lambda: self.accounts.arrivals[-1].incarnation > before)


@pytest.fixture
def fixture(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fixture]:
    with SimulatedCluster(request.param) as cluster:
        yield Fixture(tmp_path, cluster)


@pytest.mark.parametrize("fixture", [1], indirect=True)
def test_standbys_that_are_killed_are_replaced_and_cost_nothing_and_one_that_lives_takes_over(fixture: Fixture) -> None:
    first = fixture.next_standby()
    first.kill()
    second = fixture.next_standby(first)
    second.kill()
    third = fixture.next_standby(first, second)
    assert [(one["incarnation"], one["restarts"]) for one in fixture.health()] == [(0, 0), (0, 0)]
    fixture.agent.kill()
    fixture.play_next_life()
    assert fixture.agent == third
    assert fixture.health()[1]["restarts"] == 1
    fourth = fixture.next_standby()
    found = fixture.accounts.assert_right()  # ends the collector, but not Ray, which is the program's
    assert 0 < found["lost_rollouts"] <= 2  # two slots
    wait_until(lambda: not third.is_running() and not fourth.is_running())
    wait_until(lambda: ray.available_resources().get("CPU") == 1.0)  # the reservation has ended too


@pytest.mark.parametrize("fixture", [2], indirect=True)
def test_a_node_that_is_killed_with_agent_and_standby_is_replaced_by_another_with_both(fixture: Fixture) -> None:
    standby = fixture.next_standby()
    node = next(node for node in fixture.cluster.nodes if standby in family_of(fixture.cluster.raylet_of(node).pid))
    assert fixture.agent in family_of(fixture.cluster.raylet_of(node).pid)
    fixture.cluster.remove_node(node)
    fixture.play_next_life()
    (other,) = fixture.cluster.nodes
    pair = {fixture.agent, fixture.next_standby()}
    assert pair <= set(family_of(fixture.cluster.raylet_of(other).pid))
    fixture.accounts.assert_right()
    wait_until(lambda: not any(one.is_running() for one in [standby, *pair]))
