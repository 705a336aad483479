"""Fully connected network for small boards."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn
from typing_extensions import override

from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.models.encoder import build_encoder
from keisei_lightning.models.heads import POLICY_SCALE, build_value_output
from keisei_lightning.models.options import ValueKind
from keisei_lightning.models.two_heads import TwoHeads

__all__ = ["MLPNetwork"]

_SQUARE_FEATURES = 16


class MLPNetwork(TwoHeads):
    """Encoder, ``num_blocks`` hidden layers of ``channels`` units, and one linear layer for each of policy and value.

    Args:
        spec: the game.
        num_blocks: hidden layers, 1 or more.
        channels: units of each.
        value_head: ``"scalar"`` or ``"wdl"``.
    """

    def __init__(self, spec: GameSpec, *, num_blocks: int, channels: int, value_head: ValueKind) -> None:
        super().__init__(value_head)
        self.encoder = build_encoder(spec, num_features=_SQUARE_FEATURES)
        widths = [self.encoder.num_features * math.prod(spec.board_shape), *[channels] * num_blocks]
        self.trunk = nn.Sequential()
        for width_in, width_out in pairwise(widths):
            self.trunk.extend([nn.Linear(width_in, width_out), nn.ReLU()])
        self.policy_head = nn.Linear(channels, spec.num_actions)
        self.value_head = build_value_output(value_head, channels)
        nn.init.normal_(self.policy_head.weight, std=POLICY_SCALE / channels**0.5)
        nn.init.zeros_(self.policy_head.bias)

    @override
    def _evaluate(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(self.encoder(observation).permute(0, 2, 3, 1).flatten(1))
        return self.policy_head(features), self.value_head(features)
