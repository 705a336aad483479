"""The player that searches with anything that evaluates positions. Needs no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation.players import Turn
from keisei_lightning.games.protocol import GameFactory
from keisei_lightning.search import Found, Roots, SearchOptions, TreeSearch, copies_of
from keisei_lightning.search.cache import Evaluate

__all__ = ["EvaluatorPlayer"]


class EvaluatorPlayer:
    """Plays the move that a tree search finds best; all boards of a turn are searched together.

    A board's tree is kept for its next turn. With ``simulations=0`` the move is the evaluator's likeliest.

    Args:
        evaluate: evaluates positions.
        factory: makes the game that is played, with the same options.
        options: how to search; images of positions are the evaluator's own matter.
        name: name in tables and metrics.

    Attributes:
        found: what the last search found, in the order of the turn's boards; empty without a search.
    """

    def __init__(self, evaluate: Evaluate, factory: GameFactory, options: SearchOptions, *, name: str) -> None:
        self._name, self._options, self._evaluate = name, options, evaluate
        self._search = TreeSearch(evaluate, factory, options)
        self.found: list[Found] = []

    @property
    def name(self) -> str:
        """A short word for tables and metric names."""
        return self._name

    @property
    def deterministic(self) -> bool:
        """Only without a search: what it finds depends a little on how many boards are searched together."""
        return self._options.simulations == 0

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """Search all boards; see :meth:`~keisei_lightning.evaluation.Player.choose`.

        Raises:
            ConfigError: the evaluator does not fit the game.
            GameError: its evaluations are not finite.
        """
        try:
            if self._options.simulations == 0:
                return self._likeliest(turn)
            self.found = self._search.run(_roots(turn))
        except (ConfigError, GameError) as error:
            raise type(error)(f"player {self._name}: {error}") from error
        return np.array([found.action for found in self.found], np.int64)

    def _likeliest(self, turn: Turn) -> NDArray[np.int64]:
        """The evaluator's likeliest legal move of each board, the first one among equals: int64 [n]."""
        mask = np.unpackbits(turn.legal, axis=1, count=turn.game.spec.num_actions).view(np.bool_)
        log_probs = np.full(mask.shape, -np.inf)
        log_probs[mask], _ = self._evaluate(turn.observation, turn.legal)
        actions: NDArray[np.int64] = log_probs.argmax(axis=1)
        return actions


def _roots(turn: Turn) -> Roots:
    """The positions of a turn, to search."""
    game = turn.game
    observation = np.zeros((game.num_games, *game.spec.observation_shape), np.uint8)
    mover, legal = np.zeros(game.num_games, np.int8), np.zeros((game.num_games, game.spec.mask_bytes), np.uint8)
    game.observe(observation, legal, mover)
    return Roots(
        boards=[int(index) for index in turn.indices],
        positions=copies_of(game, turn.indices),
        observation=turn.observation,
        legal=turn.legal,
        mover=mover[turn.indices],
    )
