"""The player that searches with a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation.players import Turn
from keisei_lightning.evaluation.policy_player import PolicyPlayer
from keisei_lightning.games.protocol import GameFactory
from keisei_lightning.search import Found, Roots, SearchOptions, TreeSearch, copies_of
from keisei_lightning.search.network import NetworkEvaluator

if TYPE_CHECKING:
    from keisei_lightning.models.actor_critic import ActorCritic

__all__ = ["SearchPlayer"]


class SearchPlayer:
    """Plays the move that a tree search over a network finds best; all boards of a turn are searched together.

    A board's tree is kept for its next turn. With ``simulations=0`` it is
    :class:`~keisei_lightning.evaluation.PolicyPlayer`, bit for bit.

    Args:
        actor_critic: the network with its policy and value.
        factory: makes the game that is played, with the same options.
        options: how to search.
        name: name in tables and metrics.

    Attributes:
        found: what the last search found, in the order of the turn's boards; empty without a search.
    """

    def __init__(
        self, actor_critic: ActorCritic, factory: GameFactory, options: SearchOptions, *, name: str = "search"
    ) -> None:
        self._name, self._options = name, options
        spec = factory(1).spec
        symmetries = spec.symmetries if options.mirror else ()
        self._policy = PolicyPlayer(actor_critic, symmetries=symmetries, name=name)
        self._search = TreeSearch(NetworkEvaluator(actor_critic, spec, symmetries=symmetries), factory, options)
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
            ConfigError: the network's outputs do not fit the game.
            GameError: the network's outputs are not finite.
        """
        if self._options.simulations == 0:
            return self._policy.choose(turn)
        game = turn.game
        observation = np.zeros((game.num_games, *game.spec.observation_shape), np.uint8)
        mover, legal = np.zeros(game.num_games, np.int8), np.zeros((game.num_games, game.spec.mask_bytes), np.uint8)
        game.observe(observation, legal, mover)
        roots = Roots(
            boards=[int(index) for index in turn.indices],
            positions=copies_of(game, turn.indices),
            observation=turn.observation,
            legal=turn.legal,
            mover=mover[turn.indices],
        )
        try:
            self.found = self._search.run(roots)
        except (ConfigError, GameError) as error:
            raise type(error)(f"player {self._name}: {error}") from error
        return np.array([found.action for found in self.found], np.int64)
