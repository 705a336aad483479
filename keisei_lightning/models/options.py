"""Options of networks. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from keisei_lightning.system.options import Options, option

__all__ = ["NetworkKind", "NetworkOptions", "ValueKind"]

NetworkKind = Literal["mlp", "resnet"]
ValueKind = Literal["scalar", "wdl"]


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(Options):
    """Which network :func:`~keisei_lightning.models.build_network` makes, and how large."""

    kind: NetworkKind = option("resnet", "resnet: residual convolutions; mlp: fully connected, for small boards.")
    num_blocks: int = option(6, "Residual blocks, or hidden layers of an mlp.", low=1, high=256)
    channels: int = option(96, "Features of each square, or units of each hidden layer of an mlp.", low=1, high=8192)
    value_head: ValueKind = option("scalar", "scalar: one number in [-1, 1]; wdl: probabilities of win, draw and loss.")
    equivariant: bool = option(
        False,
        "Evaluate a position and its mirror image alike, by construction (resnet, an even number of channels, a game "
        "whose symmetry is a flip of the board).",
    )
