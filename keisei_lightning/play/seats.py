"""Who has which seat of a game: persons, a policy, and perhaps another player."""

from __future__ import annotations

from typing import Final, Literal, get_args

from keisei_lightning.errors import ConfigError
from keisei_lightning.play.opponents import Opponent, PolicyOpponent
from keisei_lightning.play.words import SEATS

__all__ = ["SIDES", "Seats", "Side"]

Side = Literal["first", "second", "both", "none"]
"""The seats that persons have."""

SIDES: Final[tuple[Side, ...]] = get_args(Side)


class Seats:
    """Who has which seat.

    Args:
        policy: gives hints, and plays where there is no other opponent; None: there is none.
        other: plays instead of the policy; None: nobody does.
        side: the seats of persons. With "none" the policy is first, and the other opponent second.

    Raises:
        ConfigError: nobody is there to play against.

    Attributes:
        opponents: in seat 0 and 1; None: a person.
    """

    def __init__(self, policy: PolicyOpponent | None, other: Opponent | None, side: Side) -> None:
        self.policy, self._other = policy, other
        self.opponents: tuple[Opponent | None, Opponent | None] = (None, None)
        self.take(side)

    def take(self, side: Side) -> None:
        """Give persons these seats.

        Raises:
            ConfigError: nobody is there to play against; nothing is changed.
        """
        opponent = self._other or self.policy
        if side != "both" and opponent is None:
            raise ConfigError(f"side={side}: must be both where there is neither a policy nor an opponent")
        self.opponents = {
            "first": (None, opponent),
            "second": (opponent, None),
            "both": (None, None),
            "none": (self.policy or opponent, opponent),
        }[side]

    def switch(self) -> None:
        """Exchange the seats."""
        self.opponents = (self.opponents[1], self.opponents[0])

    def __str__(self) -> str:
        """Who plays, such as "you (first) against connect_four"."""
        if self.opponents == (None, None):
            return "two persons"
        first, second = self.names
        if second == "you":
            return f"you (second) against {first}"
        return f"{first} (first) against {second}"

    @property
    def names(self) -> tuple[str, str]:
        """Of the players in seat 0 and 1: "you" is the only person."""
        alone = self.opponents.count(None) == 1
        first, second = (
            opponent.name if opponent is not None else "you" if alone else seat
            for opponent, seat in zip(self.opponents, SEATS, strict=True)
        )
        return first, second
