"""The learner's part of the opponent pool: frozen snapshots of the policy, their assignment to games, and the scores.

Snapshots lie in shared memory once per machine; workers use them in place. Each grant names the snapshot that a
worker's new games meet (:class:`~keisei_lightning.parallel.supervision.messages.Play`), and each header names those
that its games in flight still need. So the learner knows which buffers are not in use: a snapshot that has left the
ring is overwritten only when the last game against it is over.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
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

_SAVED = ("version", "games", "score")  # of a snapshot in a checkpoint; it may get another buffer


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotMemory:
    """The snapshots' shared memory and its layout. Every worker receives it when it is started.

    Attributes:
        layout: of one set of weights.
        num_buffers: how many sets fit.
        shared: the memory, reserved by :meth:`reserve`: a version for each buffer, then the buffers.
    """

    layout: WeightLayout
    num_buffers: int
    shared: SharedBuffer

    @classmethod
    def reserve(cls, layout: WeightLayout, num_buffers: int) -> SnapshotMemory:
        """Reserve the memory.

        Raises:
            ConfigError: the machine cannot reserve this much.
        """
        head = aligned(8 * num_buffers)
        return cls(layout=layout, num_buffers=num_buffers, shared=SharedBuffer(head + num_buffers * layout.num_bytes))

    @property
    def versions(self) -> SnapshotVersions:
        """The version of the snapshot in each buffer."""
        return SnapshotVersions(shared=self.shared, num_buffers=self.num_buffers)

    @torch.no_grad()
    def write(self, buffer: int, tensors: Mapping[str, Any], version: int) -> None:
        """Write a snapshot into a buffer that no game uses.

        Args:
            buffer: which.
            tensors: all parameters and buffers by name, as the layout has them.
            version: of these weights.
        """
        versions = self.versions.array()
        versions[buffer] = -1
        memory_fence()  # a reader that sees any of the copy sees the -1 too (OpponentBoards.verify)
        for name, view in self.layout.views(self.buffers()[buffer]).items():
            view.copy_(tensors[name])
        memory_fence()
        versions[buffer] = version

    def buffers(self) -> list[Tensor]:
        """uint8 [layout.num_bytes] each."""
        size, start = self.layout.num_bytes, self.shared.num_bytes - self.num_buffers * self.layout.num_bytes
        array = self.shared.array()
        return [torch.from_numpy(array[start + i * size : start + (i + 1) * size]) for i in range(self.num_buffers)]


@dataclass(frozen=True, kw_only=True, slots=True)
class OpponentSetup:
    """Everything that a worker needs to play against snapshots.

    Attributes:
        memory: of the snapshots.
        share: of the boards that meet a snapshot.
    """

    memory: SnapshotMemory
    share: float

    @property
    def seating(self) -> Seating:
        """The part that the boards need."""
        return Seating(versions=self.memory.versions, share=self.share)


@dataclass(kw_only=True, slots=True)
class SnapshotStanding:
    """One snapshot of the ring, and the learner's score against it.

    Attributes:
        version: its policy version.
        buffer: which buffer holds it.
        games: finished games against it.
        score: the learner's points per game, over about the last 200 of them; 0.5 before the first.
    """

    version: int
    buffer: int
    games: int = 0
    score: float = 0.5

    def add(self, points: float, games: int) -> None:
        """Count finished games.

        The score before weighs as many games as it is of (and one more at 0.5, so that a few wins are no certainty),
        at most 200.

        Args:
            points: of the learner in these games.
            games: how many.
        """
        before = min(self.games + 1, _WINDOW_GAMES)
        self.games += games
        self.score += (points / games - self.score) * games / (before + games)


class SnapshotPool:
    """The ring of snapshots.

    Args:
        options: share of the games, size of the ring, choice of a snapshot.
        layout: of the policy's weights.
        seed: root seed of the draws.
        first_worker: number of this learner's first worker among those of all learners (ranks): each worker has a
            stream of its own. The states are by these numbers.

    Attributes:
        memory: for the workers.
        postponed: pushes that were postponed because games still needed every buffer.
    """

    def __init__(self, options: OpponentOptions, layout: WeightLayout, seed: int, first_worker: int = 0) -> None:
        self.options, self.postponed = options, 0
        self.memory = SnapshotMemory.reserve(layout, options.num_buffers)
        self._versions, self._buffers = self.memory.versions.array(), self.memory.buffers()
        self._versions[:] = -1
        self._fetcher = WeightFetcher()
        self._seed, self._first_worker = seed, first_worker
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
            version: of these weights; if it is the newest snapshot already, it is not pushed again.

        Returns:
            False if it was postponed: games in flight need every buffer.

        Raises:
            WeightsError: the weights do not fit, or are not finite.
        """
        if self._ring and self._ring[-1].version == version:
            return True
        tensors = self._fetcher.on_host(named_weights(policy))
        self.memory.layout.check(tensors)
        if (free := self._free_buffer()) is None:
            self.postponed += 1
            return False
        for _ in range(self._num_leaving):
            self._ring.popleft()
        self.memory.write(free, tensors, version)
        self._ring.append(SnapshotStanding(version=version, buffer=free))
        return True

    @property
    def has_room(self) -> bool:
        """Whether a push would not be postponed now."""
        return self._free_buffer() is not None

    @property
    def _num_leaving(self) -> int:
        """Snapshots that leave the ring when one is pushed; not above 0 where there is a place for it."""
        return len(self._ring) - self.options.max_snapshots + 1

    def _free_buffer(self) -> int | None:
        """A buffer for the next snapshot; None: games in flight need every one."""
        needed = self._needed() | {snapshot.buffer for snapshot in list(self._ring)[max(0, self._num_leaving) :]}
        return next((buffer for buffer in range(len(self._buffers)) if buffer not in needed), None)

    def _needed(self) -> set[int]:
        """Buffers that games may still use."""
        return set().union(self._granted.values(), *self._in_flight.values())

    def draw(self, worker_id: int, slot: int) -> Opponent | None:
        """Draw the snapshot that a worker's games meet that begin in its next rollout; None while there is none.

        Args:
            worker_id: which worker gets the grant.
            slot: which slot it gets; :meth:`note` ends the reservation when the slot's header has come.
        """
        self._granted.pop((worker_id, slot), None)
        if not self._ring:
            return None
        # A stream for each worker: the order of the grants is not the same in every run.
        worker = self._first_worker + worker_id
        key = (worker, self._draws[worker])
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))
        self._draws[worker] += 1
        chosen = self._ring[int(rng.choice(len(self._ring), p=self.probabilities()))]
        self._granted[worker_id, slot] = chosen.buffer
        return Opponent(version=chosen.version, buffer=chosen.buffer)

    def probabilities(self) -> NDArray[np.float64]:
        """The probability of each snapshot of the ring: [number of snapshots], oldest first."""
        weights = np.ones(len(self._ring))
        if self.options.choice == "prioritised":
            hardness = np.array([1.0 - snapshot.score for snapshot in self._ring]) ** _HARD_EXPONENT
            weights = weights if hardness.sum() < _NO_WEIGHT else hardness
        shares: NDArray[np.float64] = weights / weights.sum()
        return shares

    def note(self, header: RolloutHeader) -> None:
        """Note the snapshots that a worker's games in flight need, and the results of its finished games.

        The results change no score before :meth:`update_scores`.
        """
        self._granted.pop((header.worker_id, header.slot), None)
        self._in_flight[self._first_worker + header.worker_id] = frozenset(header.opponents_in_use)
        for version, result in header.opponent_results.items():
            self._new_results[version] = self._new_results.get(version, 0) + np.array(result)

    def update_scores(self) -> None:
        """Update the scores by the results noted since the last call; to be called when a batch is complete.

        A score weighs recent games more, so it depends on their order. Workers' rollouts arrive in any order; the sum
        over a batch is the same in every run.
        """
        for snapshot in self._ring:
            if snapshot.version in self._new_results:
                wins, draws, losses = self._new_results[snapshot.version].tolist()
                snapshot.add(wins + 0.5 * draws, wins + draws + losses)
        self._new_results.clear()

    def take_results(self) -> dict[int, list[int]]:
        """The results noted since the last update of the scores, which they no longer change.

        Returns:
            Wins, draws and losses by the snapshot's version.
        """
        results = {version: result.tolist() for version, result in self._new_results.items()}
        self._new_results.clear()
        return results

    def add_results(self, results: Mapping[int, Sequence[int]]) -> None:
        """Update the scores by the results of one batch, such as those that :meth:`take_results` returned on all ranks.

        Args:
            results: wins, draws and losses by the snapshot's version.
        """
        for version, result in results.items():
            self._new_results[version] = self._new_results.get(version, 0) + np.array(result)
        self.update_scores()

    def summary(self) -> dict[str, float]:
        """Metrics: snapshots in the ring, postponed pushes, and the learner's score against the ring."""
        out: dict[str, float] = {"snapshots": len(self._ring), "snapshots_postponed": self.postponed}
        if scores := [snapshot.score for snapshot in self._ring if snapshot.games]:
            out |= {"snapshot_score_mean": sum(scores) / len(scores), "snapshot_score_min": min(scores)}
        return out

    def close(self) -> None:
        """Close the shared memory's descriptor."""
        self.memory.shared.close()

    def state_dict(self) -> dict[str, Any]:
        """The state to resume from, as numbers and tensors; the weights are views, which :meth:`push` may overwrite."""
        in_flight = {worker: [int(self._versions[b]) for b in buffers] for worker, buffers in self._in_flight.items()}
        live = sorted({snapshot.buffer for snapshot in self._ring}.union(*self._in_flight.values()))
        return {
            "draws": dict(self._draws),
            "ring": [{name: getattr(snapshot, name) for name in _SAVED} for snapshot in self._ring],
            "in_flight": in_flight,
            "weights": {int(self._versions[buffer]): self._buffers[buffer] for buffer in live},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a :meth:`state_dict`; where the ring has become smaller, the oldest snapshots leave it.

        Raises:
            ConfigError: the state is of another network.
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
            SnapshotStanding(buffer=places[entry["version"]], **{name: entry[name] for name in _SAVED})
            for entry in kept
        )
        draws = state["draws"]
        # int: by an earlier version, whose streams were others
        self._draws = Counter() if isinstance(draws, int) else Counter(draws)
        self._in_flight = {
            int(worker): frozenset(places[version] for version in versions if version in places)
            for worker, versions in state["in_flight"].items()
        }
