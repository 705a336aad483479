"""Softmax over the legal moves of each row, in one flat list of the legal moves alone: what a CPU wants.

Shogi has 2187 action labels and about 80 legal moves, so a dense masked softmax spends nearly all of its time on moves
that cannot happen. The logits of the legal moves of all rows are gathered into one list (the rows lie behind one
another, as in a CSR matrix), whose length depends on the data.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from keisei_lightning.games.protocol import NO_MOVE

__all__ = ["SparseRows"]


class SparseRows:
    """Log-probabilities of R rows of A actions; rows without a legal move sit out.

    Args:
        logits: float [R, A].
        mask: bool [R, A], which actions are legal.
    """

    def __init__(self, logits: Tensor, mask: Tensor) -> None:
        num_rows, self._num_actions = mask.shape
        self._legal = _places(mask)  # row * A + action of each legal move, ascending
        self._row = self._legal.div(max(self._num_actions, 1), rounding_mode="floor")
        self._count = torch.bincount(self._row, minlength=num_rows)
        self._first = torch.arange(num_rows, device=logits.device) * self._num_actions  # of each row's labels
        self._log_probs, self._normalizer = self._log_softmax(logits.reshape(-1).index_select(0, self._legal).float())

    def _reduce(self, data: Tensor, how: str) -> Tensor:
        """float32 [R]: ``"max"`` or ``"sum"`` over each row's part of the flat list."""
        # "unsafe" leaves out a check of the lengths, which hold by construction.
        return torch.segment_reduce(data, how, lengths=self._count, unsafe=True)

    def _log_softmax(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [N], log-softmax within each row; float32 [R], its normaliser, NaN where it is no distribution."""
        highest = self._reduce(logits.detach(), "max")
        shifted = logits - highest.index_select(0, self._row)
        normalizer = self._reduce(shifted.exp(), "sum")
        # A row without a legal move sums to zero; nothing reads its logarithm, but it must not reach the gradient.
        log_normalizer = normalizer.masked_fill(self._count == 0, 1.0).log()
        return shifted - log_normalizer.index_select(0, self._row), normalizer.detach()

    @cached_property
    def _end(self) -> Tensor:
        """int64 [R]: one past each row's last place in the flat list."""
        return self._count.cumsum(0)

    @cached_property
    def _has_no_move(self) -> Tensor:
        """Bool [R]: no move can be drawn, because none is legal or because the row is no distribution."""
        return (self._count == 0) | self._normalizer.isnan()

    def _actions_at(self, place: Tensor) -> Tensor:
        """int64 [..., R]: the actions at places [..., R] of the flat list, each in its own row."""
        if self._legal.numel() == 0:
            action = torch.full_like(place, NO_MOVE)
        else:
            action = self._legal[place.clamp(max=self._legal.numel() - 1)] - self._first
        return action.masked_fill(self._has_no_move, NO_MOVE)

    def sample(self, uniform: Tensor) -> Tensor:
        """Invert the cumulative distribution in float64.

        Args:
            uniform: float64 [..., R], in [0, 1).

        Returns:
            int64 [..., R]; ``NO_MOVE`` in a row without a legal move, and in one that is no distribution.
        """
        with torch.no_grad():
            cumulative = torch.cat([self._log_probs.new_zeros(1).double(), self._log_probs.double().exp().cumsum(0)])
            low, high = cumulative[self._end - self._count], cumulative[self._end]
            place = torch.searchsorted(cumulative[1:], low + uniform * (high - low), right=True)
        # Rounding may put the target on the row's upper edge, which belongs to the next row.
        return self._actions_at(torch.minimum(place, self._end - 1).clamp(min=0))

    def log_prob(self, action: Tensor) -> Tensor:
        """float32 [..., R] of actions int64 [..., R]; minus infinity, with gradient zero, for an illegal one."""
        if self._legal.numel() == 0:
            return torch.zeros(action.shape, device=action.device)
        target = action + self._first
        place = torch.searchsorted(self._legal, target).clamp(max=self._legal.numel() - 1)
        is_legal = (self._legal[place] == target) & (action >= 0) & (action < self._num_actions)
        return self._log_probs[place].masked_fill(~is_legal, -torch.inf).masked_fill(self._count == 0, 0.0)

    def entropy(self) -> Tensor:
        """float32 [R], in nats; 0 in a row without a legal move."""
        log_probs = self._log_probs
        # A probability that underflows to zero may have a log-probability of minus infinity: 0 log 0 is 0.
        terms = log_probs.exp() * log_probs.clamp(min=torch.finfo(torch.float32).min)
        return -self._reduce(terms, "sum")

    def mode(self) -> Tensor:
        """int64 [R]: the most probable action, the lowest label among equals; ``NO_MOVE`` as in :meth:`sample`."""
        with torch.no_grad():
            highest = self._reduce(self._log_probs, "max")
            candidate = (self._log_probs == highest.index_select(0, self._row)).nonzero().squeeze(1)
            rows = torch.arange(self._count.numel(), device=candidate.device)
            first = torch.searchsorted(self._row.index_select(0, candidate), rows)
            if candidate.numel() == 0:
                return self._actions_at(first)
            return self._actions_at(candidate[first.clamp(max=candidate.numel() - 1)])


def _places(mask: Tensor) -> Tensor:
    """int64 [N]: where the flattened mask is true, ascending."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))  # twice as fast as torch's nonzero
    return mask.reshape(-1).nonzero().squeeze(1)
