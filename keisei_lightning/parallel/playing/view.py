"""The policy's view of the games, which may be mirrored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games import NO_MOVE, Game, Symmetry
from keisei_lightning.games.turns import Turn

__all__ = ["PolicyView"]


class PolicyView:
    """Observations, legal moves and movers of all games as the policy sees them: mirrored for some of the games.

    Args:
        game: G boards.
        symmetry: the mirror image; None: no game is mirrored.

    Attributes:
        rng: decides which games are mirrored.
        observation: uint8 [G, *observation_shape].
        legal: packed uint8 [G, ceil(A / 8)].
        mover: int8 [G].
        mirrored: bool [G].
    """

    def __init__(self, game: Game, symmetry: Symmetry | None) -> None:
        self._game, self._symmetry = game, symmetry
        self.rng = np.random.default_rng(0)
        spec, num_games = game.spec, game.num_games
        self.observation = np.zeros((num_games, *spec.observation_shape), np.uint8)
        self.legal = np.zeros((num_games, spec.mask_bytes), np.uint8)
        self.mover = np.zeros(num_games, np.int8)
        self.mirrored = np.zeros(num_games, np.bool_)

    def begin_games(self, indices: NDArray[np.int64]) -> None:
        """Draw for games that begin whether they are mirrored."""
        if self._symmetry is not None:
            self.mirrored[indices] = self.rng.random(len(indices)) < 0.5

    def observe(self) -> None:
        """Write the present state of every game to the arrays, without mirroring."""
        self._game.observe(self.observation, self.legal, self.mover)

    def refresh(self) -> None:
        """Write the present state of every game to the arrays, as the policy sees it."""
        self.observe()
        if self._symmetry is None or not (rows := np.flatnonzero(self.mirrored)).size:
            return
        flat = self.observation.reshape(len(self.observation), -1)
        flat[rows] = flat[rows][:, self._symmetry.observation_index]
        bits = np.unpackbits(self.legal[rows], axis=1, count=self._game.spec.num_actions)
        self.legal[rows] = np.packbits(bits[:, self._symmetry.action_index], axis=1)

    def turn(self, indices: NDArray[np.int64]) -> Turn:
        """The boards of these indices as they are, without mirroring, for a player that reads the game itself."""
        observation, legal = self.observation[indices], self.legal[indices]
        if self.mirrored[indices].any():
            real = np.empty_like(self.observation), np.empty_like(self.legal), np.empty_like(self.mover)
            self._game.observe(*real)
            observation, legal = real[0][indices], real[1][indices]
        return Turn(game=self._game, indices=indices, observation=observation, legal=legal)

    def from_game(self, indices: NDArray[np.int64], actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Actions on these boards as the policy sees them; what :meth:`to_game` makes of them are the actions again."""
        if self._symmetry is None:
            return actions
        shown = np.argsort(self._symmetry.action_index)
        return np.where(self.mirrored[indices], shown[actions], actions)

    def to_game(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The actions as the game labels them: ``shown[j] = legal[action_index[j]]``, so j is the game's index[j]."""
        if self._symmetry is None:
            return actions
        real = self.mirrored & (actions != NO_MOVE)
        return np.where(real, self._symmetry.action_index[actions], actions)
