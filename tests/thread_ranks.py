"""Learners (ranks) that are threads of one process: what real ones tell each other, without processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["ThreadRank", "on_ranks"]

T = TypeVar("T")
_LONG_S = 120.0  # only ends a test that hangs


class ThreadRank:
    """One of several ranks.

    Args:
        rank: which one.
        board: a place for each rank's word.
        barrier: where all meet.
    """

    def __init__(self, rank: int, board: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, len(board)
        self._board, self._barrier = board, barrier

    def _tell(self, word: Any) -> list[Any]:
        self._board[self.rank] = word
        self._barrier.wait(_LONG_S)
        words = list(self._board)
        self._barrier.wait(_LONG_S)
        return words

    def collect(self, what: str, work: Callable[[], T]) -> list[T]:
        return self._tell(work())

    def collect_at_first(self, value: T) -> list[T]:
        words = self._tell(value)
        return words if self.rank == 0 else []

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            tensor.copy_(torch.stack(self._tell(tensor.clone())).mean(0))

    def copy_first_(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            tensor.copy_(self._tell(tensor.clone())[0])


def on_ranks(number: int, work: Callable[[ThreadRank], T]) -> list[T]:
    """Do something on so many ranks at once; the results in their order."""
    board: list[Any] = [None] * number
    barrier = threading.Barrier(number)
    with ThreadPoolExecutor(number) as pool:
        futures = [pool.submit(work, ThreadRank(rank, board, barrier)) for rank in range(number)]
        return [future.result() for future in futures]
