"""Nodes, agents, the network and the object store of a Ray cluster fail while it plays (row 42): real kills, real cuts.

The nodes are simulated on this machine (``simulated_cluster.py``), and the books of every rollout are kept
(``rollout_accounts.py``): what workers began, what the learner granted and what was delivered must add up.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from fault_helpers import FOR_EVER_S, SOAK, TIMEOUT_S, assert_within, is_alive, wait_until
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rollout_accounts import RolloutAccounts
from simulated_cluster import MIB, NodeBehindCable, SimulatedCluster, actor_of, can_make_networks, family_of
from soak_report import SoakReport

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(TIMEOUT_S)]

HEARTBEAT_S = 3.0
BACK_S = 300.0  # ends a test that would wait for ever; and the heartbeat where silence is not what is tested


@contextlib.contextmanager
def connected(cluster: SimulatedCluster, **options: Any) -> Iterator[None]:
    """This process as the driver of a cluster."""
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error", **options)
    yield


def accounts_of(folder: Path, *, num_agents: int, **options: Any) -> RolloutAccounts:
    """A collector with a worker on each node, which plays a rollout in about a tenth of a second, and its books."""
    return RolloutAccounts.of(
        folder,
        **{
            "mode": "ray",
            "num_agents": num_agents,
            "placement": "strict_spread",
            "games_per_worker": 4,
            "plies_per_rollout": 8,
            "step_s": 0.01,
            "schedule": "async",
            "max_policy_lag": 1_000_000,
            "heartbeat_s": BACK_S,
            "start_timeout_s": FOR_EVER_S,
            "restart_backoff_s": 0.05,
            "max_restarts": 1,
            "restart_window_s": 1e-6,  # no death is within the window of the one before
            **options,
        },
    )


def step_until(accounts: RolloutAccounts, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BACK_S
    while not condition():
        accounts.step()
        assert time.monotonic() < deadline, accounts.collector.health()


def all_play(accounts: RolloutAccounts) -> Callable[[], bool]:
    """A condition: every worker has delivered since now."""
    begin, workers = accounts.delivered, set(range(accounts.collector.num_workers))
    return lambda: {arrival.worker_id for arrival in accounts.arrivals[begin:]} == workers


def next_life_plays(accounts: RolloutAccounts, worker_id: int) -> Callable[[], bool]:
    """A condition: a later life of a worker has delivered than the one of now."""
    before = accounts.collector.health()[worker_id]["incarnation"]
    return lambda: any(
        arrival.worker_id == worker_id and arrival.incarnation > before for arrival in reversed(accounts.arrivals)
    )


def node_of(accounts: RolloutAccounts, cluster: SimulatedCluster, worker_id: int) -> Any:
    family = {process.pid for process in actor_of(accounts.collector.health()[worker_id]["pid"]).parents()}
    return next(node for node in cluster.nodes if cluster.raylet_of(node).pid in family)


def test_row_42_an_agent_that_is_killed_loses_what_it_was_playing_and_nothing_else(
    tmp_path: Path, soak_report: SoakReport
) -> None:
    count = 200 if SOAK else 3
    seconds = []
    with SimulatedCluster(2) as cluster, connected(cluster):
        accounts = accounts_of(tmp_path, num_agents=2)
        step_until(accounts, all_play(accounts))
        for number in range(count):
            worker_id = number % 2
            agent = actor_of(accounts.collector.health()[worker_id]["pid"])
            workers = family_of(agent.pid)[1:]
            back = next_life_plays(accounts, worker_id)
            agent.kill()
            start = time.monotonic()
            step_until(accounts, back)
            seconds.append(time.monotonic() - start)
            wait_until(lambda: not any(is_alive(process) for process in workers))  # noqa: B023 - they end with it
        agents = accounts.collector.health()[-2:]
        found = accounts.assert_right()
    assert sum(agent["restarts"] for agent in agents) == count
    assert 0 < found["lost_rollouts"] <= 2 * count  # two slots each
    p50, p99 = np.percentile(seconds, [50, 99])
    soak_report.add(
        "42",
        "SIGKILL of a node agent, 2 agents, their workers with them",
        count,
        f"0 torn, 0 delivered twice in {found['delivered']} rollouts; {found['lost_rollouts']} lost, counted; the "
        f"replacement delivers after p50 {p50:.1f} s, p99 {p99:.1f} s",
    )


def test_row_42_nodes_leave_and_join_while_the_others_play_on(tmp_path: Path, soak_report: SoakReport) -> None:
    """First all processes of a node end at once, then the raylet of another alone; each time a new node joins."""
    count = 10 if SOAK else 1
    with SimulatedCluster(2) as cluster, connected(cluster):
        accounts = accounts_of(tmp_path, num_agents=2, heartbeat_s=HEARTBEAT_S)
        step_until(accounts, all_play(accounts))
        for number in range(2 * count):
            victim = number % 2
            end = cluster.kill_raylet if number % 4 in (1, 2) else cluster.remove_node
            processes = family_of(cluster.raylet_of(node_of(accounts, cluster, victim)).pid)
            back = next_life_plays(accounts, victim)
            delivered = accounts.delivered
            end(node_of(accounts, cluster, victim))
            step_until(accounts, lambda: accounts.delivered > delivered + 20)  # noqa: B023 - the other plays on
            assert not back()
            cluster.add_node()
            step_until(accounts, back)
            wait_until(lambda: not any(is_alive(process) for process in processes))  # noqa: B023
        found = accounts.assert_right()
    soak_report.add(
        "42",
        "a node is removed (all its processes, or its raylet alone), and another one joins",
        2 * count,
        f"0 torn, 0 delivered twice in {found['delivered']} rollouts; {found['lost_rollouts']} lost, counted",
    )


@pytest.fixture
def behind_cable() -> Iterator[NodeBehindCable]:
    """A node whose cable can be pulled, in a cluster with another one."""
    if not can_make_networks():
        pytest.skip("network namespaces may not be made here")
    with (
        NodeBehindCable.on_a_switch() as node,
        SimulatedCluster(1, head_ip=node.head_ip) as cluster,
        connected(cluster),
    ):
        node.start(cluster)
        yield node


def test_row_42_a_network_cut_longer_than_the_heartbeat_is_a_hang(
    behind_cable: NodeBehindCable, tmp_path: Path, soak_report: SoakReport
) -> None:
    """The agent behind the cable is given up; what it played meanwhile is never delivered, and it ends afterwards."""
    accounts = accounts_of(tmp_path, num_agents=2, heartbeat_s=HEARTBEAT_S)
    step_until(accounts, all_play(accounts))
    far = next(
        worker for worker in accounts.collector.health()[:2] if is_among(worker["pid"], behind_cable.processes())
    )
    agent, back = actor_of(far["pid"]), next_life_plays(accounts, far["worker_id"])
    cut_s = 20.0 if SOAK else 2.5 * HEARTBEAT_S
    delivered = accounts.delivered
    behind_cable.pull_cable()
    start = time.monotonic()
    # The other one plays on, also with weights whose copy behind the cable it cannot fetch.
    step_until(accounts, lambda: time.monotonic() > start + cut_s and accounts.delivered > delivered + 10)
    assert is_alive(agent)  # it does not know that it was given up
    behind_cable.plug_in_cable()
    step_until(accounts, back)
    wait_until(lambda: not is_alive(agent), BACK_S)
    found = accounts.assert_right()
    soak_report.add(
        "42",
        f"the cable of a node is pulled for {cut_s:g} s (network namespace), heartbeat {HEARTBEAT_S:g} s",
        1,
        f"the others play on; replaced; 0 torn, 0 delivered twice in {found['delivered']} rollouts",
    )


def test_row_42_a_network_cut_shorter_than_the_heartbeat_costs_nothing(
    behind_cable: NodeBehindCable, tmp_path: Path, soak_report: SoakReport
) -> None:
    """Answers, grants and weights that were lost on the way are sent again; nobody is replaced, no rollout is lost."""
    accounts = accounts_of(tmp_path, num_agents=2, schedule="sync")
    for _ in range(10):
        accounts.step()
    cut_s, seconds = 20.0 if SOAK else 8.0, 0.0
    for _ in range(3 if SOAK else 1):
        behind_cable.pull_cable()
        healed = threading.Timer(cut_s, behind_cable.plug_in_cable)
        healed.start()
        start = time.monotonic()
        accounts.step()
        seconds = max(seconds, time.monotonic() - start)
        healed.join()
        for _ in range(20):
            accounts.step()
    assert seconds > 0.5 * cut_s  # it was cut off
    assert {incarnation for _, incarnation in accounts.lives()} == {0}
    found = accounts.assert_right()
    assert (found["restarts"], found["lost_rollouts"], found["lost_by_the_workers_count"]) == (0, 0, 0)
    soak_report.add(
        "42",
        f"the cable of a node is pulled for {cut_s:g} s (network namespace), heartbeat {BACK_S:g} s",
        3 if SOAK else 1,
        f"nobody replaced, nothing lost in {found['delivered']} rollouts",
    )


def test_row_42_a_full_object_store_slows_and_loses_nothing(tmp_path: Path, soak_report: SoakReport) -> None:
    """Other objects hold twice the room that there is: Ray moves them to the disk, rollouts wait for their turn."""
    with SimulatedCluster(1) as cluster, connected(cluster):
        accounts = accounts_of(tmp_path, num_agents=1, games_per_worker=1024, plies_per_rollout=32)  # 2 MB and more
        step_until(accounts, all_play(accounts))
        fillers = [
            ray.remote(num_cpus=0)(Filler)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote()
            for node in ray.nodes()  # the learner's, where rollouts arrive, and the agent's
        ]
        ray.get([filler.fill.remote(160 * MIB) for filler in fillers], timeout=BACK_S)
        for _ in range(50 if SOAK else 10):
            accounts.step()
        for filler in fillers:
            ray.kill(filler)
        found = accounts.assert_right()
    assert (found["restarts"], found["lost_rollouts"]) == (0, 0)
    soak_report.add(
        "42",
        "the object stores of all nodes hold twice their room of other objects",
        1,
        f"goes on; 0 torn, 0 lost in {found['delivered']} rollouts of 2 MB",
    )


class Filler:
    """Another program's actor, which keeps objects."""

    def fill(self, num_bytes: int) -> None:
        self.kept = [ray.put(np.ones(8 * MIB, np.uint8)) for _ in range(num_bytes // (8 * MIB))]


def test_row_42_clocks_of_nodes_do_not_matter(tmp_path: Path, soak_report: SoakReport) -> None:
    """Agents' and workers' are wrong by up to a day and run wrongly; the learner's jumps further than the heartbeat."""
    with (
        SimulatedCluster(2) as cluster,
        connected(cluster, runtime_env={"worker_process_setup_hook": "rollout_accounts.set_clock_wrong"}),
        pytest.MonkeyPatch.context() as patch,
    ):
        accounts = accounts_of(tmp_path, num_agents=2, clock_offset_s=86400.0)
        step_until(accounts, all_play(accounts))
        true_time = time.time
        for jump_s in (3600.0, -3600.0, 0.0):
            patch.setattr(time, "time", lambda: true_time() + jump_s)  # noqa: B023
            end = time.monotonic() + HEARTBEAT_S
            step_until(accounts, lambda: time.monotonic() > end)  # noqa: B023
        ages = [worker["last_sign_of_life_s"] for worker in accounts.collector.health()]
        found = accounts.assert_right()
    assert (found["restarts"], found["lost_rollouts"]) == (0, 0)
    assert all(0 <= age < 60 for age in ages)
    soak_report.add(
        "42",
        "clocks of agents and workers wrong by up to a day, the learner's jumps an hour",
        1,
        f"no restart, nothing lost in {found['delivered']} rollouts",
    )


DRIVER = """
import sys
from pathlib import Path

import ray
from rollout_accounts import RolloutAccounts

address, folder, standbys = sys.argv[1] or None, Path(sys.argv[2]), sys.argv[3] == "True"
accounts = RolloutAccounts.of(
    folder, mode="ray", ray_address=address, num_agents=2, games_per_worker=4, plies_per_rollout=8, step_s=0.01,
    schedule="async", max_policy_lag=1_000_000, start_timeout_s=3600, standby_agents=standbys,
)
while len({arrival.worker_id for arrival in accounts.arrivals}) < 2:
    accounts.step()
print(*(worker["pid"] for worker in accounts.collector.health()), flush=True)
while True:
    accounts.step()
"""


def processes_of_a_killed_driver(
    folder: Path, cluster: SimulatedCluster | None, *, standbys: bool
) -> tuple[list[psutil.Process], float]:
    """Start a driver, kill it when its agents play; find its workers, agents and standbys, and all of its own cluster.

    Returns:
        The processes, and when the driver was killed.
    """
    driver = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", DRIVER, cluster.address if cluster else "", str(folder), str(standbys)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    with driver:
        assert driver.stdout is not None
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(pids) == 4  # two workers, two agents
        roots = [driver.pid] if cluster is None else [cluster.raylet_of(node).pid for node in cluster.nodes]
        wait_until(lambda: len(actors_of(roots)) == (4 if standbys else 2), BACK_S)
        processes = (
            family_of(driver.pid)[1:] if cluster is None else [*actors_of(roots), *map(psutil.Process, pids[:2])]
        )
        assert {process.pid for process in processes} >= set(pids)
        driver.send_signal(signal.SIGKILL)
        return processes, time.monotonic()


def actors_of(roots: list[int]) -> list[psutil.Process]:
    """Agents and standbys among the descendants of some processes."""
    found = []
    for process in itertools.chain.from_iterable(family_of(root) for root in roots):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::AgentActor"):
                found.append(process)
    return found


@pytest.mark.parametrize("standbys", [False, True], ids=["", "with standbys"])
@pytest.mark.parametrize("is_local", [False, True], ids=["cluster of others", "cluster of its own"])
def test_row_42_nothing_of_a_killed_driver_is_left(
    is_local: bool, standbys: bool, tmp_path: Path, soak_report: SoakReport
) -> None:
    """Nor what was reserved for its agents: the nodes have room for those of one driver."""
    count = 10 if SOAK else 1 + (standbys and not is_local)
    seconds = []
    with contextlib.ExitStack() as stack:
        cluster = None if is_local else stack.enter_context(SimulatedCluster(2))
        for _ in range(count):
            processes, killed_at = processes_of_a_killed_driver(tmp_path, cluster, standbys=standbys)
            wait_until(lambda: not any(is_alive(process) for process in processes), BACK_S)  # noqa: B023
            seconds.append(time.monotonic() - killed_at)
            assert_within(10.0, seconds[-1])
        if cluster is not None:
            assert all(is_alive(cluster.raylet_of(node)) for node in cluster.nodes)  # they are not ours
    soak_report.add(
        "42",
        f"driver SIGKILLed, 2 agents {'with standbys ' if standbys else ''}on a "
        f"{'local cluster' if is_local else 'cluster of others'}",
        count,
        f"no process left after {max(seconds):.1f} s at most",
    )


def is_among(pid: int, processes: list[psutil.Process]) -> bool:
    return pid in {process.pid for process in processes}
