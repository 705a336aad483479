"""The learner's score against one opponent, and how likely each opponent is to be met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SnapshotStanding", "chances", "snapshot_name"]

_WINDOW_GAMES = 200
"""The score against an opponent is a mean over about this many games: the learner changes."""

_HARD_EXPONENT = 2
_NO_WEIGHT = 1e-10  # of all opponents together: the learner beats every one of them always


def snapshot_name(version: int) -> str:
    """The name of a snapshot of this run in tables."""
    return f"snapshot {version}"


@dataclass(kw_only=True, slots=True)
class SnapshotStanding:
    """One opponent, such as a snapshot of the ring, and the learner's score against it.

    Attributes:
        version: its policy version, or what stands for it.
        buffer: which buffer holds its weights; None: it is a player, and has none.
        games: finished games against it.
        score: the learner's points per game, over about the last 200 of them; 0.5 before the first.
        member: its name in the league; empty: it is a snapshot of this run.
    """

    version: int
    buffer: int | None
    games: int = 0
    score: float = 0.5
    member: str = ""

    @property
    def name(self) -> str:
        """Its name in tables."""
        return self.member or snapshot_name(self.version)

    def add(self, points: float, games: int) -> None:
        """Count finished games.

        The score before weighs as many games as it is of (and one more at 0.5, so that a few wins are no certainty),
        at most 200.

        Args:
            points: of the learner in these games.
            games: how many.
        """
        before = min(self.games + 1, _WINDOW_GAMES)
        self.games += games
        self.score += (points / games - self.score) * games / (before + games)


def chances(standings: Sequence[SnapshotStanding], *, prioritised: bool) -> NDArray[np.float64]:
    """The probability of each opponent.

    Args:
        standings: of n opponents.
        prioritised: prefer those that the learner does badly against.

    Returns:
        float64 [n].
    """
    weights = np.ones(len(standings))
    if prioritised:
        hardness = np.array([1.0 - standing.score for standing in standings]) ** _HARD_EXPONENT
        weights = weights if hardness.sum() < _NO_WEIGHT else hardness
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares
