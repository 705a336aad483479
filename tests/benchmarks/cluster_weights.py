"""Weights to many node agents: one copy in the object store beside a send to each, by bytes moved and milliseconds.

::

    python tests/benchmarks/cluster_weights.py --json weights.json

*Plain actors*: on a simulated cluster, with eight actors that copy what comes into memory of their own, as a node agent
does. *One put*: the bytes are put into the object store once, actors get a reference to them, each node fetches them
once. *A send each*: the bytes are an argument of eight calls. Both for each type and compression that
``mode="ray"`` has. *The real path*: ``update_policy_weights_`` of a collector with eight agents: for how long the
learner is held up, and how long it takes until every agent has them in its workers' memory.

All subjects take turns, round after round; medians are quoted. *MB written* is what all object stores together have
written meanwhile, by their own count. Encoding is in the milliseconds, decoding too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn

sys.path.append(str(Path(__file__).parents[1]))
import simulated_cluster
from simulated_cluster import MIB, SimulatedCluster

from keisei_lightning.commands.bench.report import describe_machine
from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.parallel.cluster.weight_codec import WeightCodec
from keisei_lightning.parallel.memory.weights import WeightLayout, WeightStore

LIMIT_S = 600.0  # only ends what would wait for ever
STORE_BYTES = 400 * MIB
KINDS = [(dtype, compression) for dtype in ("float32", "bfloat16") for compression in ("none", "zstd")]


class Network(nn.Module):
    """As many weights as asked for, of the size that training gives them; a network for tic-tac-toe."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(27, 10)
        self.weights = nn.Parameter(torch.randn(num_bytes // 4) * 0.05)

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.linear(observation.flatten(1).float())
        return out[:, :-1], torch.tanh(out[:, -1:])


class Receiver:
    """What an agent does with weights: decode them into its own memory."""

    def __init__(self, num_bytes: int) -> None:
        self._memory = torch.empty(num_bytes, dtype=torch.uint8)

    def fetch(self, codec: WeightCodec, parcel: list[Any]) -> None:
        """Take weights by reference."""
        import ray

        self.take(codec, ray.get(parcel[0]))

    def take(self, codec: WeightCodec, data: NDArray[np.uint8]) -> None:
        """Take weights that came with the call."""
        self._memory.copy_(codec.decode(data))


def bytes_written(address: str) -> int:
    """What all object stores of the cluster have written since they were started."""
    from ray._private import internal_api

    state = internal_api.get_state_from_address(address)
    return int(internal_api.get_memory_info_reply(state).store_stats.cumulative_created_bytes)


def plain_subjects(policy: nn.Module, num_agents: int) -> dict[str, Callable[[], Any]]:
    """What to time, by name; each returns when all actors have the weights."""
    import ray

    layout = WeightLayout.of(policy)
    store = WeightStore(layout, num_readers=1)
    store.publish(policy, 0)
    receiver = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(Receiver)
    actors = [receiver.remote(layout.num_bytes) for _ in range(num_agents)]
    subjects: dict[str, Callable[[], Any]] = {}
    for dtype, compression in KINDS:
        codec = WeightCodec(layout=layout, dtype=dtype, compression=compression)

        def one_put(codec: WeightCodec = codec) -> None:
            parcel = [ray.put(codec.encode(store.latest))]
            ray.get([actor.fetch.remote(codec, parcel) for actor in actors], timeout=LIMIT_S)

        def a_send_each(codec: WeightCodec = codec) -> None:
            data = codec.encode(store.latest)
            ray.get([actor.take.remote(codec, data) for actor in actors], timeout=LIMIT_S)

        kind = f"{dtype}, {compression}"
        subjects[f"one put, {kind}"], subjects[f"a send each, {kind}"] = one_put, a_send_each
    return subjects


class RealPath:
    """A collector with many agents, which publishes.

    Attributes:
        held_up_ms: for how long the learner was, each time.
    """

    def __init__(self, policy: ActorCritic, num_agents: int, dtype: str, compression: str) -> None:
        self.held_up_ms: list[float] = []
        self._collector = SelfPlayCollector(
            game_factory("tic_tac_toe"),
            policy,
            mode="ray",
            num_agents=num_agents,
            cpus_per_agent=1.0,
            games_per_worker=1,
            plies_per_rollout=2,
            weight_dtype=dtype,
            weight_compression=compression,
        )
        self._collector.next()

    def publish(self) -> None:
        """Publish, and wait until every agent has the weights."""
        start = time.perf_counter()
        self._collector.update_policy_weights_()
        self.held_up_ms.append(1000 * (time.perf_counter() - start))
        session, version = self._collector._session, self._collector.policy_version
        assert session is not None
        fleet = session.backend._fleet  # type: ignore[attr-defined]
        while any(agent.report is None or agent.report.version < version for agent in fleet.agents):
            session.backend.wait(0.0005)
            if time.perf_counter() - start > LIMIT_S:
                raise TimeoutError(f"not all agents had the weights within {LIMIT_S:g} s")

    def close(self) -> None:
        """End the agents."""
        self._collector.shutdown()


def in_turns(subjects: dict[str, Callable[[], Any]], rounds: int, address: str) -> dict[str, dict[str, Any]]:
    """Time all subjects, round after round, after one round that does not count."""
    found: dict[str, dict[str, Any]] = {name: {"ms": [], "written": []} for name in subjects}
    for number in range(rounds + 1):
        for name, subject in subjects.items():
            before = bytes_written(address)
            start = time.perf_counter()
            subject()
            elapsed_ms = 1000 * (time.perf_counter() - start)
            if number:
                found[name]["ms"].append(elapsed_ms)
                found[name]["written"].append(bytes_written(address) - before)
    return found


def measure(arguments: argparse.Namespace, num_nodes: int) -> list[dict[str, Any]]:
    """Rows for a cluster of so many nodes."""
    import ray

    torch.manual_seed(arguments.seed)
    policy = ActorCritic(Network(round(arguments.mb * 1e6)))
    real: dict[str, RealPath] = {}
    with SimulatedCluster(num_nodes, cpus_per_node=2 * arguments.agents, store_bytes=STORE_BYTES) as cluster:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        try:
            if arguments.part != "real":
                found = in_turns(plain_subjects(policy, arguments.agents), arguments.rounds, cluster.address)
            else:
                found = {}
            if arguments.part != "plain":
                for dtype, compression in KINDS:
                    name = f"the real path, {dtype}, {compression}"
                    real[name] = RealPath(policy, arguments.agents, dtype, compression)
                    found |= in_turns({name: real[name].publish}, arguments.rounds, cluster.address)
                    real[name].close()
        finally:
            for path in real.values():
                path.close()
    return [
        {
            "nodes": num_nodes,
            "subject": name,
            "ms": round(statistics.median(one["ms"]), 1),
            "MB written": round(statistics.median(one["written"]) / 1e6, 1),
            "learner held up, ms": round(statistics.median(real[name].held_up_ms), 1) if name in real else None,
            "all ms": [round(ms, 1) for ms in one["ms"]],
        }
        for name, one in found.items()
    ]


def main() -> None:
    """Measure for each number of nodes, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=12.5, help="of weights, in float32 (default: 12.5)")
    parser.add_argument("--agents", type=int, default=8, help="who get them (default: 8)")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 4], help="that they are spread over")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--part", choices=("plain", "real", "both"), default="both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    rows = [row for num_nodes in arguments.nodes for row in measure(arguments, num_nodes)]
    machine = describe_machine()
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    table = Table(title=f"{arguments.mb:g} MB of float32 weights to {arguments.agents} agents")
    columns = [column for column in rows[0] if column != "all ms"]
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    Console(width=120).print(table)
    Console(width=120, highlight=False).print(
        f"{machine['date']}, {machine['processor']}, {machine['cpus']} CPUs, Ray {simulated_cluster.ray.__version__}"
    )


if __name__ == "__main__":
    main()
