"""Self-play on a Ray cluster whose nodes and agents are killed, beside the same without, in one run.

Twenty minutes of faults in four blocks, a quiet block before each (half an hour in all), and for a first look two::

    python tests/benchmarks/cluster_chaos.py --minutes 20 --every 30 --json chaos.json
    python tests/benchmarks/cluster_chaos.py --minutes 2 --turns 1 --quiet-minutes 1 --every 20

The cluster is simulated on this machine: a head without processors, and nodes with one node agent each. The learner
takes batches as they come (``schedule=async``), checks every number of them and publishes after each. Workers sleep
before every step, so that nodes do not compete for processors, as they would not on machines of their own.

Faults (``--faults``; the default draws from the first two): *agent*: SIGKILL of a node agent, its workers end with it;
*node*: SIGKILL of everything on a node at once, and after ``--away`` seconds a new node joins; *raylet*: SIGKILL of the
node's raylet alone, and a new node; *stop*: everything on a node stands still for ``--length`` seconds, as after a
network cut that stops answers, and then goes on; *partition*: the cable of a node in a network namespace is pulled for
``--length`` seconds (needs the right to make namespaces); *store*: for ``--length`` seconds the object store of a node
is filled with other objects.

*Raw* is the ratio of plies a second, with faults to without. *The agents' own share* leaves out the time for which a
node was not there at all (removed and not yet added again, stopped, cut off): nobody could have played on it. That an
agent starts again, and its workers, is in it. *Recovery*: from the fault until every worker of the agent has delivered
again; for faults that last, from their end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

sys.path.extend([str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "process")])
from rollout_accounts import RolloutAccounts
from simulated_cluster import NodeBehindCable, SimulatedCluster, actor_of, family_of, kill_all

from keisei_lightning.commands.bench.report import describe_machine

FAULTS = ("agent", "node", "raylet", "stop", "partition", "store")
CONSOLE = Console(highlight=False, width=160)


@dataclass(slots=True)
class Fault:
    """One fault: when it was made and was over (monotonic seconds), and whose lives it ended."""

    how: str
    at_s: float
    over_s: float
    lives: list[tuple[int, int]]  # worker, incarnation
    is_away: bool  # whether there was no node to play on meanwhile


@dataclass(slots=True)
class Chaos:
    """Makes faults in a thread, which lives as long as the cluster: nodes end with the thread that has added them.

    Attributes:
        blocks: begin and end of each, and whether it is quiet.
        faults: that were made.
    """

    accounts: RolloutAccounts
    cluster: SimulatedCluster
    cable: NodeBehindCable | None
    arguments: argparse.Namespace
    blocks: list[tuple[float, float, bool]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    error: BaseException | None = None
    is_over: threading.Event = field(default_factory=threading.Event)
    may_end: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Go through all blocks."""
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            self.error = error
        self.is_over.set()
        self.may_end.wait()

    def _run(self) -> None:
        rng = random.Random(self.arguments.seed)
        chaos_s, quiet_s = 60 * self.arguments.minutes / self.arguments.turns, 60 * self.arguments.quiet_minutes
        for _ in range(self.arguments.turns):
            self._pass(quiet_s, quiet=True)
            begin = time.monotonic()
            for number in range(max(1, round(chaos_s / self.arguments.every))):
                self._sleep_until(begin + (number + 0.4 * rng.random()) * self.arguments.every)
                self._make(rng.choice(self.arguments.faults), rng)
            self._sleep_until(begin + chaos_s)
            self._wait_until_all_play()
            self.blocks.append((begin, time.monotonic(), False))

    def _pass(self, seconds: float, *, quiet: bool) -> None:
        begin = time.monotonic()
        self._sleep_until(begin + seconds)
        self.blocks.append((begin, time.monotonic(), quiet))

    @staticmethod
    def _sleep_until(at: float) -> None:
        time.sleep(max(0.0, at - time.monotonic()))

    def _make(self, how: str, rng: random.Random) -> None:
        """Make one fault, on the node of a worker that is running."""
        while not (victims := self._victims(how)):  # all are being replaced
            time.sleep(0.2)
        victim = rng.choice(victims)
        agent = actor_of(victim["pid"])
        lives = [
            (worker["worker_id"], worker["incarnation"])
            for worker in victims
            if agent.pid in {one.pid for one in psutil.Process(worker["pid"]).parents()}
        ]
        fault = Fault(how, time.monotonic(), 0.0, lives, is_away=how in ("node", "raylet", "stop", "partition"))
        {
            "agent": lambda: agent.kill(),
            "node": lambda: self._replace(self.cluster.remove_node, agent),
            "raylet": lambda: self._replace(self.cluster.kill_raylet, agent),
            "stop": lambda: self._stop(agent),
            "partition": self._cut,
            "store": lambda: self._fill_store(agent),
        }[how]()
        fault.over_s = time.monotonic()
        self.faults.append(fault)
        CONSOLE.print(f"{fault.at_s - self.blocks[0][0]:7.1f} s: {how}, workers {[worker for worker, _ in lives]}")

    def _victims(self, how: str) -> list[dict[str, Any]]:
        return [worker for worker in self._health() if worker["state"] == "running" and self._may_suffer(worker, how)]

    def _health(self) -> list[dict[str, Any]]:
        return [worker for worker in self.accounts.collector.health() if worker["pid"] is not None]

    def _may_suffer(self, worker: dict[str, Any], how: str) -> bool:
        """A partition is of the one node with a cable; the others are of nodes that this program has started."""
        behind_cable = {process.pid for process in self.cable.processes()} if self.cable else set()
        try:
            return (actor_of(worker["pid"]).pid in behind_cable) == (how == "partition")
        except (psutil.NoSuchProcess, StopIteration):
            return False  # of the fault before; the learner does not know yet

    def _node_of(self, agent: psutil.Process) -> Any:
        raylets = {self.cluster.raylet_of(node).pid: node for node in self.cluster.nodes}
        return raylets[next(one.pid for one in agent.parents() if one.pid in raylets)]

    def _replace(self, end: Callable[[Any], None], agent: psutil.Process) -> None:
        end(self._node_of(agent))
        time.sleep(self.arguments.away)
        self.cluster.add_node()

    def _stop(self, agent: psutil.Process) -> None:
        family = family_of(self.cluster.raylet_of(self._node_of(agent)).pid)
        kill_all(family, signal.SIGSTOP)
        time.sleep(self.arguments.length)
        kill_all(family, signal.SIGCONT)

    def _cut(self) -> None:
        assert self.cable is not None
        self.cable.pull_cable()
        time.sleep(self.arguments.length)
        self.cable.plug_in_cable()

    def _fill_store(self, agent: psutil.Process) -> None:
        """Keep objects in the node's store, more than it has room for, as another job would."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node_id = self._node_of(agent).node_id
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
        filler = ray.remote(num_cpus=0, scheduling_strategy=strategy)(_Filler).remote()
        ray.get(filler.fill.remote(self.arguments.store_mib * 2**20), timeout=120)
        time.sleep(self.arguments.length)
        ray.kill(filler)

    def _wait_until_all_play(self) -> None:
        """A quiet block begins with all agents at work; the time until then belongs to the faults."""
        deadline = time.monotonic() + 120
        while not all(recovery_s(fault, self.accounts) is not None for fault in self.faults):
            if time.monotonic() > deadline:
                raise TimeoutError("a worker did not come back within two minutes")
            time.sleep(0.1)


class _Filler:
    """An actor that keeps objects."""

    def fill(self, num_bytes: int) -> None:
        """Put so many bytes, in objects of 8 MiB."""
        import ray

        self.kept = [ray.put(np.ones(8 * 2**20, np.uint8)) for _ in range(num_bytes // (8 * 2**20))]


def recovery_s(fault: Fault, accounts: RolloutAccounts) -> float | None:
    """Seconds until all workers that a fault has ended have delivered again; None: they have not.

    A worker whose life the fault did not end (a short cut, a full store) has recovered with its next rollout.
    """
    since = fault.over_s if fault.is_away else fault.at_s
    first: dict[int, float] = {}
    for arrival in accounts.arrivals:
        for worker_id, incarnation in fault.lives:
            goes_on = arrival.incarnation > incarnation or (arrival.at_s > since + 1.0 and fault.how not in ENDING)
            if arrival.worker_id == worker_id and arrival.at_s > fault.at_s and goes_on:
                first.setdefault(worker_id, arrival.at_s)
    return max(0.0, max(first.values()) - since) if len(first) == len(fault.lives) else None


ENDING = ("agent", "node", "raylet")
"""Faults that end the lives of workers."""


def rates(chaos: Chaos, *, quiet: bool) -> list[float]:
    """Plies a second of each block of a kind."""
    arrivals = chaos.accounts.arrivals
    return [
        sum(arrival.plies for arrival in arrivals if begin <= arrival.at_s < end) / (end - begin)
        for begin, end, is_quiet in chaos.blocks
        if is_quiet == quiet
    ]


def presence(chaos: Chaos, num_nodes: int) -> list[float]:
    """The share of each block with faults for which nodes were there to play on."""
    shares = []
    for begin, end, is_quiet in chaos.blocks:
        if not is_quiet:
            away = sum(
                min(fault.over_s, end) - fault.at_s
                for fault in chaos.faults
                if fault.is_away and begin <= fault.at_s < end
            )
            shares.append(1 - away / (num_nodes * (end - begin)))
    return shares


def summarise(chaos: Chaos, summary: dict[str, float]) -> dict[str, Any]:
    """What came of it."""
    arguments = chaos.arguments
    quiet, under_faults = rates(chaos, quiet=True), rates(chaos, quiet=False)
    expected = [statistics.fmean(quiet) * share for share in presence(chaos, arguments.nodes)]
    recoveries = sorted(recovery_s(fault, chaos.accounts) or float("inf") for fault in chaos.faults)
    return {
        "machine": describe_machine(),
        "arguments": {name: value for name, value in vars(arguments).items() if name != "json"},
        "faults": {how: sum(fault.how == how for fault in chaos.faults) for how in arguments.faults},
        **summary,
        "plies_per_s_quiet": [round(rate) for rate in quiet],
        "plies_per_s_chaos": [round(rate) for rate in under_faults],
        "nodes_present": [round(share, 4) for share in presence(chaos, arguments.nodes)],
        "ratio_raw": round(statistics.fmean(under_faults) / statistics.fmean(quiet), 4),
        "ratio_own_share": round(statistics.fmean(under_faults) / statistics.fmean(expected), 4),
        "recovery_s_p50": round(float(np.percentile(recoveries, 50)), 2),
        "recovery_s_p99": round(float(np.percentile(recoveries, 99)), 2),
        "recovery_s_max": round(recoveries[-1], 2),
    }


@contextlib.contextmanager
def cluster_of(arguments: argparse.Namespace) -> Iterator[tuple[SimulatedCluster, NodeBehindCable | None]]:
    """The cluster, and its node behind a cable if a partition is asked for."""
    import ray

    with contextlib.ExitStack() as stack:
        cable = stack.enter_context(NodeBehindCable.on_a_switch()) if "partition" in arguments.faults else None
        cluster = stack.enter_context(
            SimulatedCluster(
                arguments.nodes - (cable is not None),
                cpus_per_node=arguments.workers,
                head_ip=None if cable is None else cable.head_ip,
            )
        )
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        if cable is not None:
            cable.start(cluster)
        yield cluster, cable


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Collect and publish through all blocks."""
    with cluster_of(arguments) as (cluster, cable):
        accounts = RolloutAccounts.of(
            folder,
            mode="ray",
            num_agents=arguments.nodes,
            placement="strict_spread",
            num_workers=arguments.workers,
            games_per_worker=arguments.games,
            plies_per_rollout=arguments.plies,
            step_s=arguments.step_ms / 1000,
            schedule="async",
            max_policy_lag=1_000_000,
            heartbeat_s=arguments.heartbeat,
            start_timeout_s=600.0,
            max_restarts=1_000,
            restart_backoff_s=0.1,
            standby_agents=arguments.standbys,
            seed=arguments.seed,
        )
        chaos = Chaos(accounts, cluster, cable, arguments)
        thread = threading.Thread(target=chaos.run, daemon=True)
        try:
            while len({arrival.worker_id for arrival in accounts.arrivals}) < arguments.nodes * arguments.workers:
                accounts.step()
            thread.start()
            while not chaos.is_over.is_set():
                accounts.step()
            if chaos.error is not None:
                raise chaos.error
            return summarise(chaos, accounts.assert_right())
        finally:
            accounts.collector.shutdown()
            cluster.close()
            chaos.may_end.set()


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="of faults, in all")
    parser.add_argument("--every", type=float, default=30.0, help="seconds for one fault")
    parser.add_argument("--turns", type=int, default=4, help="a quiet block, then one with faults, so often")
    parser.add_argument("--quiet-minutes", type=float, default=2.0, help="length of a quiet block")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=["agent", "node"])
    parser.add_argument("--nodes", type=int, default=3, help="beside the head")
    parser.add_argument("--workers", type=int, default=1, help="of each agent")
    parser.add_argument("--games", type=int, default=32, help="of each worker")
    parser.add_argument("--plies", type=int, default=32, help="of each game in a rollout")
    parser.add_argument("--step-ms", type=float, default=10.0, help="that a worker sleeps before each step")
    parser.add_argument("--heartbeat", type=float, default=5.0, help="heartbeat_s")
    parser.add_argument("--away", type=float, default=5.0, help="seconds until a removed node is replaced")
    parser.add_argument("--length", type=float, default=20.0, help="seconds that stop, partition and store last")
    parser.add_argument("--store-mib", type=int, default=160, help="that other objects ask of a node's store")
    parser.add_argument("--standbys", action="store_true", help="standby_agents")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the result into this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder))
    text = json.dumps(result, indent=1)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    CONSOLE.print_json(text)


if __name__ == "__main__":
    main()
