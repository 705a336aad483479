"""What an evaluator said of positions: one that comes again, by another order of moves, is not asked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["CachedEvaluator", "Evaluate"]

Evaluate = Callable[[NDArray[np.uint8], NDArray[np.uint8]], tuple[NDArray[np.floating], NDArray[np.floating]]]
"""``evaluate(observation, legal) -> (log_priors, values)``: observations uint8 [n, ...] and packed legal moves uint8
[n, ceil(A / 8)] to log-probabilities of the legal moves [number of them], row after row by their labels, and values [n]
of the mover, from -1 to 1."""


class CachedEvaluator:
    """Asks an evaluator once for each position.

    Args:
        evaluate: what it asks.
        max_positions: when there are so many, all are forgotten.

    Attributes:
        asked: positions that the evaluator was asked for.
        found: positions that were known.
    """

    def __init__(self, evaluate: Evaluate, max_positions: int) -> None:
        self._evaluate, self._max_positions = evaluate, max_positions
        self._known: dict[int, tuple[NDArray[np.floating], float]] = {}
        self.asked, self.found = 0, 0

    def __call__(
        self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], keys: Sequence[int]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Evaluate positions; see :data:`Evaluate`.

        Args:
            observation: of n positions.
            legal: likewise.
            keys: hashes of 64 bits of what the evaluator sees, n; the same one means the same position.
        """
        if len(self._known) > self._max_positions:
            self._known.clear()
        first: dict[int, int] = {}
        for row, key in enumerate(keys):
            if key not in self._known:
                first.setdefault(key, row)
        rows = list(first.values())
        if rows:
            log_priors, values = self._evaluate(observation[rows], legal[rows])
            ends = np.cumsum(np.count_nonzero(np.unpackbits(legal[rows], axis=1).view(np.bool_), axis=1)).tolist()
            for row, start, end, value in zip(rows, [0, *ends], ends, values.tolist(), strict=False):
                self._known[keys[row]] = log_priors[start:end], value
        self.asked += len(rows)
        self.found += len(keys) - len(rows)
        if len(rows) == len(keys):
            return log_priors, values
        answers = [self._known[key] for key in keys]
        return np.concatenate([priors for priors, _ in answers]), np.array([value for _, value in answers])
