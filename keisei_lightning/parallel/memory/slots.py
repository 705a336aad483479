"""Slots: the shared memory that rollouts are written to, and who may access which part of it.

One anonymous block of shared memory holds every slot of every worker. Slots with the same index lie side by side over
the workers, so that a batch of one rollout from each worker is a *view*, not a copy::

    index 0: | worker 0 | worker 1 | ... |      each cell: one rollout, [G, T, ...] for each column
    index 1: | worker 0 | worker 1 | ... |

Ownership of a slot changes by small messages only (`messages.py`); :class:`SlotBoard` is the learner's record of the
owners. No flag in the memory itself says who owns a slot, so no fence is needed: whoever has received a message sees
everything that was written before it was sent (the kernel takes the same lock for both, also on processors that reorder
stores). This module knows no processes and no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games import GameSpec
from keisei_lightning.parallel.memory.shared_buffer import LaidOutMemory, aligned

__all__ = ["ColumnKey", "Field", "SlotBoard", "SlotLayout", "SlotState", "Slots"]

ColumnKey = str | tuple[str, ...]
"""Name of a column, as a TensorDict takes it (its ``NestedKey``): ``"action"``, ``("next", "reward")``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One column of a rollout.

    Attributes:
        key: its name in the batch's TensorDict.
        shape: of one ply.
        dtype: NumPy's.
    """

    key: ColumnKey
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ply_bytes(self) -> int:
        """Bytes of one ply."""
        return math.prod(self.shape) * self.dtype.itemsize


def _batch_fields(spec: GameSpec, include_next_observation: bool) -> tuple[Field, ...]:
    def column(key: ColumnKey, dtype: Any, shape: tuple[int, ...] = ()) -> Field:
        return Field(key=key, shape=shape, dtype=np.dtype(dtype))

    fields = [
        column("observation", dtype=np.uint8, shape=spec.observation_shape),
        column("action_mask", dtype=np.uint8, shape=(spec.mask_bytes,)),
        column("action", dtype=np.int64),
        column("action_log_prob", dtype=np.float32),
        column("state_value", dtype=np.float32, shape=(1,)),
        column("mover", dtype=np.int8),
        column("trainable", dtype=np.bool_),
        column(("next", "reward"), dtype=np.float32, shape=(1,)),
        column(("next", "done"), dtype=np.bool_, shape=(1,)),
        column(("next", "terminated"), dtype=np.bool_, shape=(1,)),
        column(("next", "truncated"), dtype=np.bool_, shape=(1,)),
        column(("next", "state_value"), dtype=np.float32, shape=(1,)),
        column(("next", "mover"), dtype=np.int8),
        column(("collector", "traj_ids"), dtype=np.int64),
        column(("collector", "policy_version"), dtype=np.int64),
        column(("collector", "worker_id"), dtype=np.int64),
    ]
    if include_next_observation:
        fields.append(column(("next", "observation"), dtype=np.uint8, shape=spec.observation_shape))
    return tuple(fields)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotLayout:
    """Where the columns of every slot lie.

    Attributes:
        fields: the columns of the batch.
        num_slots: slots of each worker.
        num_workers: W.
        num_games: G, games of each worker.
        num_plies: T, plies of one rollout.
    """

    fields: tuple[Field, ...]
    num_slots: int
    num_workers: int
    num_games: int
    num_plies: int
    _offsets: tuple[int, ...] = field(init=False)
    _index_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        offsets, end = [], 0
        for column in self.fields:
            offsets.append(end)
            block = column.ply_bytes * self.num_workers * self.num_games * self.num_plies
            end += aligned(block)
        object.__setattr__(self, "_offsets", tuple(offsets))
        object.__setattr__(self, "_index_bytes", end)

    @classmethod
    def for_game(
        cls,
        spec: GameSpec,
        *,
        num_slots: int,
        num_workers: int,
        num_games: int,
        num_plies: int,
        include_next_observation: bool = False,
    ) -> SlotLayout:
        """The layout of one game's batches."""
        return cls(
            fields=_batch_fields(spec, include_next_observation),
            num_slots=num_slots,
            num_workers=num_workers,
            num_games=num_games,
            num_plies=num_plies,
        )

    @property
    def bytes_per_ply(self) -> int:
        """Bytes that one ply takes in a slot."""
        return sum(column.ply_bytes for column in self.fields)

    @property
    def plies_per_batch(self) -> int:
        """Plies of one rollout of every worker."""
        return self.num_workers * self.num_games * self.num_plies

    @property
    def num_bytes(self) -> int:
        """Bytes of all slots."""
        return self._index_bytes * self.num_slots

    def views(
        self, memory: NDArray[np.uint8], index: int, worker_id: int | None = None
    ) -> dict[ColumnKey, NDArray[Any]]:
        """The columns of one slot, or of all slots with this index.

        Args:
            memory: uint8 [num_bytes].
            index: slot index, 0 to num_slots - 1.
            worker_id: whose slot; None: all workers' side by side.

        Returns:
            A view for each column: [G, T, ...] for one worker, [W * G, T, ...] for all.
        """
        views = {}
        for column, offset in zip(self.fields, self._offsets, strict=True):
            start = index * self._index_bytes + offset
            games = self.num_games * (self.num_workers if worker_id is None else 1)
            block = column.ply_bytes * games * self.num_plies
            start += 0 if worker_id is None else worker_id * block
            raw = memory[start : start + block]
            views[column.key] = raw.view(column.dtype).reshape(games, self.num_plies, *column.shape)
        return views


