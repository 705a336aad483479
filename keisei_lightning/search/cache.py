"""What an evaluator said of positions: one that comes again, by another order of moves, is not asked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUM_BITS", "CachedEvaluator", "Evaluate"]

Evaluate = Callable[[NDArray[np.uint8], NDArray[np.uint8]], tuple[NDArray[np.floating], NDArray[np.floating]]]
"""``evaluate(observation, legal) -> (log_priors, values)``: observations uint8 [n, ...] and packed legal moves uint8
[n, ceil(A / 8)] to log-probabilities of the legal moves [number of them], row after row by their labels, and values [n]
of the mover, from -1 to 1."""

NUM_BITS: Final = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.int64)
"""Int64 [256]: how many bits of a byte are set."""


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
        self._known: dict[int, tuple[NDArray[np.floating], int, int, float]] = {}
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
        rows, num_new = list(first.values()), len(first)
        self.asked += num_new
        self.found += len(keys) - num_new
        if num_new:
            all_new = num_new == len(keys)
            new_legal = legal if all_new else legal[rows]
            log_priors, values = self._evaluate(observation if all_new else observation[rows], new_legal)
            ends = np.cumsum(NUM_BITS[new_legal].sum(axis=1)).tolist()
            # Where a position's numbers are in these: cutting them out costs more, and few positions come again.
            for key, start, end, value in zip(first, [0, *ends], ends, values.tolist(), strict=False):
                self._known[key] = log_priors, start, end, value
            if all_new:
                return log_priors, values
        answers = [self._known[key] for key in keys]
        return (
            np.concatenate([log_priors[start:end] for log_priors, start, end, _ in answers]),
            np.array([value for *_, value in answers]),
        )
