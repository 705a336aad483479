"""Convolutions that commute with a board's mirror image, so that a network judges both images alike.

A feature map has two halves. Mirroring the board flips the map and swaps the halves (the regular representation of the
group of two: T. Cohen, M. Welling, "Group Equivariant Convolutional Networks", arXiv:1602.07576). Half of a layer's
kernels are parameters, the others are their mirror images: the arithmetic of a plain convolution of as many channels,
with half of its parameters.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec, Symmetry

__all__ = ["Flip", "LiftingConv2d", "MirrorConv2d", "board_flip", "equivariance_faults", "split_images"]

Flip = tuple[int, ...]
"""Dimensions of [B, C, H, W] that the mirror image of a board turns round."""

_FLIPS: Final[tuple[Flip, ...]] = ((3,), (2,), (2, 3))


def board_flip(spec: GameSpec) -> tuple[Symmetry, Flip]:
    """The game's symmetry, and how it moves the squares.

    Raises:
        ConfigError: the game has none, or one that is no flip of the board.
    """
    if not spec.symmetries:
        raise ConfigError(f"model.equivariant=true: must be false ({spec.name} has no symmetry)")
    symmetry = spec.symmetries[0]
    height, width = spec.board_shape
    squares = np.arange(height * width).reshape(1, 1, height, width)
    for flip in _FLIPS:
        flipped = np.flip(squares, flip).reshape(1, -1)
        if spec.encoding == "planes":
            planes = np.arange(spec.observation_shape[0]).reshape(-1, 1)
            expected = (planes * height * width + flipped).reshape(-1)
            found = symmetry.observation_index
        else:  # bytes of the squares, then what belongs to no square
            expected, found = flipped[0], symmetry.observation_index[: height * width]
        if np.array_equal(expected, found):
            return symmetry, flip
    raise ConfigError(f"model.equivariant=true: must be false (the symmetry of {spec.name} is no flip of the board)")


def equivariance_faults(spec: GameSpec, *, kind: str, channels: int) -> list[str]:
    """Why there is no equivariant network of this kind and size for a game; empty: there is one."""
    if kind != "resnet":
        return [f"model.equivariant=true: must be false with model.kind={kind}"]
    faults = [f"model.channels={channels}: must be even with model.equivariant=true"] if channels % 2 else []
    try:
        board_flip(spec)
    except ConfigError as error:
        faults += error.faults
    return faults


def split_images(features: Tensor, flip: Flip) -> Tensor:
    """One half of the features for each image: float [B, C, H, W] to [2 B, C / 2, H, W], the boards, then their images.

    The second half is what the first one would be if the boards were mirrored, but for the flip.
    """
    ours, mirrored = features.chunk(2, dim=1)
    return torch.cat([ours, mirrored.flip(flip)]).contiguous(memory_format=torch.channels_last)


class LiftingConv2d(nn.Module):
    """First layer: planes of a board, float [B, in_channels, H, W], to the two halves, float [B, channels, H, W].

    Args:
        in_channels: planes.
        channels: of both halves.
        flip: of the board.
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
        channels: of both halves.
        flip: of the board.
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
