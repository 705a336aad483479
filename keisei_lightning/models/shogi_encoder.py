"""The encoder of shogi's 98 bytes; reached by its name, through the registry of encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.games.shogi.codec import HAND_LIMITS, NUM_SQUARE_CODES, NUM_SQUARES, OBSERVATION_BYTES
from keisei_lightning.models.encoder import Encoder

__all__ = ["ShogiEncoder", "make_shogi_encoder"]

_MAX_REPETITIONS = 3
_MAX_PLY_BYTE = 255


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
        squares = self.squares(observation[:, :NUM_SQUARES].int())
        counts = observation[:, NUM_SQUARES:].float()
        in_hand = counts[:, : len(HAND_LIMITS)].clamp(max=1.0)
        state = self.state(torch.cat([counts * self.scale, in_hand], dim=1))
        features: Tensor = squares + state.unsqueeze(1)
        return features.view(-1, 9, 9, self.num_features).permute(0, 3, 1, 2)


def make_shogi_encoder(spec: GameSpec, *, num_features: int) -> ShogiEncoder:
    """Make a :class:`ShogiEncoder` (entry point).

    Raises:
        ConfigError: the observation has another number of bytes.
    """
    if spec.observation_shape != (OBSERVATION_BYTES,):
        raise ConfigError(f"observation_shape={spec.observation_shape}: must be ({OBSERVATION_BYTES},)")
    return ShogiEncoder(num_features)
