"""Base of this package's networks: a policy head, and a value head of one number or of three outcomes."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from keisei_lightning.models.heads import expected_score
from keisei_lightning.models.options import ValueKind

__all__ = ["TwoHeads"]


class TwoHeads(nn.Module, ABC):
    """A network with a policy head and a value head.

    Args:
        value_head: ``"scalar"`` or ``"wdl"``.

    Attributes:
        predicts_outcomes: the value head is one of win, draw and loss.
    """

    def __init__(self, value_head: ValueKind) -> None:
        super().__init__()
        self.predicts_outcomes = value_head == "wdl"

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate positions.

        Args:
            observation: uint8 [B, *observation_shape], the mover's view.

        Returns:
            logits float [B, A] and state value float [B, 1], both in the mover's view.
        """
        logits, value = self._evaluate(observation)
        return logits, expected_score(value)

    def evaluate_outcomes(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate positions by win, draw and loss (if :attr:`predicts_outcomes`).

        Args:
            observation: uint8 [B, *observation_shape], the mover's view.

        Returns:
            logits float [B, A] and log-probabilities float [B, 3] of the mover's win, draw and loss.
        """
        return self._evaluate(observation)

    @abstractmethod
    def _evaluate(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Logits float [B, A], and the output of the value head: float [B, 1] or [B, 3]."""
