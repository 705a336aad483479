"""Slots: the shared memory that rollouts are written to, and who may touch which part of it.

One anonymous block of shared memory holds every slot of every worker. Slots with the same index lie side by side over
the workers, so that a batch of one rollout from each worker is a *view*, not a copy::

    index 0: | worker 0 | worker 1 | ... |      each cell: one rollout, [G, T, ...] for each field
    index 1: | worker 0 | worker 1 | ... |

A slot changes hands by small messages only (`messages.py`); :class:`SlotBoard` is the learner's book of who has it.
No flag in the memory itself says whose a slot is, so no fence is needed: what was written before a message was sent is
seen by whoever has received it (the kernel takes the same lock for both, also on processors that reorder stores).
This module knows no processes and no torch.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from multiprocessing import reduction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameSpec
from keisei_lightning.system.machine import available_memory

__all__ = ["Field", "SharedBuffer", "SlotBoard", "SlotLayout", "SlotState"]

_ALIGNMENT = 64  # bytes: a cache line, so that no two fields share one
_LOWER_THESE = "lower parallel.num_workers, games_per_worker, plies_per_rollout or slots_per_worker"

Key = tuple[str, ...]


class SharedBuffer:
    """Anonymous shared memory that can be passed to a child process while it is being started.

    It is a file descriptor and a mapping, without a name: nothing is left in ``/dev/shm`` however the processes end,
    and the size of ``/dev/shm`` (64 MiB in many containers) does not limit it. The memory is freed when the last
    process has let go of it.

    Args:
        num_bytes: size; it is reserved at once, so that a machine without it fails here and not by SIGBUS later.

    Raises:
        ConfigError: the machine cannot reserve this much.
    """

    def __init__(self, num_bytes: int) -> None:
        if num_bytes > (available := available_memory()):  # reserving it would call the out-of-memory killer
            raise ConfigError(
                f"shared memory: {num_bytes / 2**20:.0f} MiB are needed and {available / 2**20:.0f} MiB are available; "
                + _LOWER_THESE
            )
        fd = -1
        try:
            if hasattr(os, "memfd_create"):
                fd = os.memfd_create("keisei", os.MFD_CLOEXEC)
            else:  # macOS: an unlinked file is as anonymous
                with tempfile.TemporaryFile() as file:
                    fd = os.dup(file.fileno())
            os.ftruncate(fd, num_bytes)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, num_bytes)
            self._attach(fd, num_bytes)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            raise ConfigError(
                f"shared memory: {num_bytes / 2**20:.0f} MiB cannot be reserved ({error.strerror}); " + _LOWER_THESE
            ) from error

    def _attach(self, fd: int, num_bytes: int) -> None:
        self._fd = fd
        self.num_bytes = num_bytes
        self._map = mmap.mmap(fd, num_bytes)

    def array(self) -> NDArray[np.uint8]:
        """The whole buffer as uint8 [num_bytes]; it keeps the mapping alive."""
        return np.frombuffer(self._map, dtype=np.uint8)

    def close(self) -> None:
        """Give up the descriptor (twice is harmless). Arrays made from the buffer stay valid."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # DupFd works only while multiprocessing is starting a child, which is the only time we pickle a buffer.
        return _rebuild_shared_buffer, (reduction.DupFd(self._fd), self.num_bytes)


