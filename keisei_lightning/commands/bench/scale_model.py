"""A model of scale: what a cluster of self-play nodes collects, moves and learns, from rates that were measured.

Nodes play, learner ranks learn. An iteration is a batch of one rollout from each worker, its PPO passes, and one
publish. In plies, bytes and seconds:

======== ==============================================================================================================
n, N, C  nodes, workers of a node, CPUs of a node
p, e     plies/s of one worker with a CPU of its own; what a node's CPUs play together over C·p
Q        plies/s of all nodes: n·p·min(N, C)·e, where e counts from the second busy CPU on
D, d     plies of an iteration: D = n·N·d, with d plies in a rollout
R, M     learner ranks; machines that they are on, each with a network card and an object store
l, o     plies/s that one rank learns; seconds that an iteration takes beside learning (publish, callbacks)
E, m     passes over a batch; minibatch of a rank, so D·E/(R·m) optimiser steps an iteration
b, w     bytes of a ply, bytes of the weights
B, L     bytes/s of a card in each direction; seconds of one message
S, r     bytes/s through an object store; seconds that the learner takes for each rollout beside its bytes
v        standard deviation over mean of the time in which a node plays an iteration
======== ==============================================================================================================

Seconds of one iteration's parts::

    play      = s·D/Q                        s = 1 + v·√(2·ln n): the slowest of n nodes (bound for n normal times)
    deliver   = D·b/(min(M, n)·B) + L
    take      = D·r/(d·R) + D·b/(M·S)        each rank takes its rollouts, side by side, into its batch
    learn     = D/(R·l) + D·E/(R·m)·a        a = 2·(R-1)/R·w/B' + 2·(R-1)·L': a ring's all-reduce (Patarasuk and Yuan,
                                             2009), through S where all ranks are on one machine, else through B and L
    publish   = o + w/S
    broadcast = star: (n/M)·w/B + L, each node fetches from the learner;
                tree: log₂(n/M + 1)·(w/B + L), nodes that have the weights pass them on

``sync`` collects, learns and publishes in turn, and nothing overlaps::

    plies/s = D/(play + deliver + take + learn + publish + broadcast)      lag = 0

``async`` is a pipeline, as fast as its slowest stage::

    plies/s = min(Q', B·min(M, n)/b, D·B/(c·w), S/(b/M + w/D), D/(take + learn + publish))
    lag     = max(1, K - 1 if the learner is the slowest stage, else 1) + (d·b/B + L + broadcast)·(plies/s)/D

with c copies of the weights that leave a learner's card a publish (star: n/M, tree: at most 2) and K slots a worker: a
worker that waits for a slot gets it as the learner asks for its next batch, and K - 1 batches come before its rollout.
Q' is Q, or where the learner computes on the same CPUs for u seconds a ply Q/(1 + Q·u).

Stored rollouts take K·D·b/M bytes of the memory of each of the learner's machines. What the model leaves out: deaths,
other users of the network, TCP's start-up, and memory bandwidth shared by more workers than were measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

from keisei_lightning.parallel.options import Schedule
from keisei_lightning.system.options import Options, option

__all__ = [
    "LOCAL",
    "MOST_NODES",
    "STAGES",
    "Cluster",
    "Network",
    "Prediction",
    "Rates",
    "ScaleModel",
    "Training",
]

STAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "play": "workers play",
        "deliver": "rollouts enter through the learner's network card",
        "take": "the learner takes rollouts into its batch",
        "learn": "the learner learns",
        "publish": "weights are published, and callbacks run",
        "broadcast": "weights leave through the learner's network card",
        "store": "rollouts and weights pass the learner's object store",
    }
)
"""What may be the slowest part, by name; ``store`` is a stage of ``async`` alone (with ``sync`` it is in ``take``)."""

MOST_NODES: Final = 1_000_000
"""Beyond it no limit is looked for."""

_TREE_CHILDREN: Final = 2


@dataclass(frozen=True, kw_only=True)
class Rates(Options):
    """What was measured of a training.

    Raises:
        ConfigError: with a line for each value that is not legal.
    """

    worker_plies_per_s: float = option(sentence="One worker with a CPU of its own plays (p).", low=1)
    node_efficiency: float = option(
        sentence="What a node with a worker on each CPU plays, over what so many single workers would (e).", above=0
    )
    learner_plies_per_s: float = option(sentence="One learner rank learns, all passes included (l).", low=1)
    overhead_s: float = option(
        sentence="An iteration takes beside playing and learning: the publish and callbacks (o).", low=0
    )
    node_variation: float = option(
        sentence="Standard deviation over mean of the time in which a node plays an iteration (v).", low=0
    )
    bytes_per_ply: float = option(sentence="Of a rollout (b).", above=0)
    weight_bytes: float = option(sentence="Of one set of weights (w).", above=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How it is trained.

    Attributes:
        plies_per_rollout: of all games of one worker (d).
        num_epochs: passes over a batch (E), of as much of it as is learned from.
        minibatch_size: of one rank (m).
        slots_per_worker: rollouts that may be stored for each worker (K).
    """

    plies_per_rollout: int
    num_epochs: float
    minibatch_size: int
    slots_per_worker: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """What lies between nodes and learner.

    Attributes:
        bytes_per_s: of a machine's network card, in each direction (B).
        latency_s: of one message (L).
        store_bytes_per_s: through a machine's object store (S).
        rollout_s: the learner takes for each rollout beside its bytes (r).
        broadcast: ``star``: each node fetches weights from the learner; ``tree``: nodes pass them on.
    """

    bytes_per_s: float
    latency_s: float
    store_bytes_per_s: float
    rollout_s: float
    broadcast: Literal["star", "tree"] = "star"


