"""What is measured: untrained policies with the networks of the configuration group ``model``."""

from __future__ import annotations

import torch

from keisei_lightning.commands.bench.options import MODELS
from keisei_lightning.games import GameFactory
from keisei_lightning.models import ActorCritic, build_network

__all__ = ["policy_of"]


def policy_of(game: GameFactory, model: str, seed: int) -> ActorCritic:
    """An untrained policy."""
    torch.manual_seed(seed)
    blocks, channels = MODELS[model]
    return ActorCritic(build_network(game(1).spec, kind="resnet", num_blocks=blocks, channels=channels)).eval()
