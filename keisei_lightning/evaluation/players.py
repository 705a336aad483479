"""Players choose moves: at random, by a script, by a search, by an engine process, or by a network.

A player gets all boards that wait for its move at once (:class:`Turn`), so that a network needs one forward pass.
Arrays suffice for most players; one that searches or asks an engine reads the game itself. This module needs no torch:
the player that is a network is in ``policy_player.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import GameError
from keisei_lightning.games.protocol import NO_MOVE, Game, GameSpec

__all__ = ["RESIGN", "Player", "RandomPlayer", "Turn", "ask_player", "make_random"]

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


@runtime_checkable
class Player(Protocol):
    """Chooses moves for many boards at once.

    A constructor starts nothing. A player that holds a process or a file has a ``close()``, and may have a ``start()``,
    which is called once before the first turn and raises ``ConfigError`` where the process cannot work
    (:func:`~keisei_lightning.evaluation.start_player`). A player that always chooses the same move in a position (with
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


class RandomPlayer:
    """Plays uniformly among the legal moves.

    Args:
        num_actions: A, the number of action labels.
        seed: seed of the player's own random stream; no other stream is touched.
        name: name in tables and metrics.
    """

    def __init__(self, num_actions: int, seed: int = 0, *, name: str = "random") -> None:
        self._num_actions = num_actions
        self._rng = np.random.default_rng(seed)
        self._name = name

    @property
    def name(self) -> str:
        """Short name in tables and metrics."""
        return self._name

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """Choose uniformly; see :meth:`Player.choose`. Only ``turn.legal`` is read."""
        return self.draw(turn.legal)

    def draw(self, legal: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Draw a legal move of each row: uint8 [n, ceil(A / 8)] -> int64 [n], ``NO_MOVE`` where there is none."""
        rows, columns = np.nonzero(np.unpackbits(legal, axis=-1, count=self._num_actions))
        counts = np.bincount(rows, minlength=len(legal))
        first = np.cumsum(counts) - counts
        # A draw from [0, 1) is below 1, but its product with the count may round up to the count.
        nth = np.minimum((self._rng.random(len(legal)) * counts).astype(np.int64), np.maximum(counts - 1, 0))
        actions = np.full(len(legal), NO_MOVE, dtype=np.int64)
        some = counts > 0
        actions[some] = columns[(first + nth)[some]]
        return actions


def make_random(spec: GameSpec, *, seed: int, name: str) -> RandomPlayer:
    """Make a :class:`RandomPlayer` by its name (entry point)."""
    return RandomPlayer(spec.num_actions, seed, name=name)
