"""Policy and value heads.

All heads end in a layer whose first weights are small or zero, so that the first policy is close to uniform over the
legal moves and the first value close to 0: no move is excluded before the first game.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keisei_lightning.models.options import ValueKind

__all__ = [
    "POLICY_SCALE",
    "LinearPolicyHead",
    "ScalarValue",
    "SquarePolicyHead",
    "ValueHead",
    "WinDrawLossValue",
    "build_value_output",
    "expected_score",
]

POLICY_SCALE = 0.01
"""Standard deviation of the first policy logits, roughly."""

_POLICY_FEATURES = 32
_VALUE_FEATURES = 8
_VALUE_HIDDEN = 64


def _by_square(features: Tensor) -> Tensor:
    """[B, F, H, W] to [B, H * W * F]: a view of memory that is channels last, where ``flatten`` would transpose."""
    return features.permute(0, 2, 3, 1).flatten(1)


class SquarePolicyHead(nn.Module):
    """Logits for labels ``move_type * H * W + square``: each square's features name the moves that end on it.

    A 1x1 convolution, written as a matrix product from the left: its result lies in memory in the labels' order.

    Args:
        num_features: features of each square.
        board_shape: (H, W).
        num_actions: A, a multiple of H * W.
    """

    def __init__(self, *, num_features: int, board_shape: tuple[int, int], num_actions: int) -> None:
        super().__init__()
        num_squares = board_shape[0] * board_shape[1]
        if num_actions % num_squares:
            raise ValueError(f"{num_actions} actions are no multiple of {num_squares} squares")
        num_move_types = num_actions // num_squares
        self.weight = nn.Parameter(torch.empty(num_move_types, num_features))
        self.bias = nn.Parameter(torch.zeros(num_move_types, num_squares))
        nn.init.normal_(self.weight, std=POLICY_SCALE / num_features**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Map features float [B, F, H, W] to logits float [B, A]."""
        return (torch.matmul(self.weight, features.flatten(2)) + self.bias).flatten(1)


class LinearPolicyHead(nn.Module):
    """Logits for labels of any meaning: a narrow 1x1 convolution, then one linear layer over the whole board.

    Args:
        num_features: features of each square.
        board_shape: (H, W).
        num_actions: A.
    """

    def __init__(self, *, num_features: int, board_shape: tuple[int, int], num_actions: int) -> None:
        super().__init__()
        width = min(num_features, _POLICY_FEATURES)
        self.squares = nn.Conv2d(num_features, width, kernel_size=1)
        self.actions = nn.Linear(width * board_shape[0] * board_shape[1], num_actions)
        nn.init.normal_(self.actions.weight, std=POLICY_SCALE / self.actions.in_features**0.5)
        nn.init.zeros_(self.actions.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features float [B, F, H, W] to logits float [B, A]."""
        logits: Tensor = self.actions(_by_square(self.squares(features).relu()))
        return logits


class ScalarValue(nn.Module):
    """The expected result as one number in (-1, 1): ``tanh`` of a linear layer.

    Args:
        num_features: F.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.output = nn.Linear(num_features, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features float [B, F] to state values float [B, 1]."""
        value: Tensor = self.output(features)
        return value.tanh()


class WinDrawLossValue(nn.Module):
    """Probabilities of the mover's win, draw and loss; the state value is their :func:`expected_score`.

    The head learns from distributions over outcomes (:mod:`keisei_lightning.rl.outcomes`). A loss of the state value
    alone cannot distinguish a sure draw from equal chances of win and loss.

    Args:
        num_features: F.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.output = nn.Linear(num_features, 3)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features float [B, F] to log-probabilities float [B, 3] of the mover's win, draw and loss."""
        logits: Tensor = self.output(features)
        return logits.log_softmax(dim=-1)


def expected_score(output: Tensor) -> Tensor:
    """State values float [B, 1] of a value head's output: state values [B, 1], or log-probabilities [B, 3].

    The state value of win, draw and loss is ``p(win) - p(loss)``.
    """
    if output.shape[-1] == 1:
        return output
    probabilities = output.exp()
    return probabilities[:, :1] - probabilities[:, 2:]


def build_value_output(kind: ValueKind, num_features: int) -> nn.Module:
    """Make the last layer of a value head: ``"scalar"`` or ``"wdl"``."""
    return ScalarValue(num_features) if kind == "scalar" else WinDrawLossValue(num_features)


class ValueHead(nn.Module):
    """Value head of a board: a narrow 1x1 convolution, one hidden layer over the whole board, then the output.

    Args:
        num_features: features of each square.
        board_shape: (H, W).
        kind: ``"scalar"`` (tanh) or ``"wdl"`` (win, draw, loss).
    """

    def __init__(self, *, num_features: int, board_shape: tuple[int, int], kind: ValueKind) -> None:
        super().__init__()
        self.squares = nn.Conv2d(num_features, _VALUE_FEATURES, kernel_size=1)
        self.hidden = nn.Linear(_VALUE_FEATURES * board_shape[0] * board_shape[1], _VALUE_HIDDEN)
        self.output = build_value_output(kind, _VALUE_HIDDEN)

    def forward(self, features: Tensor) -> Tensor:
        """Map features float [B, F, H, W] to state values float [B, 1], or to log-probabilities float [B, 3]."""
        hidden = self.hidden(_by_square(self.squares(features).relu())).relu()
        value: Tensor = self.output(hidden)
        return value
