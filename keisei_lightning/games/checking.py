"""What the checks of a game share: how they observe its boards and report a broken promise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import GameError
from keisei_lightning.games.protocol import NO_MOVE, Game, GameFactory

__all__ = ["View", "choose", "demand", "make", "observe", "same"]


class View(NamedTuple):
    """What ``observe`` wrote: observation uint8 [G, *obs], legal uint8 [G, bytes], mover int8 [G], mask bool [G, A]."""

    observation: NDArray[np.uint8]
    legal: NDArray[np.uint8]
    mover: NDArray[np.int8]
    mask: NDArray[np.bool_]


def demand(holds: object, broken: str) -> None:
    """Raise :class:`~keisei_lightning.errors.GameError` with what is broken, unless something holds."""
    if not holds:
        raise GameError(broken)


def make(factory: GameFactory, num_games: int) -> Game:
    """Make a game and look at it from outside."""
    game = factory(num_games)
    demand(isinstance(game, Game), f"the factory makes a {type(game).__name__}, which lacks methods of Game")
    demand(game.num_games == num_games, f"num_games is {game.num_games}, not the {num_games} asked for")
    return game


def observe(game: Game) -> View:
    """Observe twice, into packed and into strided arrays that hold different bytes before, and compare."""
    spec, count = game.spec, game.num_games
    observation = np.full((count, *spec.observation_shape), 0xAA, dtype=np.uint8)
    legal = np.full((count, spec.mask_bytes), 0xAA, dtype=np.uint8)
    mover = np.full(count, 85, dtype=np.int8)
    wide_observation = np.full((count, 3, *spec.observation_shape), 0x55, dtype=np.uint8)
    wide_legal = np.full((count, 3, spec.mask_bytes), 0x55, dtype=np.uint8)
    wide_mover = np.full((count, 3), 42, dtype=np.int8)
    game.observe(observation, legal, mover)
    game.observe(wide_observation[:, 1], wide_legal[:, 1], wide_mover[:, 1])
    for key, packed, strided in (
        ("observation", observation, wide_observation),
        ("legal", legal, wide_legal),
        ("mover", mover, wide_mover),
    ):
        demand(np.array_equal(packed, strided[:, 1]), f"observe does not fill all of {key}, or not a strided one")
        untouched = strided[:, [0, 2]]
        demand((untouched == untouched.flat[0]).all(), f"observe writes beside {key}")
    bits = np.unpackbits(legal, axis=1).astype(np.bool_)
    demand(not bits[:, spec.num_actions :].any(), "the padding bits of legal are not zero")
    demand(np.isin(mover, (0, 1)).all(), f"mover must be 0 or 1, not {sorted(set(mover.tolist()))}")
    return View(observation, legal, mover, bits[:, : spec.num_actions])


def same(before: View, after: View, rows: NDArray[np.bool_]) -> bool:
    """Whether two views agree on the boards chosen by bool [G]."""
    return all(np.array_equal(old[rows], new[rows]) for old, new in zip(before, after, strict=True))


def choose(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random legal action for each board, NO_MOVE where there is none."""
    actions = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1)
    return np.where(mask.any(axis=1), actions, NO_MOVE).astype(np.int64)
