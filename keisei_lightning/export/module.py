"""The module that is exported: from bytes of observations and legal moves to log-probabilities and values."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from keisei_lightning.models import ActorCritic

__all__ = ["ExportedModule"]

_ILLEGAL: Final = -1e30
"""Logit of an illegal move inside of the softmax: finite, so that a row without a legal move gives no NaN."""


class ExportedModule(nn.Module):
    """A policy with its mask of legal moves, as other programs see it.

    Args:
        actor_critic: the network, in evaluation mode.
    """

    def __init__(self, actor_critic: ActorCritic) -> None:
        super().__init__()
        self.actor_critic = actor_critic

    def forward(self, observation: Tensor, legal: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate positions.

        Args:
            observation: uint8 [n, *observation_shape], the mover's view.
            legal: bool [n, A].

        Returns:
            Log-probabilities float32 [n, A], exactly -inf where a move is not legal, and values float32 [n], the
            expected result for the mover.
        """
        logits, value = self.actor_critic(observation)
        log_probs = logits.float().masked_fill(~legal, _ILLEGAL).log_softmax(dim=-1)
        return log_probs.masked_fill(~legal, -torch.inf), value.float().squeeze(1)
