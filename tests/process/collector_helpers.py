"""A small collector of the counting game, and batches of it."""

from __future__ import annotations

from typing import Any

import torch
from fakes import TinyNetwork, counting_game
from tensordict import TensorDictBase
from torch import nn

from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector

__all__ = ["FRAMES", "GAMES", "PLIES", "WORKERS", "assert_same", "collector_of", "take"]

GAMES, PLIES, WORKERS = 4, 6, 2
FRAMES = GAMES * PLIES * WORKERS


def collector_of(policy: nn.Module | None = None, game: Any = None, **options: Any) -> SelfPlayCollector:
    if policy is None:
        torch.manual_seed(0)
        policy = ActorCritic(TinyNetwork())
    return SelfPlayCollector(
        game or counting_game(opening_plies=2),
        policy,
        **{
            "num_workers": WORKERS,
            "games_per_worker": GAMES,
            "plies_per_rollout": PLIES,
            "heartbeat_s": 1.0,
            "seed": 3,
            "stagger_games": False,
            **options,
        },
    )


def take(collector: SelfPlayCollector, num_batches: int) -> list[TensorDictBase]:
    batches = iter(collector)
    return [next(batches) for _ in range(num_batches)]


def assert_same(batches: list[TensorDictBase], others: list[TensorDictBase]) -> None:
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert set(batch.keys(True, True)) == set(other.keys(True, True))
        for key in batch.keys(True, True):
            assert torch.equal(batch[key], other[key]), key
