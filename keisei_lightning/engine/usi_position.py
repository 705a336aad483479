"""A position of shogi as a program gives it: start and moves, whatever the rules say of how it came to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keisei_lightning.errors import GameError
from keisei_lightning.games.protocol import GameFactory
from keisei_lightning.games.shogi.codec import REPETITION_BYTE
from keisei_lightning.games.shogi.game import Shogi
from keisei_lightning.games.shogi.rules import FOURTH, declarations

__all__ = ["UsiPosition"]


class UsiPosition:
    """One board. It is used by one thread.

    Where the rules here have ended a game and a program plays on (a fourth repetition, more plies than the game's
    limit, a declaration that nobody made), so does this: the position is looked at as one without a history.

    Args:
        factory: makes shogi.

    Raises:
        GameError: it makes another game.

    Attributes:
        game: with the one board; read only.
        observation: uint8 [1, 98].
        legal: uint8 [1, ceil(A / 8)], bit-packed: the moves to look at.
    """

    def __init__(self, factory: GameFactory) -> None:
        game = factory(1)
        if not isinstance(game, Shogi):
            raise GameError(f"the policy plays {game.spec.name}; USI is a protocol of shogi")
        self.game = game
        game.opening_plies = 0
        self.observation = np.zeros((1, *game.spec.observation_shape), np.uint8)
        self.legal = np.zeros((1, game.spec.mask_bytes), np.uint8)
        self._mover = np.zeros(1, np.int8)
        game.reset()
        self.look()

    @property
    def mover(self) -> int:
        """The seat to move: 0 for Black (sente), 1 for White."""
        return int(self._mover[0])

    @property
    def is_over(self) -> bool:
        """Whether there is no legal move."""
        return not self.legal.any()

    @property
    def outcome(self) -> str:
        """Why there is no legal move; empty where there is one."""
        return "no legal move" if self.is_over else ""

    @property
    def is_declared(self) -> bool:
        """Whether the side to move may declare a win by the 27-point entering-king rule."""
        return bool(declarations(self.observation, self._mover)[0])

    def legal_moves(self) -> dict[str, int]:
        """The moves to look at by their USI names, in the order of their labels."""
        labels = np.flatnonzero(np.unpackbits(self.legal[0], count=self.game.spec.num_actions))
        return {self.game.action_name(0, action): action for action in labels.tolist()}

    def set(self, text: str) -> None:
        """Put the board where a command ``position`` says.

        Args:
            text: ``startpos`` or ``sfen SFEN``, and ``moves`` with moves where there are any.

        Raises:
            GameError: it cannot be read, or a move is not legal.
        """
        start, word, moves = text.partition(" moves")
        kind, _, sfen = start.strip().partition(" ")
        if kind not in ("startpos", "sfen") or (kind == "startpos" and sfen.strip()):
            raise GameError(f"position {text[:200]}: must be position startpos|sfen SFEN [moves ...]")
        self.game.set_history(0, f"{sfen.strip() or kind}{word}{moves}")
        self.look()
        plies = int(self.game.position(0).rsplit(" ", 1)[1]) - 1
        is_long = plies >= self.game.spec.max_plies
        if is_long or self.observation[0, REPETITION_BYTE] >= FOURTH:
            board, number = self.game.position(0).rsplit(" ", 1)
            self.game.set_history(0, f"{board} {1 if is_long else number}")
            self.look()

    def keep(self, names: Sequence[str]) -> None:
        """Look at some moves alone, where any of them is legal.

        Args:
            names: USI names.
        """
        mask = np.zeros(self.game.spec.num_actions, np.uint8)
        mask[[action for name, action in self.legal_moves().items() if name in set(names)]] = 1
        if mask.any():
            self.legal &= np.packbits(mask)

    def look(self) -> None:
        """Look at all legal moves again."""
        self.game.observe(self.observation, self.legal, self._mover)
