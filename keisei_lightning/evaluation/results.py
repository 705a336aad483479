"""What matches come to: counts, scores with their intervals, and the games themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["GameRecord", "MatchResult", "Tally", "wilson_interval"]

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


def wilson_interval(score: float, num_games: int, *, z: float = Z_95) -> tuple[float, float]:
    r"""Wilson's score interval for a proportion.

    .. math::
        \frac{p + \frac{z^2}{2n} \pm z \sqrt{\frac{p (1 - p)}{n} + \frac{z^2}{4 n^2}}}{1 + \frac{z^2}{n}}

    A draw counts as half a win here. The variance of such a score is at most that of a proportion with the same mean,
    so with draws the interval is wider than it needs to be, never narrower.

    Args:
        score: p, points per game in [0, 1].
        num_games: n, at least 1.
        z: quantile of the standard normal distribution; the default gives 95 %.

    Returns:
        Lower and upper end, within [0, 1].

    References:
        E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference", Journal of the
        American Statistical Association 22.
    """
    centre = score + z * z / (2 * num_games)
    spread = z * math.sqrt(max(0.0, score * (1.0 - score)) / num_games + z * z / (4 * num_games * num_games))
    scale = 1.0 + z * z / num_games
    # At scores of 0 and 1 an end is the score itself; rounding must not put it on the wrong side.
    return max(0.0, min(score, (centre - spread) / scale)), min(1.0, max(score, (centre + spread) / scale))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Wins, draws and losses of one player.

    Attributes:
        wins: games won.
        draws: games drawn, with those that were cut short without a result.
        losses: games lost.
    """

    wins: int = 0
    draws: int = 0
    losses: int = 0

    @property
    def games(self) -> int:
        """Number of games counted."""
        return self.wins + self.draws + self.losses

    @property
    def score(self) -> float:
        """Points per game: (wins + draws / 2) / games."""
        return (self.wins + 0.5 * self.draws) / self.games if self.games else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The score's 95 % interval; see :func:`wilson_interval`."""
        return wilson_interval(self.score, self.games) if self.games else (0.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class GameRecord:
    """One game of a match.

    Attributes:
        first: name of the player in seat 0.
        second: name of the player in seat 1.
        outcome: how it ended ("checkmate", "resignation", "void", ...).
        points: +1, 0 or -1, to the match's first-named player.
        plies: of the game without its opening.
        record: the moves, as other programs read them (KIF for shogi); it begins with the position after the opening.
    """

    first: str
    second: str
    outcome: str
    points: int
    plies: int
    record: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchResult:
    """What a match came to, as the first-named player sees it.

    Attributes:
        game: the game's name.
        player: name of the player whose wins are counted.
        opponent: name of the other one.
        as_first: its games in seat 0.
        as_second: its games in seat 1.
        void: further games, which count for nobody: a player (an engine, say) had no answer.
        repeated: games that went move by move as another one; with any, the interval is narrower than it should be.
        outcomes: how many games ended in which way ("checkmate", "max plies", ...).
        mean_length: plies of a game on average, without its opening.
        records: all games, if they were to be kept.
        last_record: one game as a record that other programs read (KIF for shogi): the last to be won or lost, or the
            last to end where all were drawn.
        last_svg: the final position of that game as a drawing.
        last_title: one line that names that game's players, seats and end.
    """

    game: str
    player: str
    opponent: str
    as_first: Tally
    as_second: Tally
    void: int = 0
    repeated: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    mean_length: float = 0.0
    records: tuple[GameRecord, ...] = ()
    last_record: str = ""
    last_svg: str = ""
    last_title: str = ""

    @property
    def total(self) -> Tally:
        """Both seats together."""
        first, second = self.as_first, self.as_second
        return Tally(
            wins=first.wins + second.wins, draws=first.draws + second.draws, losses=first.losses + second.losses
        )

    @property
    def wins(self) -> int:
        """Games won."""
        return self.total.wins

    @property
    def draws(self) -> int:
        """Games drawn."""
        return self.total.draws

    @property
    def losses(self) -> int:
        """Games lost."""
        return self.total.losses

    @property
    def num_games(self) -> int:
        """Games that count."""
        return self.total.games

    @property
    def score(self) -> float:
        """Points per game: (wins + draws / 2) / games."""
        return self.total.score

    @property
    def interval(self) -> tuple[float, float]:
        """The score's 95 % interval; see :func:`wilson_interval`."""
        return self.total.interval

    def __str__(self) -> str:
        """One line for a person."""
        low, high = self.interval
        void = f", {self.void} void" if self.void else ""
        return (
            f"{self.player} scores {self.score:.1%} against {self.opponent} "
            f"(95 % interval {low:.1%} to {high:.1%}; {self.wins} wins, {self.draws} draws, {self.losses} losses{void})"
        )
