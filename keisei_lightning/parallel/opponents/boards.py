"""The boards' part of the opponent pool: which boards meet an opponent, in which seat, and which side is to move.

A fixed share of the boards meets opponents; the learner's seat changes with each game on a board, so that it has each
seat half of the time. A board's opponent changes only between games: games that begin during a rollout meet the
opponent that came with its grant, and games that began earlier keep theirs. An opponent is a frozen policy, called by
its version, or a player (:mod:`~keisei_lightning.parallel.opponents.players`). This module knows no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import WeightsError
from keisei_lightning.games.turns import Turn
from keisei_lightning.parallel.memory.fences import memory_fence
from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer
from keisei_lightning.parallel.opponents.players import PlayerMember, PlayerTable, player_id, player_number
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
    """Everything that a worker needs to assign opponents to its boards.

    Attributes:
        versions: of the snapshots.
        share: of the worker's boards that meet an opponent.
        players: opponents that are no frozen policies.
        patience_s: how long they may take for one turn.
    """

    versions: SnapshotVersions
    share: float
    players: tuple[PlayerMember, ...] = ()
    patience_s: float = 0.0

    def boards(self, first: int, num_games: int) -> OpponentBoards:
        """The assignment for ``num_games`` boards from ``first`` on; any split of the boards gives the same total."""
        met = round(self.share * (first + num_games)) - round(self.share * first)
        return OpponentBoards(
            self.versions.array(),
            num_games=num_games,
            num_met=met,
            players=self.players,
            patience_s=self.patience_s,
        )


class OpponentBoards:
    """The learner's opponent on each board.

    Args:
        versions: int64 [number of buffers], the version of the snapshot in each; shared with the learner.
        num_games: G.
        num_met: so many boards, the first ones, meet opponents.
        players: opponents that are no frozen policies.
        patience_s: how long they may take for one turn.
    """

    def __init__(
        self,
        versions: NDArray[np.int64],
        *,
        num_games: int,
        num_met: int,
        players: Sequence[PlayerMember] = (),
        patience_s: float = 0.0,
    ) -> None:
        self._versions = versions
        self._names = [player.name for player in players]
        self._players = PlayerTable(players, patience_s=patience_s)
        self._meets_one = np.arange(num_games) < num_met
        self._buffer_of = np.full(num_games, LEARNER, np.int64)
        self._version_of = np.full(num_games, LEARNER, np.int64)
        self._learner_seat = np.zeros(num_games, np.int8)
        self._begun = np.zeros(num_games, np.int64)
        self._next: Opponent | None = None
        self.results: dict[int, tuple[int, int, int]] = {}
        """The learner's wins, draws and losses in this rollout, by the opponent's version."""
        self.voids: dict[int, int] = {}
        """Games of this rollout that ended without a result, because the opponent had no move; likewise."""

    def begin_rollout(self, opponent: Opponent | None, seed: int = 0) -> None:
        """Set the opponent of games that begin during this rollout, and begin the random streams of the players."""
        self._next, self.results, self.voids = opponent, {}, {}
        self._players.begin_rollout(seed)

    def begin_games(self, indices: NDArray[np.int64]) -> None:
        """Assign seats and opponents on boards where a game begins."""
        self._learner_seat[indices] = (indices + self._begun[indices]) % 2
        self._begun[indices] += 1
        met = indices[self._meets_one[indices]]
        buffer = None if self._next is None else self._next.buffer
        self._buffer_of[met] = LEARNER if buffer is None else buffer
        self._version_of[met] = LEARNER if self._next is None else self._next.version

    def choose(self, opponent: int, turn: Turn, beat: Callable[[], None]) -> NDArray[np.int64] | None:
        """Let the player choose that :meth:`to_move` has named; see :meth:`PlayerTable.choose`.

        After a failure new games on these boards are self-play until the next rollout begins.
        """
        number = player_number(opponent)
        assert number is not None
        actions = self._players.choose(number, turn, beat)
        if actions is None and self._next is not None and self._next.version == opponent:
            self._next = None
        return actions

    def close(self) -> None:
        """End the players' processes; may be repeated."""
        self._players.close()

    def to_move(self, mover: NDArray[np.int8]) -> NDArray[np.int64]:
        """int64 [G]: the opponent that is to move, ``LEARNER`` where the learner is."""
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

    def count_void(self, index: int) -> None:
        """Count a game that ended without a result."""
        version = int(self._version_of[index])
        self.voids[version] = self.voids.get(version, 0) + 1

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
            **({"players": self._names} if self._names else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Resume from a :meth:`state_dict`; returns False, and changes nothing, if an opponent is no longer there."""
        buffers = {int(version): buffer for buffer, version in enumerate(self._versions.tolist()) if version >= 0}
        versions = state["versions"]
        players = map(player_id, range(len(self._names)))
        if state.get("players", []) != self._names or not set(versions) <= {LEARNER, *buffers, *players}:
            return False
        self._version_of[:] = versions
        self._buffer_of[:] = [buffers.get(version, LEARNER) for version in versions]
        self._learner_seat[:], self._begun[:] = state["learner_seats"], state["begun"]
        return True
