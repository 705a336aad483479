"""A mate as a line of moves, for the command ``go mate``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from keisei_lightning.games.protocol import NO_MOVE, GameFactory
from keisei_lightning.games.shogi.codec import CHECK_BYTE
from keisei_lightning.games.shogi.game import Shogi
from keisei_lightning.games.shogi.rules import CHECKMATE

__all__ = ["gives_check", "mating_line"]

_FIRST_NODES: Final = 1000
_MOST_NODES: Final = 256_000
_LONGEST: Final = 200
_ONE: Final = np.zeros(1, np.int64)


def gives_check(game: Shogi, factory: GameFactory) -> bool:
    """Whether any move of the side to move is a check; without one there is no mate by checks.

    Args:
        game: its board 0; not changed.
        factory: makes the game.
    """
    board = _Board(game, factory)
    return any(board.checks(action) for action in board.legal())


def mating_line(game: Shogi, factory: GameFactory, goes_on: Callable[[], bool]) -> list[str] | None:
    """Moves of both sides that end in checkmate; None: none was found.

    Each move of the side to move is the first one of a forced mate. The answers between are not proven to be the
    longest resistance: one that is mated by the next move is played where there is no other.

    Args:
        game: its board 0; not changed.
        factory: makes the game.
        goes_on: is asked between searches.
    """
    board, nodes, names = _Board(game, factory), _FIRST_NODES, list[str]()
    while (win := board.find(nodes)) == NO_MOVE:
        nodes *= 4
        if nodes > _MOST_NODES or not goes_on():
            return None
    while win != NO_MOVE and len(names) < _LONGEST:
        names.append(board.play(win))
        if board.outcome == CHECKMATE:
            return names
        if board.outcome or not goes_on():
            return None
        reply = board.longest_reply()
        names.append(board.play(reply))
        win = board.find(_MOST_NODES)
    return None


class _Board:
    """A board of its own."""

    def __init__(self, game: Shogi, factory: GameFactory) -> None:
        made = factory(1)
        assert isinstance(made, Shogi)
        self._game = made
        made.opening_plies = 0
        made.reset()
        made.put_boards(_ONE, game.copy_boards(_ONE))
        self._observation = np.zeros((1, *made.spec.observation_shape), np.uint8)
        self._legal, self._mover = np.zeros((1, made.spec.mask_bytes), np.uint8), np.zeros(1, np.int8)

    @property
    def outcome(self) -> str:
        return self._game.outcome(0)

    def legal(self) -> list[int]:
        self._game.observe(self._observation, self._legal, self._mover)
        labels: list[int] = np.flatnonzero(np.unpackbits(self._legal[0])).tolist()
        return labels

    def find(self, nodes: int) -> int:
        return int(self._game.find_wins(_ONE, nodes)[0])

    def play(self, action: int) -> str:
        name = self._game.action_name(0, action)
        self._game.step(_ONE + action)
        return name

    def checks(self, action: int) -> bool:
        copy = self._game.copy_boards(_ONE)
        self._game.step(_ONE + action)
        self._game.observe(self._observation, self._legal, self._mover)
        self._game.put_boards(_ONE, copy)
        return bool(self._observation[0, CHECK_BYTE])

    def longest_reply(self) -> int:
        replies, copy = self.legal(), self._game.copy_boards(_ONE)
        for action in replies:
            self._game.step(_ONE + action)
            is_mated = self._game.mate_in_one(0) != NO_MOVE
            self._game.put_boards(_ONE, copy)
            if not is_mated:
                return action
        return replies[0]
