"""Softmax over the legal moves of each row, in tensors of fixed shape: what an accelerator wants.

Illegal actions take part in the arithmetic, with probability zero. That costs memory bandwidth, of which an accelerator
has plenty; in return no shape depends on the data, so that the host never waits for a shape, and the computation can be
recorded in a CUDA graph. On a CPU :class:`~keisei_lightning.models.sparse_rows.SparseRows` is quicker.
"""

from __future__ import annotations

import torch
from torch import Tensor

from keisei_lightning.games.protocol import NO_MOVE

__all__ = ["DenseRows"]


class DenseRows:
    """Log-probabilities of R rows of A actions; rows without a legal move sit out.

    Args:
        logits: float [R, A].
        mask: bool [R, A], which actions are legal.
    """

    def __init__(self, logits: Tensor, mask: Tensor) -> None:
        self._mask = mask
        self._is_empty = ~mask.any(-1)
        # Zeros instead of minus infinity in a row without a legal move: its softmax must not be NaN, in neither pass.
        fill = torch.where(self._is_empty, 0.0, -torch.inf).unsqueeze(-1)
        self._log_probs = torch.where(mask, logits.float(), fill).log_softmax(-1)

    def sample(self, uniform: Tensor) -> Tensor:
        """Invert the cumulative distribution in float64.

        Args:
            uniform: float64 [..., R], in [0, 1).

        Returns:
            int64 [..., R]; ``NO_MOVE`` in a row without a legal move, and in one that is no distribution.
        """
        with torch.no_grad():
            cumulative = self._log_probs.double().exp().cumsum(-1)
            total = cumulative[:, -1:].contiguous()
            target = uniform.reshape(-1, uniform.shape[-1]).T * total  # [R, draws]
            place = torch.searchsorted(cumulative, target.contiguous(), right=True)
            # Rounding may put the target on the row's upper edge: take the last action that has a probability.
            last = torch.searchsorted(cumulative, total)
            return self._action(torch.minimum(place, last).T.reshape(uniform.shape), total)

    def _action(self, place: Tensor, probe: Tensor) -> Tensor:
        """int64 [..., R]: a place in the row as an action; ``probe`` float [R, 1] is NaN if it is no distribution."""
        action = place.clamp(max=self._mask.shape[-1] - 1)
        return action.masked_fill(self._is_empty | probe.squeeze(-1).isnan(), NO_MOVE)

    def log_prob(self, action: Tensor) -> Tensor:
        """float32 [..., R] of actions int64 [..., R]; minus infinity, with gradient zero, for an illegal one."""
        num_actions = self._mask.shape[-1]
        place = action.clamp(0, num_actions - 1).reshape(-1, action.shape[-1]).T  # [R, draws]
        is_legal = self._mask.gather(-1, place).T.reshape(action.shape) & (action >= 0) & (action < num_actions)
        log_prob = self._log_probs.gather(-1, place).T.reshape(action.shape)
        return log_prob.masked_fill(~is_legal, -torch.inf).masked_fill(self._is_empty, 0.0)

    def entropy(self) -> Tensor:
        """float32 [R], in nats; 0 in a row without a legal move."""
        # An illegal move, and a probability that underflows to zero, has a log-probability of minus infinity: 0 log 0
        # is 0.
        terms = self._log_probs.exp() * self._log_probs.clamp(min=torch.finfo(torch.float32).min)
        return -terms.sum(-1).masked_fill(self._is_empty, 0.0)

    def mode(self) -> Tensor:
        """int64 [R]: the most probable action, the lowest label among equals; ``NO_MOVE`` as in :meth:`sample`."""
        with torch.no_grad():
            num_actions = self._mask.shape[-1]
            highest = self._log_probs.amax(-1, keepdim=True)
            labels = torch.arange(num_actions, device=self._mask.device)
            best = torch.where((self._log_probs == highest) & self._mask, labels, num_actions).amin(-1)
            return self._action(best, highest)
