"""Evaluators and roots for tests of the search."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games import Game
from keisei_lightning.search import Roots, copies_of


def uniform(observation: NDArray[np.uint8], legal: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Knows nothing: every move is as likely, every position a draw."""
    counts = np.unpackbits(legal, axis=1).sum(axis=1, dtype=np.int64)
    return np.repeat(-np.log(counts), counts), np.zeros(len(observation))


def uneven(observation: NDArray[np.uint8], legal: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Different numbers for different positions, always the same ones."""
    counts = np.unpackbits(legal, axis=1).sum(axis=1, dtype=np.int64)
    priors, values = [], []
    for seen, count in zip(observation, counts.tolist(), strict=True):
        rng = np.random.default_rng(list(seen.tobytes()))
        priors.append(np.log(rng.dirichlet(np.ones(count))))
        values.append(rng.uniform(-0.5, 0.5))
    return np.concatenate(priors), np.array(values)


def roots_of(game: Game, indices: list[int] | None = None) -> Roots:
    observation = np.zeros((game.num_games, *game.spec.observation_shape), np.uint8)
    legal, mover = np.zeros((game.num_games, game.spec.mask_bytes), np.uint8), np.zeros(game.num_games, np.int8)
    game.observe(observation, legal, mover)
    rows = list(range(game.num_games)) if indices is None else indices
    return Roots(
        boards=rows,
        positions=copies_of(game, np.array(rows)),
        observation=observation[rows],
        legal=legal[rows],
        mover=mover[rows],
    )
