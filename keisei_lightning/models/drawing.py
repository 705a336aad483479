"""Drawing moves on the CPU, in NumPy: the part of :class:`LegalCategorical` that a player needs.

A player evaluates a few dozen boards at a time. There the fixed cost of fifty small operations of torch exceeds that of
compiled rules; NumPy takes little more than half of the time (docs/results/speed.md, "The compiled kernel").
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from keisei_lightning.games.protocol import NO_MOVE

__all__ = ["draw_moves"]


def draw_moves(
    logits: Tensor, action_mask: Tensor, *, generator: torch.Generator | None = None, greedy: bool = False
) -> tuple[Tensor, Tensor]:
    """Draw one legal move for each row, or take the most probable one; no gradient passes.

    As :class:`~keisei_lightning.models.distribution.LegalCategorical` does, from the same uniform numbers: the draw
    inverts the cumulative distribution in float64.

    Args:
        logits: [B, A], on the CPU.
        action_mask: bool [B, A], or uint8 [B, ceil(A / 8)] in ``np.packbits`` order.
        generator: source of the uniform numbers; the default one where None.
        greedy: the most probable move, the lowest label among equals.

    Returns:
        action int64 [B] and its log-probability float32 [B]. For a row without a legal move these are
        :data:`~keisei_lightning.games.protocol.NO_MOVE` and 0; for a row whose legal logits are no distribution (NaN,
        plus infinity, or minus infinity alone) ``NO_MOVE`` and NaN.
    """
    num_rows, num_actions = logits.shape
    mask = action_mask.numpy()
    if action_mask.dtype == torch.uint8:
        mask = np.unpackbits(mask, axis=1, count=num_actions).view(np.bool_)
    legal = np.flatnonzero(mask)  # row * A + action
    edges = np.searchsorted(legal, np.arange(num_rows + 1) * num_actions)
    counts = np.diff(edges)
    rows = np.flatnonzero(counts)  # nearly always all of them
    starts, ends, counts = edges[rows], edges[rows + 1], counts[rows]
    action, log_prob = np.full(num_rows, NO_MOVE), np.zeros(num_rows, np.float32)
    uniform = None if greedy else torch.rand(num_rows, dtype=torch.float64, generator=generator).numpy()
    if rows.size:
        flat = logits.detach().float().numpy().reshape(-1).take(legal)
        with np.errstate(invalid="ignore"):  # the total of a row that is no distribution is NaN
            highest = np.maximum.reduceat(flat, starts)
            shifted = (flat - np.repeat(highest, counts)).astype(np.float64)
            weights = np.exp(shifted)
            totals = np.add.reduceat(weights, starts)
            if uniform is None:
                best = np.append(np.flatnonzero(shifted == 0), len(shifted) - 1)  # a NaN row has no best move
                place = best.take(np.searchsorted(best, starts))
            else:
                cumulative = np.cumsum(weights)
                target = cumulative[starts] - weights[starts] + uniform[rows] * totals
                place = np.searchsorted(cumulative, target, side="right")
            # Rounding may put the target on the row's upper edge, which belongs to the next row.
            place = np.clip(place, starts, ends - 1)
            log_prob[rows] = shifted[place] - np.log(totals)
        action[rows] = np.where(np.isnan(totals), NO_MOVE, legal[place] - rows * num_actions)
    return torch.from_numpy(action), torch.from_numpy(log_prob)
