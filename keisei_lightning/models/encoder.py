"""Encoders: from a game's compact uint8 observation to float features, on whatever device the observation is.

Games write observations as small as they can, because observations are what travels through shared memory and lies in
buffers. Only the network needs floats, so the expansion is its first layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.games.shogi.codec import HAND_LIMITS, NUM_SQUARE_CODES, OBSERVATION_BYTES

__all__ = ["Encoder", "PlanesEncoder", "ShogiEncoder", "build_encoder"]

_NUM_SQUARES = 81
_MAX_REPETITIONS = 3
_MAX_PLY_BYTE = 255


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


class ShogiEncoder(Encoder):
    """The 98 bytes of a shogi position to learned features of its 81 squares: uint8 [B, 98] to float32 [B, F, 9, 9].

    Each square code has an embedding. What belongs to no square (hands, repetition, check, ply) is scaled to [0, 1] and
    added to all squares by one linear layer: for a convolution that is the same as planes of constants, without the
    planes. The embeddings of a board lie in memory as channels last already, so nothing is transposed.

    Args:
        num_features: F.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features=num_features, is_embedding=True)
        limits = [*HAND_LIMITS, _MAX_REPETITIONS, 1, _MAX_PLY_BYTE]
        self.squares = nn.Embedding(NUM_SQUARE_CODES, num_features)
        # "At least one in hand" is a feature of its own: one pawn of eighteen would hardly show in the scaled count.
        self.state = nn.Linear(len(limits) + len(HAND_LIMITS), num_features)
        self.register_buffer("scale", torch.tensor(limits, dtype=torch.float32).reciprocal())
        self.scale: Tensor
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Give every feature about unit variance, squares and state together."""
        nn.init.normal_(self.squares.weight)
        nn.init.zeros_(self.state.bias)

    def forward(self, observation: Tensor) -> Tensor:
        """Encode positions; see the class."""
        if observation.shape[-1] != OBSERVATION_BYTES:
            raise ValueError(f"a shogi observation is uint8 [B, {OBSERVATION_BYTES}], not {list(observation.shape)}")
        squares = self.squares(observation[:, :_NUM_SQUARES].int())
        counts = observation[:, _NUM_SQUARES:].float()
        in_hand = counts[:, : len(HAND_LIMITS)].clamp(max=1.0)
        state = self.state(torch.cat([counts * self.scale, in_hand], dim=1))
        features: Tensor = squares + state.unsqueeze(1)
        return features.view(-1, 9, 9, self.num_features).permute(0, 3, 1, 2)


def build_encoder(spec: GameSpec, *, num_features: int) -> Encoder:
    """Make the encoder that a game's specification names.

    Args:
        spec: the game.
        num_features: features of each square, for encoders which learn them.

    Raises:
        ConfigError: there is no such encoder, or the observation's shape does not fit it.
    """
    if spec.encoding == "shogi":
        return ShogiEncoder(num_features)
    if spec.encoding != "planes":
        raise ConfigError(f"env encoding={spec.encoding!r} of game {spec.name!r}: must be 'planes' or 'shogi'")
    if len(spec.observation_shape) != 3 or spec.observation_shape[1:] != spec.board_shape:
        raise ConfigError(
            f"env observation_shape={spec.observation_shape} of game {spec.name!r}: the encoding 'planes' needs "
            f"(planes, {spec.board_shape[0]}, {spec.board_shape[1]})"
        )
    return PlanesEncoder(spec.observation_shape[0])
