"""TorchRL's clipped PPO loss, without its wait for the device."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchrl.objectives import ClipPPOLoss
from typing_extensions import override

__all__ = ["LegalMovesPPOLoss"]


class LegalMovesPPOLoss(ClipPPOLoss):
    """``ClipPPOLoss`` for a policy whose entropy is known in closed form.

    TorchRL's own looks in every minibatch whether the entropy is finite, to estimate it from samples otherwise. For
    that an accelerator is waited for; and an entropy over legal moves is finite wherever the logits are.
    """

    @override
    def _get_entropy(self, dist: Any, adv_shape: Any) -> Tensor:
        entropy: Tensor = dist.entropy()
        return entropy.unsqueeze(-1)
