"""Residual convolutional network for board games (He et al., "Deep Residual Learning", arXiv:1512.03385)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from typing_extensions import override

from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.models.encoder import build_encoder
from keisei_lightning.models.equivariance import Flip, board_flip
from keisei_lightning.models.equivariant import LiftingConv2d, MirrorConv2d, split_images
from keisei_lightning.models.heads import LinearPolicyHead, SquarePolicyHead, ValueHead
from keisei_lightning.models.options import ValueKind
from keisei_lightning.models.two_heads import TwoHeads

__all__ = ["ResidualBlock", "ResidualNetwork"]


class ResidualBlock(nn.Module):
    """``relu(x + conv(relu(conv(x))))``, starting as ``relu(x)``.

    There is no normalisation. With batch normalisation a worker, in evaluation mode, would compute another function
    than the learner in training mode, and the PPO ratio of the first minibatch would not be 1. Group normalisation
    avoids that, but makes training on a CPU a third slower. Instead the tower starts as Fixup does (Zhang et al.,
    "Fixup Initialization: Residual Learning Without Normalization", arXiv:1901.09321): each block begins as the
    identity, and the deeper the tower, the smaller its first convolutions.

    Args:
        channels: features of each square, in and out.
        depth: number of blocks in the tower.
        flip: the board's flip, for a block that commutes with it; None: a plain block.
    """

    def __init__(self, channels: int, *, depth: int, flip: Flip | None = None) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Conv2d(channels, channels, kernel_size=3, padding=1)
            if flip is None
            else MirrorConv2d(channels, flip=flip)
            for _ in range(2)
        )
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        with torch.no_grad():
            self.conv1.weight.mul_(depth**-0.5)
        nn.init.zeros_(self.conv2.weight)
        for conv in (self.conv1, self.conv2):
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, channels, H, W] to the same shape."""
        result: Tensor = (x + self.conv2(self.conv1(x).relu())).relu()
        return result


class ResidualNetwork(TwoHeads):
    """Encoder, residual tower, policy head and value head.

    Args:
        spec: the game.
        num_blocks: residual blocks, 1 or more.
        channels: width of the tower.
        value_head: ``"scalar"`` or ``"wdl"``.
        equivariant: evaluate a position and its mirror image alike (see :mod:`keisei_lightning.models.equivariant`).

    Raises:
        ConfigError: ``equivariant``, and the game's symmetry is no flip of the board.
    """

    def __init__(
        self, spec: GameSpec, *, num_blocks: int, channels: int, value_head: ValueKind, equivariant: bool = False
    ) -> None:
        super().__init__(value_head)
        self._flip: Flip | None = None
        if equivariant:
            symmetry, self._flip = board_flip(spec)
            self.register_buffer("mirrored_action", torch.from_numpy(symmetry.action_index.copy()))
        self.encoder = build_encoder(spec, num_features=channels if self._flip is None else channels // 2)
        self.stem = self._build_stem(channels)
        self.tower = nn.Sequential(
            *(ResidualBlock(channels, depth=num_blocks, flip=self._flip) for _ in range(num_blocks))
        )
        head_features = channels if self._flip is None else channels // 2
        policy_class = SquarePolicyHead if spec.actions_by_square else LinearPolicyHead
        self.policy_head = policy_class(
            num_features=head_features, board_shape=spec.board_shape, num_actions=spec.num_actions
        )
        self.value_head = ValueHead(num_features=head_features, board_shape=spec.board_shape, kind=value_head)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def further_blocks(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of the blocks that a shallower network has not got, as the identity.

        With them this network computes what the shallower one does, and has more to learn with (T. Chen,
        I. Goodfellow, J. Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", arXiv:1511.05641).

        Args:
            weights: state dictionary of a network that is like this one but for the number of its blocks.

        Returns:
            What completes it; nothing where it has as many blocks.
        """
        return {
            f"tower.{at}.{name}": torch.zeros_like(weight) if name.startswith("conv2.") else weight
            for at, block in enumerate(self.tower)
            if not any(name.startswith(f"tower.{at}.") for name in weights)
            for name, weight in block.state_dict().items()
        }

    @override
    def _evaluate(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        features = self.tower(self.stem(self.encoder(observation)))
        if self._flip is None:
            return self.policy_head(features), self.value_head(features)
        # The heads read one half: their outputs for both images are combined.
        both = split_images(features, self._flip)
        # By a view, and not in chunks: torch.export cannot tell how many chunks a batch of any size makes.
        logits, mirrored = self.policy_head(both).unflatten(0, (2, -1))
        halves = self.value_head(both).unflatten(0, (2, -1))
        # Of two distributions over outcomes the mean, so that the state value is the mean of both too.
        value = halves.logsumexp(0) - math.log(2) if self.predicts_outcomes else (halves[0] + halves[1]) / 2
        return (logits + mirrored.index_select(1, self.mirrored_action)) / 2, value

    def _build_stem(self, channels: int) -> nn.Module:
        if self.encoder.is_embedding:
            return nn.Identity() if self._flip is None else _Duplicate()
        planes = self.encoder.num_features
        first: nn.Module = (
            nn.Conv2d(planes, channels, kernel_size=3, padding=1)
            if self._flip is None
            else LiftingConv2d(planes, channels, flip=self._flip)
        )
        return nn.Sequential(first, nn.ReLU())


class _Duplicate(nn.Module):
    """Duplicates learned features of the squares, which are the same for both images."""

    def forward(self, x: Tensor) -> Tensor:
        """Float [B, C, H, W] to [B, 2 C, H, W]."""
        return x.repeat(1, 2, 1, 1)
