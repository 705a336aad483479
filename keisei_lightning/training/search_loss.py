r"""What a policy and its values should learn of searches, beside PPO.

With :math:`\pi'` the improved policy that a search found and :math:`v'` the value of its root, the loss of a
position is

.. math:: c_\pi \left( -\sum_a \pi'(a) \log \pi_\theta(a) \right) + c_v (v_\theta - v')^2

References:
    T. Anthony, Z. Tian, D. Barber (2017), "Thinking fast and slow with deep learning and tree search", arXiv:1705.08439
    (expert iteration). I. Danihelka, A. Guez, J. Schrittwieser, D. Silver (2022), "Policy improvement by planning with
    Gumbel", ICLR: the improved policy as the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from keisei_lightning.models.bitmask import unpack_mask
from keisei_lightning.models.transfers import to_device, to_host
from keisei_lightning.training.ranks import ALONE, Ranks

__all__ = ["PLIES", "SEARCHED", "SearchLosses", "SearchMeter", "joined_minibatch", "search_losses"]

PLIES: Final = "plies"
"""Key of a minibatch with searched positions: PPO's own minibatch, TensorDict [b]."""

SEARCHED: Final = "searched"
"""Key of a minibatch with searched positions: TensorDict [m], see :func:`search_losses`."""

_COEFFS: Final = ("policy_coeff", "value_coeff")
_METRICS: Final = ("search_policy_loss", "search_value_loss", "search_agreement")


def joined_minibatch(plies: TensorDict, searched: TensorDict, *, policy_coeff: float, value_coeff: float) -> TensorDict:
    """A minibatch of PPO's and one of searched positions, side by side, with the weights of the latter's losses.

    Args:
        plies: TensorDict [b].
        searched: TensorDict [m].
        policy_coeff: weight of the policy's loss.
        value_coeff: weight of the value's loss.

    Returns:
        TensorDict []: :data:`PLIES`, :data:`SEARCHED`, and both weights, float32 [].
    """
    coeffs = to_device(torch.tensor([policy_coeff, value_coeff]), searched.get("value").device)
    return TensorDict({PLIES: plies, SEARCHED: searched, **dict(zip(_COEFFS, coeffs, strict=True))}, batch_size=[])


@dataclass(frozen=True, slots=True)
class SearchLosses:
    """Of m searched positions, each a mean over them, float32 [].

    Attributes:
        policy: cross-entropy of the network's policy with the searches', not weighted.
        value: squared distance of the network's value from the searches', not weighted.
        agreement: share of the positions in which the network's best move is the searches'.
    """

    policy: Tensor
    value: Tensor
    agreement: Tensor

    def total(self, minibatch: TensorDictBase) -> Tensor:
        """The weighted sum, float32 [].

        Args:
            minibatch: of :func:`joined_minibatch`.
        """
        policy_coeff, value_coeff = (minibatch.get(name) for name in _COEFFS)
        total: Tensor = policy_coeff * self.policy + value_coeff * self.value
        return total


def search_losses(logits: Tensor, value: Tensor, searched: TensorDictBase) -> SearchLosses:
    """How far a network is from what searches found.

    Args:
        logits: float [m, A], the network's.
        value: float [m, 1], the network's, in the mover's view.
        searched: TensorDict [m] with ``action_mask`` uint8 [m, ceil(A / 8)], bit-packed, ``policy`` float32 [m, A],
            which is 0 where a move is not legal, and ``value`` float32 [m, 1].
    """
    legal, target = unpack_mask(searched.get("action_mask"), logits.shape[-1]), searched.get("policy")
    log_probs = logits.float().masked_fill(~legal, -torch.inf).log_softmax(-1)
    cross_entropy = -(target * log_probs.masked_fill(~legal, 0.0)).sum(-1)
    return SearchLosses(
        policy=cross_entropy.mean(),
        value=(value.float() - searched.get("value")).square().mean(),
        agreement=(log_probs.argmax(-1) == target.argmax(-1)).float().mean(),
    )


class SearchMeter:
    """The means of an epoch's search losses, summed up on the device until its end.

    Args:
        device: where they are.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums, self._count = torch.zeros(len(_METRICS), device=device), 0

    @torch.no_grad()
    def add(self, losses: SearchLosses) -> None:
        """Add those of one minibatch."""
        self._sums += torch.stack([losses.policy, losses.value, losses.agreement])
        self._count += 1

    def compute(self, ranks: Ranks = ALONE) -> dict[str, float]:
        """The means over the minibatches of all ranks, by name; empty where nothing was searched.

        Args:
            ranks: the learners, all of which call this.
        """
        parts = ranks.collect("the means of the searches' losses", self.state)
        count = sum(part["count"] for part in parts)
        if not count:
            return {}
        means = torch.stack([part["sums"] for part in parts]).double().sum(0) / count
        return dict(zip(_METRICS, means.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """Tensors on the CPU, and numbers."""
        return {"sums": to_host(self._sums, copy=True), "count": self._count}

    def joined_state(self, ranks: Ranks) -> dict[str, Any]:
        """The state of all ranks' meters as that of one, on the first rank, which writes it; all ranks call this."""
        parts = ranks.collect_at_first(self.state())
        if len(parts) < 2:
            return self.state()
        return {
            "sums": torch.stack([part["sums"] for part in parts]).sum(0),
            "count": sum(part["count"] for part in parts),
        }

    @classmethod
    def of_rank(cls, state: Mapping[str, Any] | None, device: torch.device, rank: int) -> SearchMeter:
        """A rank's meter of a :meth:`joined_state`, which the first rank takes; None: an empty one."""
        meter = cls(device)
        if state is not None and rank == 0:
            meter._sums += to_device(state["sums"], device)
            meter._count = int(state["count"])
        return meter
