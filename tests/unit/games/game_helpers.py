"""Small readers of a game that the tests here share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games import NO_MOVE, Game, StepResult


class View(NamedTuple):
    """What ``observe`` wrote, with the mask as bool [G, A]."""

    observation: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    mover: NDArray[np.int8]


def look(game: Game) -> View:
    """Observe into fresh arrays."""
    observation = np.zeros((game.num_games, *game.spec.observation_shape), dtype=np.uint8)
    legal = np.zeros((game.num_games, game.spec.mask_bytes), dtype=np.uint8)
    mover = np.zeros(game.num_games, dtype=np.int8)
    game.observe(observation, legal, mover)
    return View(observation, np.unpackbits(legal, axis=1)[:, : game.spec.num_actions].astype(np.bool_), mover)


def names(game: Game, index: int = 0) -> dict[str, int]:
    """Every legal move of one board, by its name."""
    return {game.action_name(index, int(action)): int(action) for action in np.flatnonzero(look(game).mask[index])}


def play(game: Game, *moves: str, index: int = 0) -> StepResult:
    """Play named moves on one board while the others sit out; the result of the last one."""
    for move in moves:
        actions = np.full(game.num_games, NO_MOVE)
        actions[index] = names(game, index)[move]
        result = game.step(actions)
    return result


def random_actions(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random legal action for each board, NO_MOVE where there is none."""
    actions = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1)
    return np.where(mask.any(axis=1), actions, NO_MOVE)


def perft(game: Game, start: str, depth: int) -> list[int]:
    """Number of move sequences of 1 to ``depth`` plies, found by masks and steps alone; all boards work at once."""
    positions, counts = [start], []
    for ply in range(depth):
        children: list[str] = []
        counts.append(0)
        for begin in range(0, len(positions), game.num_games):
            chunk = positions[begin : begin + game.num_games]
            for index, position in enumerate(chunk):
                game.set_position(index, position)
            mask = look(game).mask[: len(chunk)]
            counts[-1] += int(mask.sum())
            if ply + 1 < depth:
                for index, position in enumerate(chunk):
                    children += _children(game, position, np.flatnonzero(mask[index]))
        positions = children
    return counts


def _children(game: Game, position: str, actions: NDArray[np.int64]) -> list[str]:
    """Positions after each of some actions, without those that are over."""
    found: list[str] = []
    for begin in range(0, len(actions), game.num_games):
        chunk = actions[begin : begin + game.num_games]
        for index in range(len(chunk)):
            game.set_position(index, position)
        padded = np.full(game.num_games, NO_MOVE)
        padded[: len(chunk)] = chunk
        result = game.step(padded)
        found += [game.position(index) for index in range(len(chunk)) if not result.terminated[index]]
    return found
