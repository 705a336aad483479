"""The learner's part of the opponent pool: snapshots of the policy, other members, who meets whom, and the scores.

Frozen policies lie in shared memory once per machine; workers use them in place. Each grant names the opponent that a
worker's new games meet (:class:`~keisei_lightning.parallel.supervision.messages.Play`), and each header names those
that its games in flight still need. So the learner knows which buffers are not in use: a snapshot that has left the
ring is overwritten only when the last game against it is over.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.parallel.memory.weight_sources import named_weights
from keisei_lightning.parallel.memory.weight_transfer import WeightFetcher
from keisei_lightning.parallel.memory.weights import WeightLayout
from keisei_lightning.parallel.opponents.league import League, guest_version, pinned_version
from keisei_lightning.parallel.opponents.memory import OpponentSetup, SnapshotMemory
from keisei_lightning.parallel.opponents.players import player_id
from keisei_lightning.parallel.opponents.standings import SnapshotStanding, chances, snapshot_name
from keisei_lightning.parallel.options import OpponentOptions
from keisei_lightning.parallel.supervision.messages import Opponent, RolloutHeader

__all__ = ["COUNTED_BY_RANK", "SnapshotPool", "SnapshotStanding"]

COUNTED_BY_RANK = frozenset({"void_games"})
"""Numbers of :meth:`SnapshotPool.summary` that each learner (rank) counts for itself; others are the same on all."""

_SAVED = ("version", "games", "score")  # of a snapshot in a checkpoint; it may get another buffer


class SnapshotPool:
    """The ring of snapshots, and the members of a league that stay beside it.

    Args:
        opponents: share of the games, size of the ring, choice of an opponent; a league names further members.
        layout: of the policy's weights.
        seed: root seed of the draws.
        first_worker: number of this learner's first worker among those of all learners (ranks): each worker has a
            stream of its own. The states are by these numbers.

    Attributes:
        options: of the opponents.
        memory: for the workers.
        postponed: pushes that were postponed because games still needed every buffer.
    """

    def __init__(
        self, opponents: OpponentOptions | League, layout: WeightLayout, seed: int, first_worker: int = 0
    ) -> None:
        self._is_league, self._league = isinstance(opponents, League), League.of(opponents)
        self.options, self.postponed = self._league.options, 0
        self.memory = SnapshotMemory.reserve(layout, self._league.num_buffers)
        self._versions, self._buffers = self.memory.versions.array(), self.memory.buffers()
        self._versions[:] = -1
        self._fetcher = WeightFetcher()
        self._seed, self._first_worker = seed, first_worker
        self._draws: Counter[int] = Counter()  # by worker
        self._ring: deque[SnapshotStanding] = deque()
        self._pinned = self._pin_policies()
        self._players = [
            SnapshotStanding(version=player_id(number), buffer=None, member=player.name)
            for number, player in enumerate(self._league.players)
        ]
        self._guests: dict[int, str] = {}  # by what stands for its version: name of a snapshot of another run
        self._new_results: dict[int, NDArray[np.int64]] = {}  # version: wins, draws, losses of this batch
        self._totals: dict[str, list[int]] = {}  # by member: wins, draws, losses, games without a result
        self._granted: dict[tuple[int, int], int] = {}  # (worker, slot): buffer
        self._in_flight: dict[int, frozenset[int]] = {}  # worker: buffers

    def _pin_policies(self) -> list[SnapshotStanding]:
        """Put the policies that never leave into the last buffers."""
        pinned = []
        for number, member in enumerate(self._league.policies):
            buffer = self.options.num_buffers + number
            self.memory.write(buffer, self._fetcher.on_host(named_weights(member.policy)), -1)
            version = pinned_version(number, self._buffers[buffer])
            self._versions[buffer] = version
            pinned.append(SnapshotStanding(version=version, buffer=buffer, member=member.name))
        return pinned

    @property
    def setup(self) -> OpponentSetup:
        """What the workers need."""
        return OpponentSetup(
            memory=self.memory,
            share=self.options.share,
            players=self._league.players,
            patience_s=self.options.turn_timeout_s,
        )

    @property
    def standings(self) -> list[SnapshotStanding]:
        """The ring, oldest first."""
        return list(self._ring)

    @property
    def members(self) -> list[SnapshotStanding]:
        """All opponents: the ring, oldest first, then the policies and the players of the league."""
        return [*self._ring, *self.staying]

    @property
    def staying(self) -> list[SnapshotStanding]:
        """The policies and the players of the league, which never leave."""
        return [*self._pinned, *self._players]

    @property
    def has_policies(self) -> bool:
        """Whether there is a frozen policy to play against."""
        return bool(self._ring or self._pinned)

    @property
    def score_of_policies(self) -> float:
        """The learner's mean score against all frozen policies of the pool; 1 where there are none."""
        scores = [standing.score for standing in (*self._ring, *self._pinned)]
        return sum(scores) / len(scores) if scores else 1.0

    @property
    def totals(self) -> dict[str, list[int]]:
        """The learner's wins, draws, losses and games without a result against each opponent that it has met, ever."""
        return {name: list(counts) for name, counts in self._totals.items()}

    @torch.no_grad()
    def push(self, policy: nn.Module, version: int) -> bool:
        """Freeze the policy as the newest snapshot.

        Args:
            policy: its present weights are copied.
            version: of these weights; if it is in the ring already, it is not pushed again.

        Returns:
            False if it was postponed: games in flight need every buffer.

        Raises:
            WeightsError: the weights do not fit, or are not finite.
        """
        if any(snapshot.version == version for snapshot in self._ring):
            return True
        return self._enter(self._fetcher.on_host(named_weights(policy)), SnapshotStanding(version=version, buffer=None))

    @torch.no_grad()
    def push_guest(self, name: str, weights: Mapping[str, Any]) -> bool:
        """Take a snapshot of another run into the ring, as the newest one.

        Args:
            name: in tables; different from those of all others.
            weights: all parameters and buffers by name, on the CPU.

        Returns:
            False if it was postponed: games in flight need every buffer.

        Raises:
            WeightsError: the weights do not fit, or are not finite.
        """
        version = guest_version(len(self._guests))
        if not self._enter(weights, SnapshotStanding(version=version, buffer=None, member=name)):
            return False
        self._guests[version] = name
        return True

    def _enter(self, tensors: Mapping[str, Any], standing: SnapshotStanding) -> bool:
        self.memory.layout.check(tensors)
        if (free := self._free_buffer()) is None:
            self.postponed += 1
            return False
        for _ in range(self._num_leaving):
            self._ring.popleft()
        self.memory.write(free, tensors, standing.version)
        standing.buffer = free
        self._ring.append(standing)
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
        return next((buffer for buffer in range(self.options.num_buffers) if buffer not in needed), None)

    def _needed(self) -> set[int]:
        """Buffers that games may still use."""
        return set().union(self._granted.values(), *self._in_flight.values())

    def draw(self, worker_id: int, slot: int) -> Opponent | None:
        """Draw the opponent that a worker's games meet that begin in its next rollout; None while there is none.

        Args:
            worker_id: which worker gets the grant.
            slot: which slot it gets; :meth:`note` ends the reservation when the slot's header has come.
        """
        self._granted.pop((worker_id, slot), None)
        if not (members := self.members):
            return None
        # A stream for each worker: the order of the grants is not the same in every run.
        worker = self._first_worker + worker_id
        key = (worker, self._draws[worker])
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))
        self._draws[worker] += 1
        chosen = members[int(rng.choice(len(members), p=self.probabilities()))]
        if chosen.buffer is not None:
            self._granted[worker_id, slot] = chosen.buffer
        return Opponent(version=chosen.version, buffer=chosen.buffer)

    def probabilities(self) -> NDArray[np.float64]:
        """float64 [number of members]: the probability of each, in the order of :attr:`members`."""
        prioritised, share = self.options.choice == "prioritised", self.options.player_share
        policies = [*self._ring, *self._pinned]
        if share is None or not policies or not self._players:
            return chances([*policies, *self._players], prioritised=prioritised)
        return np.concatenate(
            [
                (1.0 - share) * chances(policies, prioritised=prioritised),
                share * chances(self._players, prioritised=prioritised),
            ]
        )

    def note(self, header: RolloutHeader) -> None:
        """Note the snapshots that a worker's games in flight need, and the results of its finished games.

        The results change no score before :meth:`update_scores`.
        """
        self._granted.pop((header.worker_id, header.slot), None)
        self._in_flight[self._first_worker + header.worker_id] = frozenset(header.opponents_in_use)
        for version, result in header.opponent_results.items():
            self._new_results[version] = self._new_results.get(version, 0) + np.array(result)
        for version, games in header.opponent_voids.items():
            self._count(version, [0, 0, 0, games])

    def _count(self, version: int, counts: Sequence[int]) -> None:
        staying = {each.version: each.name for each in self.staying}
        name = staying.get(version) or self._guests.get(version) or snapshot_name(version)
        self._totals[name] = [old + new for old, new in zip(self._totals.get(name, [0] * 4), counts, strict=True)]

    def update_scores(self) -> None:
        """Update the scores by the results noted since the last call; to be called when a batch is complete.

        A score weighs recent games more, so it depends on their order. Workers' rollouts arrive in any order; the sum
        over a batch is the same in every run.
        """
        for member in self.members:
            if member.version in self._new_results:
                wins, draws, losses = self._new_results[member.version].tolist()
                member.add(wins + 0.5 * draws, wins + draws + losses)
        for version, result in sorted(self._new_results.items()):
            self._count(version, [*result.tolist(), 0])
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
        if self._players:
            out["void_games"] = sum(counts[3] for counts in self._totals.values())
        return out

    def close(self) -> None:
        """Close the shared memory's descriptor."""
        self.memory.shared.close()

    def state_dict(self) -> dict[str, Any]:
        """The state to resume from, as numbers and tensors; the weights are views, which :meth:`push` may overwrite."""
        # The weights of policies that never leave come with the league again.
        leaving = {w: [b for b in buffers if b < self.options.num_buffers] for w, buffers in self._in_flight.items()}
        in_flight = {worker: [int(self._versions[b]) for b in buffers] for worker, buffers in leaving.items()}
        in_ring = {snapshot.buffer for snapshot in self._ring if snapshot.buffer is not None}
        live = sorted(in_ring.union(*leaving.values()))
        return {
            "draws": dict(self._draws),
            "ring": [{name: getattr(snapshot, name) for name in _SAVED} for snapshot in self._ring],
            "in_flight": in_flight,
            "weights": {int(self._versions[buffer]): self._buffers[buffer] for buffer in live},
            **(self._league_state() if self._is_league else {}),
        }

    def _league_state(self) -> dict[str, Any]:
        return {
            "members": {each.name: {"games": each.games, "score": each.score} for each in self.staying},
            "totals": self.totals,
            "guests": dict(self._guests),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a :meth:`state_dict`; where the ring has become smaller, the oldest snapshots leave it.

        Raises:
            ConfigError: the state is of another network.
        """
        self._guests = dict(state.get("guests", {}))
        kept = state["ring"][-self.options.max_snapshots :]
        wanted = [*(entry["version"] for entry in kept), *state["weights"]]
        room = self.options.num_buffers
        places = {version: place for place, version in enumerate(dict.fromkeys(wanted)) if place < room}
        for version, place in places.items():
            weights, size = state["weights"][version], self.memory.layout.num_bytes
            if len(weights) != size:
                raise ConfigError(f"snapshot {version}: has {len(weights)} bytes of weights, must have {size}")
            self._buffers[place].copy_(weights)
            self._versions[place] = version
        self._ring = deque(
            SnapshotStanding(
                buffer=places[entry["version"]],
                member=self._guests.get(entry["version"], ""),
                **{name: entry[name] for name in _SAVED},
            )
            for entry in kept
        )
        for member in self.staying:  # one that is new begins without a score
            for name, value in state.get("members", {}).get(member.name, {}).items():
                setattr(member, name, value)
        self._totals = {name: list(counts) for name, counts in state.get("totals", {}).items()}
        draws = state["draws"]
        # int: by an earlier version, whose streams were others
        self._draws = Counter() if isinstance(draws, int) else Counter(draws)
        self._in_flight = {
            int(worker): frozenset(places[version] for version in versions if version in places)
            for worker, versions in state["in_flight"].items()
        }
