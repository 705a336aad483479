"""Who chooses moves: the boards that wait for a move, the interface of a player, and the check of its answer.

It lies here, below both, since matches ask players and so does self-play, where they are opponents. A player gets all
boards that wait for its move at once (:class:`Turn`), so that a network needs one forward pass. Players themselves are
in :mod:`keisei_lightning.evaluation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import GameError
from keisei_lightning.games.protocol import NO_MOVE, Game, GameSpec

__all__ = ["RESIGN", "Player", "PlayerFactory", "Turn", "ask_player", "closing_player", "start_player"]

RESIGN: Final = -2
"""Instead of an action: the player resigns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """The boards that wait for a player's move.

    Attributes:
        game: the game, to read (``position(i)``, ``history(i)``, ...); a player must not step, reset or set it.
        indices: int64 [n], the boards of the game that wait.
        observation: uint8 [n, *observation_shape], the mover's view.
        legal: uint8 [n, ceil(A / 8)], bit-packed in ``np.packbits`` order.
    """

    game: Game
    indices: NDArray[np.int64]
    observation: NDArray[np.uint8]
    legal: NDArray[np.uint8]

    def take(self, rows: NDArray[np.int64]) -> Turn:
        """Some of the boards: rows of this turn, int64 [m]."""
        return Turn(
            game=self.game, indices=self.indices[rows], observation=self.observation[rows], legal=self.legal[rows]
        )


@runtime_checkable
class Player(Protocol):
    """Chooses moves for many boards at once.

    A constructor starts nothing. A player that holds a process or a file has a ``close()``, and may have a ``start()``,
    which is called once before the first turn and raises ``ConfigError`` where the process cannot work
    (:func:`start_player`). A player that always chooses the same move in a position (with
    the moves since its game's start) may declare ``deterministic = True``: a match of two such players plays an opening
    once, however often it is drawn.
    """

    @property
    def name(self) -> str:
        """Short name in tables and metrics, such as ``"random"``."""
        ...

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """Choose one legal move on each of n boards.

        Returns:
            int64 [n]: action labels in the mover's view; :data:`RESIGN`; or
            :data:`~keisei_lightning.games.NO_MOVE` where the player has no move (none is legal, its engine died):
            such a game is void. Anything else ends the match (:func:`ask_player`).
        """
        ...


PlayerFactory = Callable[[GameSpec, int], Player]
"""Makes a player of a game, with the seed of its random streams. It starts nothing."""


def ask_player(player: Player, turn: Turn) -> NDArray[np.int64]:
    """Let a player choose, and check its answer: an error of a player must not become a result of the game.

    Args:
        player: the player to move.
        turn: the boards that wait for its move.

    Returns:
        int64 [n]: for each board a legal action, :data:`RESIGN` or :data:`~keisei_lightning.games.NO_MOVE`.

    Raises:
        GameError: the answer is of another shape or dtype, or an action is out of range or illegal.
    """
    spec, num_boards = turn.game.spec, len(turn.indices)
    answer = np.asarray(player.choose(turn))
    if answer.shape != (num_boards,) or answer.dtype.kind not in "iu":
        raise GameError(
            f"player {player.name}: gives actions {answer.dtype} {list(answer.shape)}; "
            f"must be integers [{num_boards}], one for each board"
        )
    is_label = (answer >= 0) & (answer < spec.num_actions)
    actions = np.where(is_label, answer, 0).astype(np.int64)
    bits = turn.legal[np.arange(num_boards), actions >> 3] >> (7 - (actions & 7)).astype(np.uint8) & 1
    is_valid = np.where(is_label, bits == 1, (answer == NO_MOVE) | (answer == RESIGN))
    for row in np.flatnonzero(~is_valid)[:1].tolist():
        where = f"in position {turn.game.position(int(turn.indices[row]))}"
        if is_label[row]:
            raise GameError(f"player {player.name}: action {answer[row]} is illegal {where}")
        raise GameError(
            f"player {player.name}: action {answer[row]} is out of range {where}; must be from 0 to "
            f"{spec.num_actions - 1}, or {RESIGN} to resign, or {NO_MOVE} for no answer"
        )
    return answer.astype(np.int64)


def start_player(player: Player) -> None:
    """Start what a player works with, such as an engine's process, if it has a ``start()``.

    Raises:
        ConfigError: it cannot be started, or does not work as it was configured.
    """
    start = getattr(player, "start", None)
    if start is not None:
        start()


@contextmanager
def closing_player(player: Player) -> Iterator[Player]:
    """Context that closes a player at its end, if the player holds something (has a ``close()``)."""
    try:
        yield player
    finally:
        close = getattr(player, "close", None)
        if close is not None:
            close()