LOCAL: Final = Network(bytes_per_s=math.inf, latency_s=0.0, store_bytes_per_s=math.inf, rollout_s=0.0)
"""Shared memory: what it costs is in the measured rates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Which machines there are.

    Attributes:
        nodes: that play (n).
        workers_per_node: worker processes of a node (N).
        cpus_per_node: CPUs of a node (C).
        ranks: learner ranks (R), each with devices of its own.
        ranks_per_machine: ranks that share a network card and an object store.
        is_one_machine: its nodes are simulated; they and the learner share ``cpus_per_node`` CPUs.
    """

    nodes: int
    workers_per_node: int
    cpus_per_node: int
    ranks: int = 1
    ranks_per_machine: int = 8
    is_one_machine: bool = False

    @property
    def workers(self) -> int:
        """All workers."""
        return self.nodes * self.workers_per_node

    @property
    def machines(self) -> int:
        """Machines of the learner's ranks (M)."""
        return math.ceil(self.ranks / self.ranks_per_machine)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What the model says of one cluster.

    Attributes:
        plies_per_s: collected and learned.
        slowest: of :data:`STAGES`: where most of the time goes (``sync``), or what bounds the pipeline (``async``).
        learner_share: of the time, in which the learner learns.
        worker_share: of the time, in which a worker that has a CPU plays.
        policy_lag: mean number of versions that a rollout is behind when it is learned from.
        steps_per_publish: optimiser steps from one published version to the next.
        iteration_s: seconds from one publish to the next.
        rollouts_bytes_per_s: into the network card of each of the learner's machines.
        weights_bytes_per_s: out of it.
        store_bytes_per_s: through the object store of each of the learner's machines.
        rollouts_bytes: of stored rollouts, in the memory of each of the learner's machines.
        seconds: of one iteration, by stage.
    """

    plies_per_s: float
    slowest: str
    learner_share: float
    worker_share: float
    policy_lag: float
    steps_per_publish: float
    iteration_s: float
    rollouts_bytes_per_s: float
    weights_bytes_per_s: float
    store_bytes_per_s: float
    rollouts_bytes: float
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleModel:
    """The model of this module's docstring.

    Attributes:
        rates: measured.
        training: how it is trained.
        network: between nodes and learner; :data:`LOCAL`: none.
    """

    rates: Rates
    training: Training
    network: Network

    def predict(self, cluster: Cluster, schedule: Schedule) -> Prediction:
        """What so many nodes and ranks do.

        Args:
            cluster: the machines.
            schedule: of the training.
        """
        plies, seconds = self._plies(cluster), self.seconds(cluster)
        if schedule == "sync":
            slowest = max(seconds, key=seconds.__getitem__)
            rate, lag = plies / sum(seconds.values()), 0.0
        else:
            limits = self.limits(cluster)
            slowest = min(limits, key=limits.__getitem__)
            rate = limits[slowest]
            lag = self._lag(cluster, rate, learner_is_slowest=slowest == "learn")
        machines, rates = cluster.machines, self.rates
        return Prediction(
            plies_per_s=rate,
            slowest=slowest,
            learner_share=rate * seconds["learn"] / plies,
            worker_share=rate / self._played(cluster),
            policy_lag=lag,
            steps_per_publish=self._steps(cluster),
            iteration_s=plies / rate,
            rollouts_bytes_per_s=rate * rates.bytes_per_ply / machines,
            weights_bytes_per_s=rate / plies * self._copies(cluster) * rates.weight_bytes,
            store_bytes_per_s=rate * self._stored_bytes_per_ply(cluster),
            rollouts_bytes=self.training.slots_per_worker * plies * rates.bytes_per_ply / machines,
            seconds=MappingProxyType(seconds),
        )

    def seconds(self, cluster: Cluster) -> dict[str, float]:
        """Seconds of one iteration's parts, by stage, each as if it were alone.

        Args:
            cluster: the machines.
        """
        plies, network, rates = self._plies(cluster), self.network, self.rates
        ranks, machines = cluster.ranks, cluster.machines
        slowest_node = 1 + rates.node_variation * math.sqrt(2 * math.log(cluster.nodes))
        cards = min(machines, cluster.nodes)
        rollouts = plies / self.training.plies_per_rollout
        return {
            "play": slowest_node * plies / self._played(cluster),
            "deliver": plies * rates.bytes_per_ply / (cards * network.bytes_per_s) + network.latency_s,
            "take": (
                rollouts * network.rollout_s / ranks
                + plies * rates.bytes_per_ply / (machines * network.store_bytes_per_s)
            ),
            "learn": (plies / (ranks * rates.learner_plies_per_s) + self._steps(cluster) * self._all_reduce_s(cluster)),
            "publish": rates.overhead_s + rates.weight_bytes / network.store_bytes_per_s,
            "broadcast": self._broadcast_s(cluster),
        }

    def limits(self, cluster: Cluster) -> dict[str, float]:
        """Plies/s that each stage of the pipeline (``async``) could do alone.

        Args:
            cluster: the machines.
        """
        plies, network, rates = self._plies(cluster), self.network, self.rates
        seconds, cards = self.seconds(cluster), min(cluster.machines, cluster.nodes)
        learner_s = (seconds["take"] + seconds["learn"] + seconds["publish"]) / plies
        played = self._played(cluster)
        shared = played if cluster.is_one_machine else 0.0
        weights_bytes = self._copies(cluster) * rates.weight_bytes
        return {
            "play": played / (1 + shared * learner_s),
            "deliver": cards * network.bytes_per_s / rates.bytes_per_ply,
            "broadcast": plies * network.bytes_per_s / weights_bytes,
            "store": network.store_bytes_per_s / self._stored_bytes_per_ply(cluster),
            "learn": 1 / learner_s,
        }

    def nodes_for(self, cluster: Cluster, schedule: Schedule, *, share: float = 0.9) -> int:
        """The smallest number of nodes that collects this share of what :data:`MOST_NODES` would.

        Args:
            cluster: the machines; its own number of nodes does not matter.
            schedule: of the training.
            share: above 0, at most 1.
        """

        def rate(nodes: int) -> float:
            return self.predict(replace(cluster, nodes=nodes), schedule).plies_per_s

        wanted = share * rate(MOST_NODES)
        low, high = 0, MOST_NODES
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if rate(middle) >= wanted else (middle, high)
        return high

    def nodes_that_fit(self, cluster: Cluster, memory_bytes: float) -> int:
        """The largest number of nodes whose rollouts the learner's machines can store; 0: not even one's.

        Args:
            cluster: the machines; its own number of nodes does not matter.
            memory_bytes: that each of the learner's machines has for them.
        """
        each = self.training.slots_per_worker * self._plies(replace(cluster, nodes=1)) * self.rates.bytes_per_ply
        return math.floor(memory_bytes * cluster.machines / each)

    # ---- terms

    def _plies(self, cluster: Cluster) -> int:
        """Of an iteration (D)."""
        return cluster.workers * self.training.plies_per_rollout

    def _played(self, cluster: Cluster) -> float:
        """Plies/s of all nodes, if they do nothing else (Q)."""
        machines = 1 if cluster.is_one_machine else cluster.nodes
        busy = min(cluster.workers // machines, cluster.cpus_per_node)
        efficiency = self.rates.node_efficiency if busy > 1 else 1.0
        return machines * busy * efficiency * self.rates.worker_plies_per_s

    def _steps(self, cluster: Cluster) -> float:
        """Optimiser steps of an iteration."""
        return self._plies(cluster) * self.training.num_epochs / (cluster.ranks * self.training.minibatch_size)

    def _all_reduce_s(self, cluster: Cluster) -> float:
        """Of one optimiser step (a)."""
        ranks, is_local = cluster.ranks, cluster.machines == 1
        bandwidth = self.network.store_bytes_per_s if is_local else self.network.bytes_per_s
        latency = 0.0 if is_local else self.network.latency_s
        return 2 * (ranks - 1) / ranks * self.rates.weight_bytes / bandwidth + 2 * (ranks - 1) * latency

    def _broadcast_s(self, cluster: Cluster) -> float:
        """From a publish until the last node has the weights."""
        nodes, weights_s = cluster.nodes / cluster.machines, self.rates.weight_bytes / self.network.bytes_per_s
        if self.network.broadcast == "star":
            return nodes * weights_s + self.network.latency_s
        return math.log2(nodes + 1) * (weights_s + self.network.latency_s)

    def _copies(self, cluster: Cluster) -> float:
        """Of the weights, that leave the card of each of the learner's machines for one publish (c)."""
        nodes = cluster.nodes / cluster.machines
        return nodes if self.network.broadcast == "star" else min(nodes, _TREE_CHILDREN)

    def _stored_bytes_per_ply(self, cluster: Cluster) -> float:
        """Through the object store of each of the learner's machines, for each ply of all of them."""
        return self.rates.bytes_per_ply / cluster.machines + self.rates.weight_bytes / self._plies(cluster)

    def _lag(self, cluster: Cluster, rate: float, *, learner_is_slowest: bool) -> float:
        waiting = max(1, self.training.slots_per_worker - 1) if learner_is_slowest else 1
        rollout_bytes = self.training.plies_per_rollout * self.rates.bytes_per_ply
        way_s = rollout_bytes / self.network.bytes_per_s + self.network.latency_s + self._broadcast_s(cluster)
        return waiting + way_s * rate / self._plies(cluster)
