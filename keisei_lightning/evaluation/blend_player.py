"""A player that plays some of its moves as another one would, and the others at random: players between the two."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.players import Player, RandomPlayer, Turn
from keisei_lightning.evaluation.registry import make_player
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.games.turns import ask_player, closing_player, start_player

__all__ = ["BlendPlayer", "make_blend"]


class BlendPlayer:
    """Draws for each move who chooses it: another player, or chance among the legal moves.

    Args:
        player: the other player; it is started and closed with this one.
        share: probability that a move is the other player's, from 0 to 1.
        num_actions: A, the number of action labels.
        seed: of its own random streams.
        name: name in tables and metrics.
    """

    def __init__(self, player: Player, share: float, *, num_actions: int, seed: int = 0, name: str = "blend") -> None:
        whose, moves = np.random.SeedSequence(seed).generate_state(2).tolist()
        self._player, self._share, self._name = player, share, name
        self._rng = np.random.default_rng(whose)
        self._chance = RandomPlayer(num_actions, moves)

    @property
    def name(self) -> str:
        """A short word for tables and metric names."""
        return self._name

    def start(self) -> None:
        """Start the other player.

        Raises:
            ConfigError: it cannot be started.
        """
        start_player(self._player)

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """Ask the other player for its share of the boards; see :meth:`~keisei_lightning.evaluation.Player.choose`.

        Raises:
            GameError: its answer is none, see :func:`~keisei_lightning.games.turns.ask_player`.
        """
        asked = self._rng.random(len(turn.indices)) < self._share
        actions = self._chance.draw(turn.legal)
        if asked.any():
            actions[asked] = ask_player(self._player, turn.take(np.flatnonzero(asked)))
        return actions

    def close(self) -> None:
        """Close the other player."""
        with closing_player(self._player):
            pass


def make_blend(spec: GameSpec, *, seed: int, name: str, player: str, share: float) -> BlendPlayer:
    """Make a :class:`BlendPlayer` by its name (entry point).

    Args:
        spec: the game.
        seed: of both players' random streams.
        name: for tables and metric names.
        player: name of the other player; in quotation marks where it has options.
        share: probability that a move is that player's, from 0 to 1.

    Raises:
        ConfigError: the share is no probability, or the other player cannot be made.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"player {name}: share={share}: must be from 0 to 1")
    own, others = np.random.SeedSequence(seed).generate_state(2).tolist()
    return BlendPlayer(make_player(player, spec, seed=others), share, num_actions=spec.num_actions, seed=own, name=name)