def _rebuild_shared_buffer(duplicated: Any, num_bytes: int) -> SharedBuffer:
    buffer = SharedBuffer.__new__(SharedBuffer)
    buffer._attach(duplicated.detach(), num_bytes)
    buffer.close()  # the mapping is enough: a worker never passes it on
    return buffer


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One column of a rollout.

    Attributes:
        key: where it lies in the TensorDict, such as ``("next", "reward")``.
        shape: of one ply.
        dtype: NumPy's.
    """

    key: Key
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ply_bytes(self) -> int:
        """Bytes of one ply."""
        return math.prod(self.shape) * self.dtype.itemsize


def _batch_fields(spec: GameSpec, include_next_observation: bool) -> tuple[Field, ...]:
    def column(*key: str, dtype: Any, shape: tuple[int, ...] = ()) -> Field:
        return Field(key=key, shape=shape, dtype=np.dtype(dtype))

    fields = [
        column("observation", dtype=np.uint8, shape=spec.observation_shape),
        column("action_mask", dtype=np.uint8, shape=(spec.mask_bytes,)),
        column("action", dtype=np.int64),
        column("action_log_prob", dtype=np.float32),
        column("state_value", dtype=np.float32, shape=(1,)),
        column("mover", dtype=np.int8),
        column("trainable", dtype=np.bool_),
        column("next", "reward", dtype=np.float32, shape=(1,)),
        column("next", "done", dtype=np.bool_, shape=(1,)),
        column("next", "terminated", dtype=np.bool_, shape=(1,)),
        column("next", "truncated", dtype=np.bool_, shape=(1,)),
        column("next", "state_value", dtype=np.float32, shape=(1,)),
        column("next", "mover", dtype=np.int8),
        column("collector", "traj_ids", dtype=np.int64),
        column("collector", "policy_version", dtype=np.int64),
        column("collector", "worker_id", dtype=np.int64),
    ]
    if include_next_observation:
        fields.append(column("next", "observation", dtype=np.uint8, shape=spec.observation_shape))
    return tuple(fields)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotLayout:
    """Where every number of every slot lies.

    Attributes:
        fields: the columns of the batch table.
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
            end += -(-block // _ALIGNMENT) * _ALIGNMENT
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
        """The layout of the batch table for one game."""
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

    def views(self, memory: NDArray[np.uint8], index: int, worker_id: int | None = None) -> dict[Key, NDArray[Any]]:
        """The columns of one slot, or of all slots with this index.

        Args:
            memory: uint8 [num_bytes].
            index: slot index, 0 to num_slots - 1.
            worker_id: whose slot; None: all workers' side by side.

        Returns:
            A view for each column: [G, T, ...] for one worker, [W * G, T, ...] for all.
        """
        out = {}
        for column, offset in zip(self.fields, self._offsets, strict=True):
            start = index * self._index_bytes + offset
            games = self.num_games * (self.num_workers if worker_id is None else 1)
            block = column.ply_bytes * games * self.num_plies
            start += 0 if worker_id is None else worker_id * block
            raw = memory[start : start + block]
            out[column.key] = raw.view(column.dtype).reshape(games, self.num_plies, *column.shape)
        return out


class SlotState(StrEnum):
    """Who may touch a slot."""

    FREE = "free"  # nobody
    GRANTED = "granted"  # its worker writes
    READY = "ready"  # announced: a whole rollout waits for the learner
    LEASED = "leased"  # the learner reads


_SLOT_TRANSITIONS: Mapping[SlotState, frozenset[SlotState]] = {
    SlotState.FREE: frozenset({SlotState.GRANTED}),
    SlotState.GRANTED: frozenset({SlotState.READY, SlotState.FREE}),
    SlotState.READY: frozenset({SlotState.LEASED, SlotState.FREE}),  # FREE: refused as too old
    SlotState.LEASED: frozenset({SlotState.FREE}),
}


@dataclass(slots=True)
class SlotBoard:
    """The learner's book of all slots: exact counts, and no step that the table above does not allow."""

    num_workers: int
    num_slots: int
    _states: dict[tuple[int, int], SlotState] = field(init=False)

    def __post_init__(self) -> None:
        self._states = {(w, s): SlotState.FREE for w in range(self.num_workers) for s in range(self.num_slots)}

    def state(self, worker_id: int, slot: int) -> SlotState:
        """The state of one slot."""
        return self._states[worker_id, slot]

    def move(self, worker_id: int, slot: int, to: SlotState) -> None:
        """Hand a slot over.

        Raises:
            RuntimeError: the step is not in the table: a rollout would be lost, torn or delivered twice.
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
