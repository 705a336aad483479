"""The boards' part of the opponent pool: which boards meet a snapshot, in which seat, and which side is to move.

A fixed share of the boards meets snapshots; the learner's seat changes with each game on a board, so that it has each
seat half of the time. A board's opponent changes only between games: games that begin during a rollout meet the
snapshot that came with its grant, and games that began earlier keep theirs. This module knows no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import WeightsError
from keisei_lightning.parallel.memory.fences import memory_fence
from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer
from keisei_lightning.parallel.policy.inference_requests import LEARNER
from keisei_lightning.parallel.supervision.messages import Opponent

__all__ = ["OpponentBoards", "Seating", "SnapshotVersions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotVersions:
    """The version of the snapshot in each buffer, in shared memory.

    Attributes:
        shared: the memory, which begins with the versions.
        num_buffers: how many snapshots there is room for.
    """

    shared: SharedBuffer
    num_buffers: int

    def array(self) -> NDArray[np.int64]:
        """int64 [num_buffers]: the policy version in each buffer, -1 where there is none or it is being written."""
        return self.shared.array()[: 8 * self.num_buffers].view(np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seating:
    """Everything that a worker needs to assign snapshots to its boards.

    Attributes:
        versions: of the snapshots.
        share: of the worker's boards that meet a snapshot.
    """

    versions: SnapshotVersions
    share: float

    def boards(self, first: int, num_games: int) -> OpponentBoards:
        """The assignment for ``num_games`` boards from ``first`` on; any split of the boards gives the same total."""
        met = round(self.share * (first + num_games)) - round(self.share * first)
        return OpponentBoards(self.versions.array(), num_games=num_games, num_met=met)


class OpponentBoards:
    """The learner's opponent on each board.

    Args:
        versions: int64 [number of buffers], the version of the snapshot in each; shared with the learner.
        num_games: G.
        num_met: so many boards, the first ones, meet snapshots.
    """

    def __init__(self, versions: NDArray[np.int64], *, num_games: int, num_met: int) -> None:
        self._versions = versions
        self._meets_one = np.arange(num_games) < num_met
        self._buffer_of = np.full(num_games, LEARNER, np.int64)
        self._version_of = np.full(num_games, LEARNER, np.int64)
        self._learner_seat = np.zeros(num_games, np.int8)
        self._begun = np.zeros(num_games, np.int64)
        self._next: Opponent | None = None
        self.results: dict[int, tuple[int, int, int]] = {}
        """The learner's wins, draws and losses in this rollout, by the opponent's version."""

    def begin_rollout(self, opponent: Opponent | None) -> None:
        """Set the opponent of games that begin during this rollout."""
        self._next, self.results = opponent, {}

    def begin_games(self, indices: NDArray[np.int64]) -> None:
        """Assign seats and opponents on boards where a game begins."""
        self._learner_seat[indices] = (indices + self._begun[indices]) % 2
        self._begun[indices] += 1
        met = indices[self._meets_one[indices]]
        self._buffer_of[met] = LEARNER if self._next is None else self._next.buffer
        self._version_of[met] = LEARNER if self._next is None else self._next.version

    def to_move(self, mover: NDArray[np.int8]) -> NDArray[np.int64]:
        """int64 [G]: the version of the snapshot that is to move, ``LEARNER`` where the learner is."""
        return np.where(mover == self._learner_seat, LEARNER, self._version_of)

    def count(self, index: int, *, reward: float, mover: int) -> None:
        """Count a finished game.

        Args:
            index: its board.
            reward: of its last ply.
            mover: the seat that made it.
        """
        version = int(self._version_of[index])
        if version == LEARNER:
            return
        wins, draws, losses = self.results.get(version, (0, 0, 0))
        points = reward if mover == self._learner_seat[index] else -reward
        self.results[version] = (wins + (points > 0), draws + (points == 0), losses + (points < 0))

    @property
    def in_use(self) -> tuple[int, ...]:
        """Buffers of the snapshots that games in flight meet."""
        return tuple(np.unique(self._buffer_of[self._buffer_of != LEARNER]).tolist())

    def verify(self) -> None:
        """Check that the snapshots of games in flight are still those that they began with.

        Raises:
            WeightsError: the learner wrote into memory that was in use, which would be an error of the pool.
        """
        met = self._buffer_of != LEARNER
        memory_fence()  # between the weights that were read and their version
        if (self._versions[self._buffer_of[met]] != self._version_of[met]).any():
            raise WeightsError("snapshots: one was overwritten while games were played against it")

    def clear(self) -> None:
        """Forget all games: new ones begin."""
        self._buffer_of[:] = self._version_of[:] = LEARNER

    def state_dict(self) -> dict[str, Any]:
        """Seats and opponents, as plain numbers."""
        return {
            "versions": self._version_of.tolist(),
            "learner_seats": self._learner_seat.tolist(),
            "begun": self._begun.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Resume from a :meth:`state_dict`; returns False, and changes nothing, if a snapshot was overwritten since."""
        buffers = {int(version): buffer for buffer, version in enumerate(self._versions.tolist()) if version >= 0}
        versions = state["versions"]
        if not set(versions) <= {LEARNER, *buffers}:
            return False
        self._version_of[:] = versions
        self._buffer_of[:] = [buffers.get(version, LEARNER) for version in versions]
        self._learner_seat[:], self._begun[:] = state["learner_seats"], state["begun"]
        return True
