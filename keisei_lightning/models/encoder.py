"""Encoders: from a game's compact uint8 observation to float features, on whatever device the observation is.

Games write observations as small as they can, because observations are what travels through shared memory and lies in
buffers. Only the network needs floats, so the expansion is its first layer. A game whose observation is no stack of
planes names its encoder in :attr:`GameSpec.encoding <keisei_lightning.games.GameSpec>`. Its package adds the encoder by
an entry point in the group ``keisei_lightning.encoders``, a program by :func:`register_encoder`::

    [project.entry-points."keisei_lightning.encoders"]
    my_game = "my_package.my_encoder:make_encoder"

where ``make_encoder(spec, *, num_features)`` returns an :class:`Encoder`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.system.registry import Registry

__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderMaker",
    "PlanesEncoder",
    "build_encoder",
    "make_planes_encoder",
    "register_encoder",
]


class Encoder(nn.Module):
    """Base of all encoders: uint8 [B, *observation_shape] to float32 [B, num_features, H, W], channels last in memory.

    Args:
        num_features: features of each square.
        is_embedding: the features are learned, so a network needs no layer of its own to mix them.
    """

    def __init__(self, *, num_features: int, is_embedding: bool) -> None:
        super().__init__()
        self.num_features = num_features
        self.is_embedding = is_embedding


class PlanesEncoder(Encoder):
    """Planes of small integers to float planes: uint8 [B, C, H, W] to float32 [B, C, H, W].

    Args:
        num_planes: C.
    """

    def __init__(self, num_planes: int) -> None:
        super().__init__(num_features=num_planes, is_embedding=False)

    def forward(self, observation: Tensor) -> Tensor:
        """Convert planes; see the class."""
        return observation.to(torch.float32, memory_format=torch.channels_last)


EncoderMaker = Callable[..., Encoder]
"""``make(spec, *, num_features) -> Encoder``; ``num_features`` is for encoders that learn their features."""

ENCODERS: Final[Registry[EncoderMaker]] = Registry(
    "encoder",
    group="keisei_lightning.encoders",
    built_in={
        "planes": "keisei_lightning.models.encoder:make_planes_encoder",
        "shogi": "keisei_lightning.models.shogi_encoder:make_shogi_encoder",
    },
)


def register_encoder(name: str, maker: EncoderMaker) -> None:
    """Add an encoder of this process, or replace one of the same name.

    Args:
        name: as ``GameSpec.encoding`` gives it.
        maker: ``maker(spec, *, num_features)`` returns an :class:`Encoder`, and raises
            :class:`~keisei_lightning.errors.ConfigError` for an observation that it cannot read.
    """
    ENCODERS.register(name, maker)


def build_encoder(spec: GameSpec, *, num_features: int) -> Encoder:
    """Make the encoder that a game's specification names.

    Args:
        spec: the game.
        num_features: features of each square, for an encoder that learns them.

    Raises:
        ConfigError: there is no such encoder, or the observation's shape does not fit it.
    """
    try:
        encoder = ENCODERS.load(spec.encoding)(spec, num_features=num_features)
    except ConfigError as error:
        raise ConfigError(
            [f"spec.encoding={spec.encoding!r} of game {spec.name!r}: {e}" for e in error.errors]
        ) from None
    if not isinstance(encoder, Encoder):
        raise ConfigError(
            f"spec.encoding={spec.encoding!r} of game {spec.name!r}: makes a {type(encoder).__name__}; must make an "
            "Encoder"
        )
    return encoder


def make_planes_encoder(spec: GameSpec, *, num_features: int) -> PlanesEncoder:
    """Make the encoder of planes (entry point); it learns nothing and has as many features as there are planes.

    Raises:
        ConfigError: the observation is no stack of planes of the board's shape.
    """
    if len(spec.observation_shape) != 3 or spec.observation_shape[1:] != spec.board_shape:
        height, width = spec.board_shape
        raise ConfigError(f"observation_shape={spec.observation_shape}: must be (planes, {height}, {width})")
    return PlanesEncoder(spec.observation_shape[0])
