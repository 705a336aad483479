"""The learner's side of an opponent pool: frozen snapshots of the policy, who meets which, and how it went.

Snapshots lie in shared memory once per machine; workers play straight from there. Which snapshot a worker's new games
meet goes with each grant (:class:`~keisei_lightning.parallel.supervision.messages.Play`), and which ones its games in
flight still need comes back with each header. So the learner knows, without asking, where nobody reads: a snapshot that
has left the ring is overwritten only when the last game against it is over.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.parallel.memory.fences import memory_fence
from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer, aligned
from keisei_lightning.parallel.memory.weight_sources import named_weights
from keisei_lightning.parallel.memory.weight_transfer import WeightFetcher
from keisei_lightning.parallel.memory.weights import WeightLayout
from keisei_lightning.parallel.opponents.boards import Seating, SnapshotVersions
from keisei_lightning.parallel.options import OpponentOptions
from keisei_lightning.parallel.supervision.messages import Opponent, RolloutHeader

__all__ = ["OpponentSetup", "SnapshotMemory", "SnapshotPool", "SnapshotStanding"]

_WINDOW_GAMES = 200
"""The score against a snapshot is a mean over about this many games: the learner changes."""

_HARD_EXPONENT = 2
_NO_WEIGHT = 1e-10  # of all snapshots together: the learner beats every one of them always

_KEPT = ("version", "games", "score")  # of a snapshot in a checkpoint; its place is found anew


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotMemory:
    """Where snapshots lie; it goes to every worker when it is started.

    Attributes:
        layout: of one set of weights.
        num_buffers: how many sets there is room for.
        shared: the memory, made by :meth:`reserve`: a version for each buffer, then the buffers.
    """

    layout: WeightLayout
    num_buffers: int
    shared: SharedBuffer

    @classmethod
    def reserve(cls, layout: WeightLayout, num_buffers: int) -> SnapshotMemory:
        """Reserve the memory.

        Raises:
            ConfigError: the machine has not so much.
        """
        head = aligned(8 * num_buffers)
        return cls(layout=layout, num_buffers=num_buffers, shared=SharedBuffer(head + num_buffers * layout.num_bytes))

    @property
    def versions(self) -> SnapshotVersions:
        """Which snapshot lies where."""
        return SnapshotVersions(shared=self.shared, num_buffers=self.num_buffers)

    def buffers(self) -> list[Tensor]:
        """uint8 [layout.num_bytes] each."""
        size, start = self.layout.num_bytes, self.shared.num_bytes - self.num_buffers * self.layout.num_bytes
        array = self.shared.array()
        return [torch.from_numpy(array[start + i * size : start + (i + 1) * size]) for i in range(self.num_buffers)]


@dataclass(frozen=True, kw_only=True, slots=True)
class OpponentSetup:
    """What it takes to play against snapshots.

    Attributes:
        memory: where they lie.
        share: of the boards that meet one.
    """

    memory: SnapshotMemory
    share: float

    @property
    def seating(self) -> Seating:
        """The part of it that the boards need."""
        return Seating(versions=self.memory.versions, share=self.share)


@dataclass(kw_only=True, slots=True)
class SnapshotStanding:
    """One snapshot of the ring, and how the learner does against it.

    Attributes:
        version: the policy version that it is.
        buffer: where it lies.
        games: finished against it.
        score: the learner's points per game, over about the last 200 of them; 0.5 before the first.
    """

    version: int
    buffer: int
    games: int = 0
    score: float = 0.5

    def add(self, points: float, games: int) -> None:
        """Count games that brought the learner so many points.

        What was before weighs as its number of games (and one more at 0.5, so that a few wins are no certainty), at
        most 200.
        """
        before = min(self.games + 1, _WINDOW_GAMES)
        self.games += games
        self.score += (points / games - self.score) * games / (before + games)


class SnapshotPool:
    """The ring of snapshots.

    Args:
        options: see there.
        layout: of the policy.
        seed: of the draws.

    Attributes:
        memory: for the workers.
        postponed: pushes that were put off because games still needed every buffer.
    """

    def __init__(self, options: OpponentOptions, layout: WeightLayout, seed: int) -> None:
        self.options, self.postponed = options, 0
        self.memory = SnapshotMemory.reserve(layout, options.num_buffers)
        self._versions, self._buffers = self.memory.versions.array(), self.memory.buffers()
        self._versions[:] = -1
        self._fetcher = WeightFetcher()
        self._seed = seed
        self._draws: Counter[int] = Counter()  # by worker
        self._ring: deque[SnapshotStanding] = deque()
        self._new_results: dict[int, NDArray[np.int64]] = {}  # version: wins, draws, losses of this batch
        self._granted: dict[tuple[int, int], int] = {}  # (worker, slot): buffer
        self._in_flight: dict[int, frozenset[int]] = {}  # worker: buffers

    @property
    def standings(self) -> list[SnapshotStanding]:
        """The ring, oldest first."""
        return list(self._ring)

    @torch.no_grad()
    def push(self, policy: nn.Module, version: int) -> bool:
        """Freeze the policy as the newest snapshot.

        Args:
            policy: its present weights are copied.
            version: that they are published as; a version that is the newest snapshot already is not pushed again.

        Returns:
            False if it was put off: games that are still going on need every buffer.

        Raises:
            WeightsError: the weights do not fit, or are not finite.
        """
        if self._ring and self._ring[-1].version == version:
            return True
        tensors = self._fetcher.on_host(named_weights(policy))
        self.memory.layout.check(tensors)
        leaving = len(self._ring) - self.options.max_snapshots + 1
        needed = self._needed() | {snapshot.buffer for snapshot in list(self._ring)[max(0, leaving) :]}
        free = next((buffer for buffer in range(len(self._buffers)) if buffer not in needed), None)
        if free is None:
            self.postponed += 1
            return False
        for _ in range(leaving):
            self._ring.popleft()
        self._versions[free] = -1
        memory_fence()  # who sees any of the copy sees that it is none (OpponentBoards.verify)
        for name, view in self.memory.layout.views(self._buffers[free]).items():
            view.copy_(tensors[name])
        memory_fence()
        self._versions[free] = version
        self._ring.append(SnapshotStanding(version=version, buffer=free))
        return True

    def _needed(self) -> set[int]:
        """Buffers that games may still be played from."""
        return set().union(self._granted.values(), *self._in_flight.values())

    def draw(self, worker_id: int, slot: int) -> Opponent | None:
        """Choose whom the games that a worker begins in its next rollout meet; None while there is no snapshot.

        Args:
            worker_id: who is granted.
            slot: which slot; the grant is known by it until :meth:`note` hears its header.
        """
        self._granted.pop((worker_id, slot), None)
        if not self._ring:
            return None
        # A stream for each worker: the order in which workers are granted is not the same in every run.
        key = (worker_id, self._draws[worker_id])
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))
        self._draws[worker_id] += 1
        chosen = self._ring[int(rng.choice(len(self._ring), p=self.probabilities()))]
        self._granted[worker_id, slot] = chosen.buffer
        return Opponent(version=chosen.version, buffer=chosen.buffer)

    def probabilities(self) -> NDArray[np.float64]:
        """How likely each snapshot of the ring is to be drawn: [number of snapshots], oldest first."""
        weights = np.ones(len(self._ring))
        if self.options.choice == "prioritised":
            hardness = np.array([1.0 - snapshot.score for snapshot in self._ring]) ** _HARD_EXPONENT
            weights = weights if hardness.sum() < _NO_WEIGHT else hardness
        shares: NDArray[np.float64] = weights / weights.sum()
        return shares

    def note(self, header: RolloutHeader) -> None:
        """Take in which snapshots a worker's games in flight need, and what its finished games came to.

        The latter changes no score before :meth:`update_scores`.
        """
        self._granted.pop((header.worker_id, header.slot), None)
        self._in_flight[header.worker_id] = frozenset(header.opponents_in_use)
        for version, result in header.opponent_results.items():
            self._new_results[version] = self._new_results.get(version, 0) + np.array(result)

    def update_scores(self) -> None:
        """Let the scores follow what was noted since the last call; to be called once a batch is whole.

        A score forgets, so it depends on the order of what it is given. Workers' rollouts arrive in any order; their
        sum is the same in every run.
        """
        for snapshot in self._ring:
            if snapshot.version in self._new_results:
                wins, draws, losses = self._new_results[snapshot.version].tolist()
                snapshot.add(wins + 0.5 * draws, wins + draws + losses)
        self._new_results.clear()

    def summary(self) -> dict[str, float]:
        """Numbers for loggers: snapshots in the ring, pushes put off, and the learner's score against the ring."""
        out: dict[str, float] = {"snapshots": len(self._ring), "snapshots_postponed": self.postponed}
        if scores := [snapshot.score for snapshot in self._ring if snapshot.games]:
            out |= {"snapshot_score_mean": sum(scores) / len(scores), "snapshot_score_min": min(scores)}
        return out

    def close(self) -> None:
        """Give up the shared memory's descriptor."""
        self.memory.shared.close()

    def state_dict(self) -> dict[str, Any]:
        """Numbers and tensors to go on from; the weights are views, which a later :meth:`push` may write to."""
        in_flight = {worker: [int(self._versions[b]) for b in buffers] for worker, buffers in self._in_flight.items()}
        live = sorted({snapshot.buffer for snapshot in self._ring}.union(*self._in_flight.values()))
        return {
            "draws": dict(self._draws),
            "ring": [{name: getattr(snapshot, name) for name in _KEPT} for snapshot in self._ring],
            "in_flight": in_flight,
            "weights": {int(self._versions[buffer]): self._buffers[buffer] for buffer in live},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`; where the ring has become smaller, the oldest snapshots leave it.

        Raises:
            ConfigError: it is of another network.
        """
        kept = state["ring"][-self.options.max_snapshots :]
        wanted = [*(entry["version"] for entry in kept), *state["weights"]]
        places = {version: place for place, version in enumerate(dict.fromkeys(wanted)) if place < len(self._buffers)}
        for version, place in places.items():
            weights, size = state["weights"][version], self.memory.layout.num_bytes
            if len(weights) != size:
                raise ConfigError(f"snapshot {version}: has {len(weights)} bytes of weights, must have {size}")
            self._buffers[place].copy_(weights)
            self._versions[place] = version
        self._ring = deque(
            SnapshotStanding(buffer=places[entry["version"]], **{name: entry[name] for name in _KEPT}) for entry in kept
        )
        draws = state["draws"]
        self._draws = (
            Counter() if isinstance(draws, int) else Counter(draws)
        )  # int: by an earlier version, other streams
        self._in_flight = {
            int(worker): frozenset(places[version] for version in versions if version in places)
            for worker, versions in state["in_flight"].items()
        }
