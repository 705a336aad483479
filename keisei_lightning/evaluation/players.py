"""Players choose moves: at random, by a script, by a search, by an engine process, or by a network.

Arrays suffice for most players; one that searches or asks an engine reads the game itself. What a player is stands in
:mod:`keisei_lightning.games.turns`, since self-play asks players too. This module needs no torch: the player that is a
network is in ``policy_player.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games.protocol import NO_MOVE, GameSpec
from keisei_lightning.games.turns import RESIGN, Player, Turn, ask_player

__all__ = ["RESIGN", "Player", "RandomPlayer", "Turn", "ask_player", "make_random"]


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
