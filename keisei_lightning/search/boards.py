"""The boards on which a search tries moves, and copies of them for every node. It knows no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games.protocol import (
    NO_MOVE,
    CopyableGame,
    Game,
    GameFactory,
    OpeningGame,
    ResumableGame,
    SolvingGame,
)

__all__ = ["Boards", "Position", "copies_of", "put_copies"]

Position = Any
"""A copy of one board; see :func:`copies_of`."""


def copies_of(game: Game, indices: NDArray[np.int64]) -> list[Position]:
    """Copy boards that are not over, for :class:`Boards` of the same game.

    Args:
        game: that has the boards.
        indices: int64 [n], which.
    """
    return _copier(game)(indices)


def put_copies(game: Game, indices: NDArray[np.int64], positions: Sequence[Position]) -> None:
    """Put boards where others were when :func:`copies_of` copied them.

    Args:
        game: that has the boards.
        indices: int64 [n], which.
        positions: n copies.
    """
    _putter(game)(indices, positions)


def _copier(game: Game) -> Callable[[NDArray[np.int64]], list[Position]]:
    if isinstance(game, CopyableGame):
        return game.copy_boards
    copy = game.history if isinstance(game, ResumableGame) else game.position
    return lambda indices: [copy(index) for index in indices.tolist()]


def _putter(game: Game) -> Callable[[NDArray[np.int64], Sequence[Position]], None]:
    if isinstance(game, CopyableGame):
        return game.put_boards
    put_one = game.set_history if isinstance(game, ResumableGame) else game.set_position

    def put(indices: NDArray[np.int64], positions: Sequence[Position]) -> None:
        for index, position in zip(indices.tolist(), positions, strict=True):
            put_one(index, position)

    return put


class Boards:
    """Boards that a search moves, as many as it looks at at once.

    Args:
        factory: makes the game.
        num_boards: how many.
    """

    def __init__(self, factory: GameFactory, num_boards: int) -> None:
        self._game = game = factory(num_boards)
        # Asked once: isinstance with a protocol looks at every method of it, each time.
        self._copy, self._put = _copier(game), _putter(game)
        self._find_wins = game.find_wins if isinstance(game, SolvingGame) else None
        spec = game.spec
        self._actions = np.full(num_boards, NO_MOVE, np.int64)
        self._observation = np.zeros((num_boards, *spec.observation_shape), np.uint8)
        self._legal = np.zeros((num_boards, spec.mask_bytes), np.uint8)
        self._mover = np.zeros(num_boards, np.int8)
        if isinstance(game, OpeningGame):
            game.opening_plies = 0  # random openings would cost as much as a step of the search, and are never seen
        self._game.reset()

    @property
    def num_boards(self) -> int:
        """How many there are."""
        return len(self._actions)

    def put(self, positions: Sequence[Position]) -> None:
        """Put the first n boards into positions."""
        self._put(np.arange(len(positions)), positions)

    def play(
        self, positions: list[Position], actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Put the first n boards into positions, and play a move on each.

        Args:
            positions: n copies.
            actions: int64 [n], legal there.

        Returns:
            Rewards to the players who moved, float32 [n], and which games are over, bool [n]; a game that is cut short
            counts as a draw.
        """
        self.put(positions)
        count = len(positions)
        self._actions[:count], self._actions[count:] = actions, NO_MOVE
        result = self._game.step(self._actions)
        return result.reward[:count].copy(), (result.terminated | result.truncated)[:count]

    def find_wins(self, rows: NDArray[np.int64], max_nodes: int) -> NDArray[np.int64]:
        """Forced wins of the movers on some boards: actions, int64 [n], ``NO_MOVE`` where none was found."""
        if max_nodes == 0 or self._find_wins is None:
            return np.full(len(rows), NO_MOVE)
        return self._find_wins(rows, max_nodes)

    def observe(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int8]]:
        """What players see of some boards: uint8 [n, ...], legal moves uint8 [n, ceil(A / 8)], movers int8 [n]."""
        self._game.observe(self._observation, self._legal, self._mover)
        return self._observation[rows], self._legal[rows], self._mover[rows]

    def copies(self, rows: NDArray[np.int64]) -> list[Position]:
        """Copies of some boards."""
        return self._copy(rows)
