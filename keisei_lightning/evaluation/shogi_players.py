"""Scripted shogi players: rungs between random play and an engine.

Against random play a learner's score is soon close to 1 and tells no more. The greedy capturer takes whatever it can,
the one above it mates as well when it can in one move: both are quick, need no other program, and are the same players
everywhere.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import GameError, UnsupportedGameError
from keisei_lightning.evaluation.players import RandomPlayer, Turn
from keisei_lightning.games.protocol import NO_MOVE, GameSpec
from keisei_lightning.games.shogi.codec import NUM_ACTIONS, NUM_MOVE_TYPES, NUM_SQUARE_CODES, NUM_SQUARES
from keisei_lightning.games.shogi.game import Shogi

__all__ = [
    "PIECE_VALUES",
    "GreedyCapturePlayer",
    "MateInOnePlayer",
    "check_plays_shogi",
    "make_greedy_capture",
    "make_mate_in_one",
    "shogi_boards",
]

PIECE_VALUES: Final = (90, 315, 405, 495, 855, 990, 540, 0, 540, 540, 540, 540, 945, 1395)
"""Values of the pieces in the order of :data:`~keisei_lightning.games.shogi.codec.PIECE_NAMES`, a pawn is 90: the
material values of the engine Apery (26th World Computer Shogi Championship, 2016). A king is never captured."""

_FIRST_OPPONENTS_CODE: Final = 15
_PRIZE: Final = np.zeros(NUM_SQUARE_CODES, dtype=np.int64)  # by square code: what a move to that square captures
_PRIZE[_FIRST_OPPONENTS_CODE:] = PIECE_VALUES


class GreedyCapturePlayer:
    """Captures the most valuable piece that it can; a random legal move where there is nothing to capture.

    The value is that of the piece on the board (a promoted pawn counts as such, not as the pawn that arrives in the
    hand). Among moves that capture pieces of the same value, with or without promotion, it chooses uniformly.

    Args:
        seed: of its own random stream; no other stream is touched.
        name: for tables and metric names.
    """

    def __init__(self, seed: int = 0, *, name: str = "greedy_capture") -> None:
        self._chance = RandomPlayer(NUM_ACTIONS, seed)
        self._name = name

    @property
    def name(self) -> str:
        """A short word for tables and metric names."""
        return self._name

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """All boards at once, from their arrays; see :meth:`~keisei_lightning.evaluation.Player.choose`."""
        legal = np.unpackbits(turn.legal, axis=-1, count=NUM_ACTIONS)
        # A label is move type * 81 + target square, so that one row of squares serves every move type.
        prize = np.tile(_PRIZE[turn.observation[:, :NUM_SQUARES]], NUM_MOVE_TYPES) * legal
        best = prize.max(axis=-1, keepdims=True)
        return self._chance.draw(np.packbits(legal & (prize == best), axis=-1))


class MateInOnePlayer:
    """Checkmates in one move if it can; plays as :class:`GreedyCapturePlayer` otherwise.

    Args:
        seed: of its own random stream; no other stream is touched.
        name: for tables and metric names.
    """

    def __init__(self, seed: int = 0, *, name: str = "mate_in_one") -> None:
        self._greedy = GreedyCapturePlayer(seed)
        self._name = name

    @property
    def name(self) -> str:
        """A short word for tables and metric names."""
        return self._name

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """Ask every board for a mate; see :meth:`~keisei_lightning.evaluation.Player.choose`.

        Raises:
            GameError: the boards are not those of shogi, or belong to another thread.
        """
        boards = shogi_boards(turn, self._name)
        mates = np.array([boards.mate_in_one(index) for index in turn.indices.tolist()], dtype=np.int64)
        return np.where(mates != NO_MOVE, mates, self._greedy.choose(turn))


def check_plays_shogi(spec: GameSpec, name: str) -> None:
    """Refuse a game that a shogi player cannot play.

    Args:
        spec: of the game.
        name: of the player, for the message.

    Raises:
        UnsupportedGameError: the game is not shogi.
    """
    if spec.name != "shogi":
        raise UnsupportedGameError(f"player {name}: game={spec.name}: must be shogi")


def shogi_boards(turn: Turn, name: str) -> Shogi:
    """The boards of a turn.

    Args:
        turn: the boards that wait.
        name: of the player, for the message.

    Raises:
        GameError: they are not those of shogi.
    """
    if not isinstance(turn.game, Shogi):
        raise GameError(f"player {name}: plays on boards of Shogi only, not of {type(turn.game).__name__}")
    return turn.game


def make_greedy_capture(spec: GameSpec, *, seed: int, name: str) -> GreedyCapturePlayer:
    """Make a :class:`GreedyCapturePlayer` by its name (entry point).

    Raises:
        UnsupportedGameError: the game is not shogi.
    """
    check_plays_shogi(spec, name)
    return GreedyCapturePlayer(seed, name=name)


def make_mate_in_one(spec: GameSpec, *, seed: int, name: str) -> MateInOnePlayer:
    """Make a :class:`MateInOnePlayer` by its name (entry point).

    Raises:
        UnsupportedGameError: the game is not shogi.
    """
    check_plays_shogi(spec, name)
    return MateInOnePlayer(seed, name=name)
