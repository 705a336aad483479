"""Who moves by itself in a game with people: a policy with a search, or any registered player."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from keisei_lightning.errors import GameError
from keisei_lightning.games.protocol import NO_MOVE
from keisei_lightning.games.turns import Player, Turn, ask_player
from keisei_lightning.play.analysis import Analysis, Analyst, choose_move
from keisei_lightning.play.session import GameSession
from keisei_lightning.play.strength import StrengthOptions

__all__ = ["Choice", "Going", "Opponent", "PlayerOpponent", "PolicyOpponent"]

Going = Callable[[], bool]
"""Says whether to go on thinking; it is asked often."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What an opponent does.

    Attributes:
        action: label in its view, or :data:`~keisei_lightning.games.turns.RESIGN`.
        analysis: what it thinks of the position; None: it does not tell.
    """

    action: int
    analysis: Analysis | None = None


class Opponent(Protocol):
    """Moves by itself."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    def choose(self, session: GameSession, going: Going) -> Choice:
        """Choose a move; nothing is changed in the game.

        Args:
            session: the game, which is not over.
            going: once it says no, the best move so far is taken.

        Raises:
            KeiseiError: it has no move.
        """
        ...


class PolicyOpponent:
    """A policy, which also gives hints.

    Args:
        analyst: looks at positions by it.
        name: for people.
        strength: how it chooses; it may be set between moves.
        random: source of its samples.
    """

    def __init__(self, analyst: Analyst, name: str, strength: StrengthOptions, random: np.random.Generator) -> None:
        self._analyst, self._name, self._random = analyst, name, random
        self.strength = strength

    @property
    def name(self) -> str:
        """See :class:`Opponent`."""
        return self._name

    def analyse(self, session: GameSession, going: Going) -> Analysis:
        """What it thinks of a position, with its present strength; see :meth:`choose`."""
        return self._analyst.analyse(
            session,
            simulations=self.strength.simulations,
            seconds=self.strength.seconds,
            goes_on=going,
        )

    def choose(self, session: GameSession, going: Going) -> Choice:
        """See :class:`Opponent`."""
        analysis = self.analyse(session, going)
        move = choose_move(analysis, temperature=self.strength.temperature, random=self._random)
        return Choice(move.action, analysis)


class PlayerOpponent:
    """A player of matches, who cannot be stopped while he thinks.

    Args:
        player: started.
    """

    def __init__(self, player: Player) -> None:
        self._player = player

    @property
    def name(self) -> str:
        """See :class:`Opponent`."""
        return self._player.name

    def choose(self, session: GameSession, going: Going) -> Choice:
        """See :class:`Opponent`."""
        turn = Turn(game=session.game, indices=np.array([0]), observation=session.observation, legal=session.legal)
        action = int(ask_player(self._player, turn)[0])
        if action == NO_MOVE:
            raise GameError(f"{self.name}: has no move (its engine may have ended)")
        return Choice(action)
