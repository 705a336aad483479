"""The player that searches with a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from keisei_lightning.evaluation.evaluator_player import EvaluatorPlayer
from keisei_lightning.evaluation.players import Turn
from keisei_lightning.evaluation.policy_player import PolicyPlayer
from keisei_lightning.games.protocol import GameFactory
from keisei_lightning.search import SearchOptions
from keisei_lightning.search.network import NetworkEvaluator

if TYPE_CHECKING:
    from keisei_lightning.models.actor_critic import ActorCritic

__all__ = ["SearchPlayer"]


class SearchPlayer(EvaluatorPlayer):
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
        spec = factory(1).spec
        symmetries = spec.symmetries if options.mirror else ()
        super().__init__(NetworkEvaluator(actor_critic, spec, symmetries=symmetries), factory, options, name=name)
        self._policy = PolicyPlayer(actor_critic, symmetries=symmetries, name=name)

    @override
    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """Search all boards; see :meth:`~keisei_lightning.evaluation.Player.choose`.

        Raises:
            ConfigError: the network's outputs do not fit the game.
            GameError: the network's outputs are not finite.
        """
        return self._policy.choose(turn) if self._options.simulations == 0 else super().choose(turn)
