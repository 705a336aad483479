"""The worker's side of an opponent pool: which boards meet a snapshot, in which seat, and whose turn it is.

A fixed part of the boards meets snapshots; the learner's seat changes with each game on a board, so that it sits in
each seat half of the time. A board's opponent changes only between games: games that begin during a rollout meet the
snapshot that came with its grant, and those that began earlier go on with theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from keisei_lightning.errors import WeightsError
from keisei_lightning.parallel.acting import PolicyMoves, TensorDictActing, acting_policy
from keisei_lightning.parallel.messages import Opponent
from keisei_lightning.parallel.questions import MoveSource, OpponentSeats
from keisei_lightning.parallel.snapshots import SnapshotMemory
from keisei_lightning.parallel.weights import bind_weights

__all__ = ["OpponentBoards", "OpponentSetup"]

_NOBODY = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class OpponentSetup:
    """What a worker needs to play against snapshots.

    Attributes:
        memory: where they lie.
        share: of the boards that meet one.
    """

    memory: SnapshotMemory
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    version: int
    moves: MoveSource
    own_stream: TensorDictActing | None  # where it does not draw from the common one


class OpponentBoards(OpponentSeats):
    """Who sits opposite the learner on each board.

    Args:
        setup: memory of the snapshots, and the share of boards that meet one.
        structure: of the policy, without its weights.
        num_games: G.
        num_actions: A.
        device: where the policies are to lie.
        generator: what all of them sample with.
    """

    def __init__(
        self,
        setup: OpponentSetup,
        *,
        structure: nn.Module,
        num_games: int,
        num_actions: int,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        self._layout, self._device, self._num_actions = setup.memory.layout, device, num_actions
        self._versions, self._buffers = setup.memory.versions(), setup.memory.buffers()
        self._structure, self._generator = structure, generator
        self._meets_one = np.arange(num_games) < round(setup.share * num_games)
        self._buffer_of = np.full(num_games, _NOBODY, np.int64)
        self._version_of = np.full(num_games, _NOBODY, np.int64)
        self._learner_seat = np.zeros(num_games, np.int8)
        self._begun = np.zeros(num_games, np.int64)
        self._next: Opponent | None = None
        self._loaded: dict[int, _Loaded] = {}
        self._seed = 0
        self.results: dict[int, tuple[int, int, int]] = {}
        """The learner's wins, draws and losses in this rollout, by the opponent's version."""

    def begin_rollout(self, opponent: Opponent | None, seed: int) -> None:
        """Take over whom new games meet, and begin the random streams."""
        self._next, self._seed, self.results = opponent, seed, {}
        for loaded in self._loaded.values():
            self._begin_stream(loaded)

    def _begin_stream(self, loaded: _Loaded) -> None:
        if loaded.own_stream is not None:
            # By version, for the same reason.
            stream = np.random.SeedSequence(self._seed, spawn_key=(loaded.version,))
            loaded.own_stream.manual_seed(int(stream.generate_state(1, np.uint64)[0] >> 1))

    def begin_games(self, indices: NDArray[np.int64]) -> None:
        """Seat learner and opponent on boards where a game begins."""
        self._learner_seat[indices] = (indices + self._begun[indices]) % 2
        self._begun[indices] += 1
        met = indices[self._meets_one[indices]]
        self._buffer_of[met] = _NOBODY if self._next is None else self._next.buffer
        self._version_of[met] = _NOBODY if self._next is None else self._next.version

    def to_move(self, mover: NDArray[np.int8]) -> NDArray[np.bool_]:
        """The boards [G] on which an opponent is to move."""
        result: NDArray[np.bool_] = (self._buffer_of != _NOBODY) & (mover != self._learner_seat)
        return result

    def parts(self, theirs: NDArray[np.bool_]) -> Iterator[tuple[MoveSource, NDArray[np.int64]]]:
        """The snapshots to ask, each with its boards, among those on which an opponent is to move."""
        # In the order of versions, not of buffers: all of them draw from one random stream, and a snapshot may lie
        # elsewhere after a resume.
        for version in np.unique(self._version_of[theirs]).tolist():
            rows = np.flatnonzero(theirs & (self._version_of == version))
            yield self._snapshot(int(self._buffer_of[rows[0]]), version), rows

    def _snapshot(self, buffer: int, version: int) -> MoveSource:
        loaded = self._loaded.get(buffer)
        if loaded is None or loaded.version != version:
            flat = self._buffers[buffer]
            own = flat[self._layout.parameter_bytes :].clone()  # a policy may write to its own buffers
            in_place = self._device.type == "cpu"
            module = copy.deepcopy(self._structure)
            bind_weights(
                module,
                self._layout,
                flat if in_place else flat.to(self._device),
                own.to(self._device),
                buffers_from=self._layout.parameter_bytes,
            )
            policy = acting_policy(module.eval(), num_actions=self._num_actions)
            loaded = _Loaded(
                version=version,
                moves=PolicyMoves(policy, self._device, self._generator),
                own_stream=policy if isinstance(policy, TensorDictActing) else None,
            )
            self._loaded[buffer] = loaded
            self._begin_stream(loaded)
        return loaded.moves

    def count(self, index: int, *, reward: float, mover: int) -> None:
        """Count a finished game.

        Args:
            index: its board.
            reward: of its last ply.
            mover: the seat that made it.
        """
        version = int(self._version_of[index])
        if version == _NOBODY:
            return
        wins, draws, losses = self.results.get(version, (0, 0, 0))
        points = reward if mover == self._learner_seat[index] else -reward
        self.results[version] = (wins + (points > 0), draws + (points == 0), losses + (points < 0))

    @property
    def in_use(self) -> tuple[int, ...]:
        """Buffers that games in flight are played from."""
        return tuple(np.unique(self._buffer_of[self._buffer_of != _NOBODY]).tolist())

    def verify(self) -> None:
        """Check that the snapshots of games in flight are still those that they began with.

        Raises:
            WeightsError: the learner wrote into memory that was in use, which would be a fault of the pool.
        """
        met = self._buffer_of != _NOBODY
        if (self._versions[self._buffer_of[met]] != self._version_of[met]).any():
            raise WeightsError("snapshots: one was overwritten while games were played against it")

    def clear(self) -> None:
        """Forget all games: they begin anew."""
        self._buffer_of[:] = self._version_of[:] = _NOBODY

    def state_dict(self) -> dict[str, Any]:
        """Who sits where, as plain numbers."""
        return {
            "versions": self._version_of.tolist(),
            "learner_seats": self._learner_seat.tolist(),
            "begun": self._begun.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Go on from a :meth:`state_dict`; False (and nothing done) where a snapshot is not there any more."""
        buffers = {int(version): buffer for buffer, version in enumerate(self._versions.tolist()) if version >= 0}
        versions = state["versions"]
        if not set(versions) <= {_NOBODY, *buffers}:
            return False
        self._version_of[:] = versions
        self._buffer_of[:] = [buffers.get(version, _NOBODY) for version in versions]
        self._learner_seat[:], self._begun[:] = state["learner_seats"], state["begun"]
        return True
