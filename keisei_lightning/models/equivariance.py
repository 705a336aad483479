"""Which games have equivariant networks: those whose symmetry is a flip of the board. Needs no torch."""

from __future__ import annotations

from typing import Final

import numpy as np

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec, Symmetry

__all__ = ["Flip", "board_flip", "equivariance_errors"]

Flip = tuple[int, ...]
"""Dimensions of [B, C, H, W] that the mirror image of a board reverses."""

_FLIPS: Final[tuple[Flip, ...]] = ((3,), (2,), (2, 3))


def board_flip(spec: GameSpec, *, prefix: str = "") -> tuple[Symmetry, Flip]:
    """The game's symmetry, and how it moves the squares.

    Args:
        spec: the game.
        prefix: text before the options' names in the message, such as ``"model."``.

    Raises:
        ConfigError: the game has no symmetry, or one that is no flip of the board.
    """
    if not spec.symmetries:
        raise ConfigError(f"{prefix}equivariant=true: must be false ({spec.name} has no symmetry)")
    symmetry = spec.symmetries[0]
    height, width = spec.board_shape
    squares = np.arange(height * width).reshape(1, 1, height, width)
    for flip in _FLIPS:
        flipped = np.flip(squares, flip).reshape(1, -1)
        if len(spec.observation_shape) == 3:  # planes
            planes = np.arange(spec.observation_shape[0]).reshape(-1, 1)
            expected = (planes * height * width + flipped).reshape(-1)
        else:  # a byte for each square, then what belongs to no square
            expected = np.concatenate([flipped[0], np.arange(height * width, spec.observation_bytes)])
        if np.array_equal(expected, symmetry.observation_index):
            return symmetry, flip
    raise ConfigError(f"{prefix}equivariant=true: must be false (the symmetry of {spec.name} is no flip of the board)")


def equivariance_errors(spec: GameSpec, *, kind: str, channels: int, prefix: str = "") -> list[str]:
    """Why a game has no equivariant network of this kind and size; no line where it has one.

    Args:
        spec: the game.
        kind: kind of the network.
        channels: width of the network.
        prefix: text before the options' names in the message, such as ``"model."``.
    """
    if kind != "resnet":
        return [f"{prefix}equivariant=true: must be false with {prefix}kind={kind}"]
    errors = [f"{prefix}channels={channels}: must be even with {prefix}equivariant=true"] if channels % 2 else []
    try:
        board_flip(spec, prefix=prefix)
    except ConfigError as error:
        errors += error.errors
    return errors
