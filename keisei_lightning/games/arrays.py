"""What many games share: the legal moves of G boards in arrays, and checks of arguments and options.

A game that keeps its boards one by one (in a rules library, say) finds the legal moves of a board as a short list of
numbers of its own. :class:`LegalMoves` holds them for all boards by action label, so that looking up an action,
refusing an illegal one and packing the masks are each one NumPy operation for all boards.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.games.protocol import NO_MOVE

__all__ = ["LegalMoves", "OwnThread", "as_actions", "as_indices", "check_options"]


class LegalMoves:
    """Legal moves of G boards by action label; a move is a number above 0 of the game's own.

    Args:
        num_games: G.
        num_actions: A.
        highest: the largest number of a move, for which the table has room.
    """

    def __init__(self, num_games: int, num_actions: int, *, highest: int) -> None:
        self._num_actions = num_actions
        self._width = 8 * math.ceil(num_actions / 8)  # whole bytes of the packed mask; the rest stays 0
        self._table = np.zeros((num_games, self._width), dtype=np.min_scalar_type(highest))

    def write(
        self,
        rows: NDArray[np.int64],
        sizes: list[int],
        labels: NDArray[np.integer],
        moves: NDArray[np.integer],
    ) -> None:
        """Replace the legal moves of some boards.

        Args:
            rows: int64 [n], the boards, each at most once.
            sizes: number of legal moves of each of them.
            labels: integers [sum(sizes)], action labels, board after board.
            moves: integers [sum(sizes)], the game's own number (above 0, at most ``highest``) of each.
        """
        if len(rows) == len(self._table):
            self._table.fill(0)  # a plain memset is several times quicker than an indexed one
        else:
            self._table[rows] = 0
        self._table.reshape(-1)[np.repeat(rows * self._width, sizes) + labels] = moves

    def row(self, index: int) -> NDArray[np.unsignedinteger[Any]]:
        """The legal moves of one board, for :meth:`put_row`."""
        row: NDArray[np.unsignedinteger[Any]] = self._table[index].copy()
        return row

    def put_row(self, index: int, row: NDArray[np.unsignedinteger[Any]]) -> None:
        """Give one board the legal moves of another one, from :meth:`row`."""
        self._table[index] = row

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Leave some boards without a legal move (finished)."""
        self._table[rows] = 0

    def lookup(self, rows: NDArray[np.int64], actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The game's own number of each action, int64 [n]; 0 where the action is illegal or no label at all."""
        known = (actions >= 0) & (actions < self._num_actions)
        return np.where(known, self._table[rows, np.where(known, actions, 0)], 0).astype(np.int64)

    def pack(self, legal: NDArray[np.uint8]) -> None:
        """Write the masks into uint8 [G, ceil(A / 8)], bit-packed in ``np.packbits`` order, any strides."""
        legal[...] = np.packbits(self._table != 0, axis=1)


class OwnThread:
    """Ties an object to the thread that uses it first.

    A rules library may keep boards that other threads must not touch (rsshogi ends the whole process then, which cannot
    be caught), so the mistake is refused before the library sees it.

    Args:
        game: name for the message.
    """

    def __init__(self, game: str) -> None:
        self._game = game
        self._owner: int | None = None

    def check(self) -> None:
        """Refuse a second thread.

        Raises:
            GameError: another thread used the game before.
        """
        caller = threading.get_ident()
        if self._owner is None:
            self._owner = caller
        elif self._owner != caller:
            raise GameError(f"{self._game}: a game belongs to the thread that used it first; make one in each thread")


def as_actions(actions: NDArray[np.int64], num_games: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split off the boards that move.

    Args:
        actions: integers [G].
        num_games: G.

    Returns:
        The boards with another action than :data:`NO_MOVE`, int64 [n], and their actions, int64 [n].

    Raises:
        GameError: the shape is not [G], or the numbers are no integers.
    """
    actions = np.asarray(actions)
    if actions.shape != (num_games,) or actions.dtype.kind not in "iu":
        raise GameError(f"actions must be integers of shape ({num_games},), not {actions.dtype} {actions.shape}")
    rows = np.flatnonzero(actions != NO_MOVE)
    return rows, actions[rows].astype(np.int64)


def as_indices(indices: NDArray[np.int64] | None, num_games: int) -> list[int]:
    """The boards that a caller names, in the caller's order and each once; None names all.

    Raises:
        GameError: there is no such board, or the indices are no integers (a mask, say).
    """
    if indices is None:
        return list(range(num_games))
    indices = np.asarray(indices)
    if indices.size and indices.dtype.kind not in "iu":
        raise GameError(f"boards are named by their indices, not by {indices.dtype}")
    named = list(dict.fromkeys(indices.reshape(-1).tolist()))
    for index in named:
        if not 0 <= index < num_games:
            raise GameError(f"there is no board {index}: indices go from 0 to {num_games - 1}")
    return named


def check_options(
    game: str, integers: Mapping[str, tuple[object, int]], flags: Mapping[str, object] | None = None
) -> None:
    """Check the options of a game.

    Args:
        game: name for the message.
        integers: value and smallest legal value of each whole-number option.
        flags: value of each yes-or-no option.

    Raises:
        ConfigError: one line for each option that is of another type or too small.
    """
    errors = [
        f"{game}: {key}={value!r} must be an integer of at least {least}"
        for key, (value, least) in integers.items()
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least
    ]
    errors += [
        f"{game}: {key}={value!r} must be True or False"
        for key, value in (flags or {}).items()
        if not isinstance(value, bool)
    ]
    if errors:
        raise ConfigError(errors)