@dataclass(frozen=True, kw_only=True, slots=True)
class Slots(LaidOutMemory[SlotLayout]):
    """The slots of all workers: shared memory and its layout."""

    def views(self, index: int, worker_id: int | None = None) -> dict[ColumnKey, NDArray[Any]]:
        """The columns of one slot, or of all slots with this index; see :meth:`SlotLayout.views`."""
        return self.layout.views(self.shared.array(), index, worker_id)

    def close(self) -> None:
        """Close the memory's descriptor (twice is harmless). Views stay valid."""
        self.shared.close()


class SlotState(StrEnum):
    """Who may access a slot."""

    FREE = "free"  # neither
    GRANTED = "granted"  # its worker writes
    READY = "ready"  # announced: it holds a whole rollout, which the learner has not taken yet
    LEASED = "leased"  # the learner reads


_SLOT_TRANSITIONS: Mapping[SlotState, frozenset[SlotState]] = {
    SlotState.FREE: frozenset({SlotState.GRANTED}),
    SlotState.GRANTED: frozenset({SlotState.READY, SlotState.FREE}),
    SlotState.READY: frozenset({SlotState.LEASED, SlotState.FREE}),  # FREE: refused as too old
    SlotState.LEASED: frozenset({SlotState.FREE}),
}


@dataclass(slots=True)
class SlotBoard:
    """The learner's record of all slots' states. It allows the transitions of the table above and no other."""

    num_workers: int
    num_slots: int
    _states: dict[tuple[int, int], SlotState] = field(init=False)

    def __post_init__(self) -> None:
        self._states = {(w, s): SlotState.FREE for w in range(self.num_workers) for s in range(self.num_slots)}

    def state(self, worker_id: int, slot: int) -> SlotState:
        """The state of one slot."""
        return self._states[worker_id, slot]

    def move(self, worker_id: int, slot: int, to: SlotState) -> None:
        """Change the state of one slot.

        Raises:
            RuntimeError: the transition is not in the table: a rollout would be lost, torn or delivered twice.
        """
        state = self._states[worker_id, slot]
        if to not in _SLOT_TRANSITIONS[state]:
            raise RuntimeError(f"slot {slot} of worker {worker_id} cannot go from {state} to {to}")
        self._states[worker_id, slot] = to

    def slots_in(self, state: SlotState, worker_id: int | None = None) -> list[tuple[int, int]]:
        """(worker, slot) of every slot in this state, in order."""
        return [
            key for key, value in self._states.items() if value is state and (worker_id is None or key[0] == worker_id)
        ]
