"""A categorical distribution over the legal moves only.

Shogi has 2187 action labels and about 80 legal moves, so a dense masked softmax spends nearly all of its time on moves
that cannot happen. :class:`LegalCategorical` gathers the logits of the legal moves of all rows into one flat list (the
rows lie behind one another, as in a CSR matrix) and works on that.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from keisei_lightning.games.protocol import NO_MOVE
from keisei_lightning.models.bitmask import unpack_mask

__all__ = ["LegalCategorical"]


class LegalCategorical(Distribution):
    """Softmax of the legal logits of each row; illegal actions have probability zero and gradient zero.

    A row without any legal move (a finished game) does no harm: its sample and its mode are
    :data:`~keisei_lightning.games.protocol.NO_MOVE`, its entropy is 0 and so is its log-probability of every action.

    Args:
        logits: float [*batch, A]; computed in float32 whatever their dtype.
        action_mask: which actions are legal: bool [*batch, A], or uint8 [*batch, ceil(A / 8)] with one bit for each
            action in ``np.packbits`` order.

    Raises:
        ValueError: the shape or dtype of the mask does not fit the logits.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_enumerate_support = False

    def __init__(self, logits: Tensor, action_mask: Tensor) -> None:
        self._num_actions = logits.shape[-1]
        mask = action_mask if action_mask.dtype == torch.bool else unpack_mask(action_mask, self._num_actions)
        if mask.shape != logits.shape:
            raise ValueError(f"action_mask {list(mask.shape)} does not fit logits {list(logits.shape)}")
        super().__init__(logits.shape[:-1], validate_args=False)
        num_rows = math.prod(self.batch_shape)
        self._legal = _places(mask)  # row * A + action of each legal move, ascending
        self._row = self._legal.div(max(self._num_actions, 1), rounding_mode="floor")
        self._count = torch.bincount(self._row, minlength=num_rows)
        self._first = torch.arange(num_rows, device=logits.device) * self._num_actions  # of each row's labels
        self._log_probs = self._log_softmax(logits.reshape(-1).index_select(0, self._legal).float())

    def _reduce(self, data: Tensor, how: str) -> Tensor:
        """float32 [rows]: ``"max"`` or ``"sum"`` over each row's part of the flat list."""
        # "unsafe" leaves out a check of the lengths, which hold by construction: it would make a GPU wait.
        return torch.segment_reduce(data, how, lengths=self._count, unsafe=True)

    def _log_softmax(self, logits: Tensor) -> Tensor:
        """float32 [N]: log-softmax within each row."""
        highest = self._reduce(logits.detach(), "max")
        shifted = logits - highest.index_select(0, self._row)
        normalizer = self._reduce(shifted.exp(), "sum")
        # A row without a legal move sums to zero; nothing reads its logarithm, but it must not reach the gradient.
        log_normalizer = normalizer.masked_fill(self._count == 0, 1.0).log()
        return shifted - log_normalizer.index_select(0, self._row)

    @property
    def support(self) -> constraints.Constraint:
        """Integers from :data:`~keisei_lightning.games.protocol.NO_MOVE` to A - 1."""
        return constraints.integer_interval(NO_MOVE, self._num_actions - 1)

    @cached_property
    def _end(self) -> Tensor:
        """int64 [rows]: one past each row's last place in the flat list."""
        return self._count.cumsum(0)

    def _actions_at(self, place: Tensor) -> Tensor:
        """int64 [..., *batch]: the actions at places [..., rows] of the flat list, each in its own row."""
        if self._legal.numel() == 0:
            action = torch.full_like(place, NO_MOVE)
        else:
            action = self._legal[place.clamp(max=self._legal.numel() - 1)] - self._first
        return action.masked_fill(self._count == 0, NO_MOVE).view(*place.shape[:-1], *self.batch_shape)

    def sample_with(
        self, generator: torch.Generator | None = None, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()
    ) -> Tensor:
        """Draw one action for each row, from one uniform number for each.

        The draw inverts the cumulative distribution in float64, so a row's action depends on its own logits and its own
        uniform number alone (but for rounding at 1e-13).

        Args:
            generator: source of the uniform numbers, on any device; the default one where None.
            sample_shape: shape of independent draws for each row.

        Returns:
            int64 [*sample_shape, *batch].
        """
        device = self._legal.device if generator is None else generator.device
        shape = (*sample_shape, self._count.numel())
        uniform = torch.rand(shape, dtype=torch.float64, generator=generator, device=device)
        with torch.no_grad():
            cumulative = torch.cat([self._log_probs.new_zeros(1).double(), self._log_probs.double().exp().cumsum(0)])
            low, high = cumulative[self._end - self._count], cumulative[self._end]
            target = low + uniform.to(low.device) * (high - low)
            place = torch.searchsorted(cumulative[1:], target, right=True)
        # Rounding may put the target on the row's upper edge, which belongs to the next row.
        return self._actions_at(torch.minimum(place, self._end - 1).clamp(min=0))

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw actions with the default generator: int64 [*sample_shape, *batch]."""
        return self.sample_with(None, sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Logarithm of the probability of actions.

        Args:
            value: int64 [*sample_shape, *batch].

        Returns:
            float32 [*sample_shape, *batch]; minus infinity, with gradient zero, for an illegal action.
        """
        if self._legal.numel() == 0:
            return torch.zeros(value.shape, device=value.device)
        target = value + self._first.view(self.batch_shape)
        place = torch.searchsorted(self._legal, target).clamp(max=self._legal.numel() - 1)
        is_legal = (self._legal[place] == target) & (value >= 0) & (value < self._num_actions)
        log_prob = self._log_probs[place].masked_fill(~is_legal, -torch.inf)
        return log_prob.masked_fill((self._count == 0).view(self.batch_shape), 0.0)

    def entropy(self) -> Tensor:
        """Entropy of each row in nats: float32 [*batch]."""
        log_probs = self._log_probs
        # A probability that underflows to zero may have a log-probability of minus infinity: 0 log 0 is 0.
        terms = log_probs.exp() * log_probs.clamp(min=torch.finfo(torch.float32).min)
        return -self._reduce(terms, "sum").view(self.batch_shape)

    @property
    def mode(self) -> Tensor:
        """int64 [*batch]: the most probable action, the lowest label among equals."""
        with torch.no_grad():
            highest = self._reduce(self._log_probs, "max")
            candidate = (self._log_probs == highest.index_select(0, self._row)).nonzero().squeeze(1)
            rows = torch.arange(self._count.numel(), device=candidate.device)
            first = torch.searchsorted(self._row.index_select(0, candidate), rows)
            if candidate.numel() == 0:
                return self._actions_at(first)
            return self._actions_at(candidate[first.clamp(max=candidate.numel() - 1)])

    @property
    def deterministic_sample(self) -> Tensor:
        """The mode; the name by which TorchRL asks for it."""
        return self.mode


def _places(mask: Tensor) -> Tensor:
    """int64 [N]: where the flattened mask is true, ascending."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))  # twice as fast as torch's nonzero
    return mask.reshape(-1).nonzero().squeeze(1)
