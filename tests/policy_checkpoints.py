"""Checkpoints of small policies, as a training run writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from keisei_lightning.games import make_game
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.models.registry import OUR_NETWORKS
from keisei_lightning.training.checkpoint import AtomicCheckpointIO
from keisei_lightning.training.checkpoint_header import HEADER_KEY, RECIPE_KEY, CheckpointHeader

__all__ = ["SMALL", "write_policy"]

SMALL = {"_target_": OUR_NETWORKS, "kind": "mlp", "num_blocks": 1, "channels": 8, "value_head": "scalar"}


def write_policy(
    path: Path,
    *,
    game: str = "tic_tac_toe",
    game_options: Mapping[str, Any] | None = None,
    network: torch.nn.Module | None = None,
    model: Mapping[str, Any] | None = None,
    recipe: bool = True,
    seed: int = 0,
) -> ActorCritic:
    """Write a checkpoint.

    Args:
        path: of the file.
        game: its game's name.
        game_options: keyword arguments of the game's maker.
        network: None: :data:`SMALL`.
        model: what the recipe says of it.
        recipe: whether there is one; the first checkpoints had none.
        seed: of the weights.

    Returns:
        The policy that it holds.
    """
    torch.manual_seed(seed)
    spec = make_game(game, 1).spec
    keywords: dict[str, Any] = {key: value for key, value in SMALL.items() if key != "_target_"}
    policy = ActorCritic(build_network(spec, **keywords) if network is None else network)
    content: dict[str, Any] = {
        HEADER_KEY: CheckpointHeader.of(spec).to_dict(),
        "global_step": 70,
        "state_dict": {f"actor_critic.{name}": weight for name, weight in policy.state_dict().items()},
    }
    if recipe:
        content[RECIPE_KEY] = {
            "env": {"game": game, "options": dict(game_options or {})},
            "model": dict(SMALL if model is None else model),
        }
    AtomicCheckpointIO().save_checkpoint(content, path)
    return policy
