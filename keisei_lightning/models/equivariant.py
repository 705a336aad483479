"""Convolutions that commute with a board's mirror image, so that a network evaluates both images alike.

A feature map has two halves. Mirroring the board flips the map and swaps the halves (the regular representation of the
group of two: T. Cohen, M. Welling, "Group Equivariant Convolutional Networks", arXiv:1602.07576). Half of a layer's
kernels are parameters, the others are their mirror images: the arithmetic of a plain convolution of as many channels,
with half of its parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from keisei_lightning.models.equivariance import Flip

__all__ = ["LiftingConv2d", "MirrorConv2d", "split_images"]


def split_images(features: Tensor, flip: Flip) -> Tensor:
    """Split features by image: float [B, C, H, W] to [2 B, C / 2, H, W], the boards, then their mirror images.

    The second half is what the first half would be for mirrored boards, up to the flip.
    """
    ours, mirrored = features.chunk(2, dim=1)
    return torch.cat([ours, mirrored.flip(flip)]).contiguous(memory_format=torch.channels_last)


class LiftingConv2d(nn.Module):
    """First layer: planes of a board, float [B, in_channels, H, W], to the two halves, float [B, channels, H, W].

    Args:
        in_channels: number of planes.
        channels: channels of both halves together.
        flip: the board's flip.
    """

    def __init__(self, in_channels: int, channels: int, *, flip: Flip) -> None:
        super().__init__()
        plain = nn.Conv2d(in_channels, channels // 2, kernel_size=3, padding=1)  # for its first weights
        self.weight, self.bias = plain.weight, plain.bias
        self._flip = flip

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; see the class."""
        assert self.bias is not None
        weight = torch.cat([self.weight, self.weight.flip(self._flip)])
        return functional.conv2d(x, weight, self.bias.repeat(2), padding=1)


class MirrorConv2d(nn.Module):
    """Any further layer: float [B, channels, H, W], two halves, to the same shape.

    Args:
        channels: channels of both halves together.
        flip: the board's flip.
    """

    def __init__(self, channels: int, *, flip: Flip) -> None:
        super().__init__()
        plain = nn.Conv2d(channels, channels // 2, kernel_size=3, padding=1)
        self.weight, self.bias = plain.weight, plain.bias
        self._flip = flip

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; see the class."""
        assert self.bias is not None
        mirrored = self.weight.flip(self._flip).roll(len(self.weight), 1)
        return functional.conv2d(x, torch.cat([self.weight, mirrored]), self.bias.repeat(2), padding=1)
