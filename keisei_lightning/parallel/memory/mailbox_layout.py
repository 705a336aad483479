"""The layout of requests and results in the mailbox's shared memory. This module knows no torch.

For each group of games, all workers' rows side by side::

    | observation | legal | to_move | action | log_prob | value |
     <---- request ---->           <-------- response ------->

A request of all workers is one run of bytes, and so is its result: one transfer each way serves all workers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.parallel.memory.shared_buffer import LaidOutMemory, aligned

__all__ = ["GroupBlock", "GroupColumns", "MailboxColumns", "MailboxLayout", "MailboxMemory"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MailboxLayout:
    """The layout: numbers of the inference process and of the workers, then the groups' columns.

    Attributes:
        num_workers: W.
        group_games: games of each group of one worker.
        observation_shape: of one position.
        mask_bytes: of one position's legal moves.
    """

    num_workers: int
    group_games: tuple[int, ...]
    observation_shape: tuple[int, ...]
    mask_bytes: int

    def _columns(self) -> Iterator[tuple[tuple[int, ...], Any]]:
        workers = self.num_workers
        yield (1 + workers,), np.int64  # the inference process's incarnation; each worker's version
        yield (workers, len(self.group_games)), np.int64  # seeds
        for games in self.group_games:
            yield (workers, games, *self.observation_shape), np.uint8
            yield (workers, games, self.mask_bytes), np.uint8
            yield (workers, games), np.int64
            yield (workers, games), np.int64
            yield (workers, games), np.float32
            yield (workers, games, 1), np.float32

    @property
    def num_bytes(self) -> int:
        """Size of the memory."""
        return sum(aligned(math.prod(shape) * np.dtype(dtype).itemsize) for shape, dtype in self._columns())

    def views(self, memory: NDArray[np.uint8]) -> MailboxColumns:
        """The columns in a memory uint8 [num_bytes]."""
        arrays, start = [], 0
        for shape, dtype in self._columns():
            size = math.prod(shape) * np.dtype(dtype).itemsize
            arrays.append(memory[start : start + size].view(dtype).reshape(shape))
            start += aligned(size)
        width = len(GroupColumns._fields)
        groups = [GroupColumns(*arrays[at : at + width]) for at in range(2, len(arrays), width)]
        return MailboxColumns(numbers=arrays[0], seeds=arrays[1], groups=groups)


MailboxMemory = LaidOutMemory[MailboxLayout]
"""The mailbox's shared memory and its layout."""


class GroupColumns(NamedTuple):
    """Columns of one group of games of all workers: [W, G, ...]."""

    observation: NDArray[np.uint8]
    legal: NDArray[np.uint8]
    to_move: NDArray[np.int64]
    action: NDArray[np.int64]
    log_prob: NDArray[np.float32]
    value: NDArray[np.float32]

    def block(self, memory: NDArray[np.uint8]) -> GroupBlock:
        """A full request and its result, as two runs of bytes of the memory that holds the columns."""
        return GroupBlock(
            request=_run(memory, self.observation, self.legal),
            response=_run(memory, self.action, self.value),
            observation=self.observation.reshape(-1, *self.observation.shape[2:]),
            legal=self.legal.reshape(-1, self.legal.shape[-1]),
            action=self.action.reshape(-1),
            log_prob=self.log_prob.reshape(-1),
            value=self.value.reshape(-1, 1),
        )


def _run(memory: NDArray[np.uint8], first: NDArray[Any], last: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes from the first column to the end of the last one."""
    start = first.ctypes.data - memory.ctypes.data
    return memory[start : last.ctypes.data - memory.ctypes.data + last.nbytes]


class GroupBlock(NamedTuple):
    """The full request of one group, B = W * G positions, and its results.

    Attributes:
        request: uint8, the run of bytes of ``observation`` and ``legal``.
        response: uint8, the run of bytes of ``action``, ``log_prob`` and ``value``.
        observation: uint8 [B, *observation_shape].
        legal: uint8 [B, mask_bytes].
        action: int64 [B].
        log_prob: float32 [B].
        value: float32 [B, 1].
    """

    request: NDArray[np.uint8]
    response: NDArray[np.uint8]
    observation: NDArray[np.uint8]
    legal: NDArray[np.uint8]
    action: NDArray[np.int64]
    log_prob: NDArray[np.float32]
    value: NDArray[np.float32]


class MailboxColumns(NamedTuple):
    """All columns of the memory."""

    numbers: NDArray[np.int64]
    seeds: NDArray[np.int64]
    groups: list[GroupColumns]
