"""Results of matches: counts, scores with their intervals, and the games themselves.

A match draws openings independently and plays each of them twice, with the seats exchanged. So its pairs of games are
independent, and the two games of a pair are not: an opening that wins for the first player costs each player one game
of the pair. Intervals are based on the pairs (:func:`design_effect`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["PAIR_POINTS", "GameRecord", "MatchResult", "Tally", "design_effect", "wilson_interval"]

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""

PAIR_POINTS = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Points that a pair of games can bring; counts of pairs by their points are called pentanomial."""


def wilson_interval(score: float, num_games: float, *, z: float = Z_95) -> tuple[float, float]:
    r"""Wilson's score interval for a proportion.

    .. math::
        \frac{p + \frac{z^2}{2n} \pm z \sqrt{\frac{p (1 - p)}{n} + \frac{z^2}{4 n^2}}}{1 + \frac{z^2}{n}}

    A draw counts as half a win here. The variance of such a score is at most that of a proportion with the same mean,
    so with draws the interval is wider than it needs to be, never narrower.

    Args:
        score: p, points per game in [0, 1].
        num_games: n, above 0; for dependent games their effective number (:attr:`Tally.effective_games`).
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


def design_effect(pairs: Sequence[int], *, single_games: int = 0, single_points: float = 0.0) -> float:
    r"""Variance of a match's score, relative to that of as many independent games without draws.

    Pairs i = 1 ... n of games are independent; y_i points come of the m_i games of a pair that count, M games and Y
    points in all. With the score p = Y / M, the variance of that ratio is the one of a sample of clusters, and the
    design effect compares it with p (1 - p) / M:

    .. math::
        \operatorname{Var}(p) \approx \frac{1}{M^2} \sum_i (y_i - p \, m_i)^2,
        \qquad
        d = \frac{\sum_i (y_i - p \, m_i)^2}{M \, p (1 - p)}

    It is 2 where both games of a pair always end alike for the player, 1 where they are independent and not drawn, and
    less with draws, or where openings favour one seat. So that few pairs, or pairs that all brought the same, do not
    pass for certainty, z^2 pairs are added in all three sums, half of them won twice and half lost twice: what makes of
    Wald's interval for a proportion one that covers (Agresti and Coull). For pairs that are all won or lost twice d is
    2 exactly, with or without these.

    Args:
        pairs: numbers of pairs that brought 0, 1/2, 1, 3/2 and 2 points (:data:`PAIR_POINTS`).
        single_games: further games that count whose twin does not.
        single_points: the player's points in these, taken to be without draws.

    Returns:
        d, above 0. ``games / d`` is the number of independent games that would tell as much.

    References:
        W. G. Cochran (1977), "Sampling techniques", 3rd edition, sections 6.3 and 9A (ratios, and clusters).
        L. Kish (1965), "Survey sampling" (design effect).
        C. Franco, R. J. A. Little, T. A. Louis and E. V. Slud (2019), "Comparative study of confidence intervals for
        proportions in complex sample surveys", Journal of Survey Statistics and Methodology 7 (Wilson's interval with
        the effective sample size).
        A. Agresti and B. A. Coull (1998), "Approximate is better than 'exact' for interval estimation of binomial
        proportions", The American Statistician 52.
    """
    added = Z_95 * Z_95
    games = 2.0 * (sum(pairs) + added) + single_games
    points = sum(number * brought for number, brought in zip(pairs, PAIR_POINTS, strict=True)) + added + single_points
    score = points / games
    squares = sum(number * (brought - 2.0 * score) ** 2 for number, brought in zip(pairs, PAIR_POINTS, strict=True))
    squares += 0.5 * added * ((2.0 - 2.0 * score) ** 2 + (2.0 * score) ** 2)
    squares += single_points * (1.0 - score) ** 2 + (single_games - single_points) * score**2
    return squares / (games * score * (1.0 - score))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Wins, draws and losses of one player.

    Attributes:
        wins: games won.
        draws: games drawn, with those that were cut short without a result.
        losses: games lost.
        design_effect: variance of the score, relative to that of independent games; see :func:`design_effect`.
    """

    wins: int = 0
    draws: int = 0
    losses: int = 0
    design_effect: float = 1.0

    @property
    def games(self) -> int:
        """Number of games counted."""
        return self.wins + self.draws + self.losses

    @property
    def score(self) -> float:
        """Points per game: (wins + draws / 2) / games."""
        return self.points / self.games if self.games else math.nan

    @property
    def points(self) -> float:
        """Wins + draws / 2."""
        return self.wins + 0.5 * self.draws

    @property
    def effective_games(self) -> float:
        """Number of independent games without draws that would measure the score as precisely."""
        return self.games / self.design_effect

    @property
    def interval(self) -> tuple[float, float]:
        """The score's 95 % interval: :func:`wilson_interval` with the effective number of games."""
        return wilson_interval(self.score, self.effective_games) if self.games else (0.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class GameRecord:
    """One game of a match.

    Attributes:
        first: name of the player in seat 0.
        second: name of the player in seat 1.
        outcome: how it ended ("checkmate", "resignation", "void", ...).
        points: +1, 0 or -1, to the match's first-named player.
        plies: of the game without its opening.
        record: the moves; it begins with the position after the opening.
        files: the game as files that other programs read, text by the ending of the file's name, where the game writes
            any (:class:`~keisei_lightning.games.RecordedGame`).
        times: how often it counts: an opening that was drawn again is not played again by deterministic players.
        start: the position after the opening.
        actions: labels of all moves from there.
    """

    first: str
    second: str
    outcome: str
    points: int
    plies: int
    record: str
    files: Mapping[str, str] = field(default_factory=dict)
    times: int = 1
    start: str = ""
    actions: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchResult:
    """Result of a match, as the first-named player sees it.

    Attributes:
        game: the game's name.
        player: name of the player whose wins are counted.
        opponent: name of the other player.
        as_first: the player's games in seat 0.
        as_second: the player's games in seat 1.
        pairs: numbers of pairs of games with the same opening in which the player took 0, 1/2, 1, 3/2 and 2 points, if
            both games count; empty if unknown: the games then count as independent.
        void: further games, which count for neither player: a player (an engine, say) had no move.
        played: games that were played, including void ones: fewer than ``num_games + void`` where deterministic players
            drew an opening again, whose games then count once more. 0 if unknown.
        repeated: counted and void games with the same opening, seats and moves as another one.
        outcomes: number of games by how they ended ("checkmate", "max plies", ...).
        mean_length: mean number of plies of a game, without its opening.
        records: all games that were played, if they were to be kept.
        last_record: the moves of one game: the last to be won or lost, or the last to end where all were drawn.
        last_files: that game as files that other programs read; see :attr:`GameRecord.files`.
        last_svg: the final position of that game as a drawing.
        last_title: one line with that game's players, seats and outcome.
    """

    game: str
    player: str
    opponent: str
    as_first: Tally
    as_second: Tally
    pairs: tuple[int, ...] = ()
    void: int = 0
    played: int = 0
    repeated: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    mean_length: float = 0.0
    records: tuple[GameRecord, ...] = ()
    last_record: str = ""
    last_files: Mapping[str, str] = field(default_factory=dict)
    last_svg: str = ""
    last_title: str = ""

    @property
    def total(self) -> Tally:
        """Both seats together, with the design effect of the pairs."""
        first, second = self.as_first, self.as_second
        return Tally(
            wins=first.wins + second.wins,
            draws=first.draws + second.draws,
            losses=first.losses + second.losses,
            design_effect=self._design_effect(),
        )

    def _design_effect(self) -> float:
        if not self.pairs:
            return 1.0
        paired = sum(number * brought for number, brought in zip(self.pairs, PAIR_POINTS, strict=True))
        return design_effect(
            self.pairs,
            single_games=self.as_first.games + self.as_second.games - 2 * sum(self.pairs),
            single_points=self.as_first.points + self.as_second.points - paired,
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
    def effective_games(self) -> float:
        """Number of independent games that would measure the score as precisely; see :func:`design_effect`."""
        return self.total.effective_games

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the expected score; see :attr:`Tally.interval`."""
        return self.total.interval

    def __str__(self) -> str:
        """One readable line."""
        low, high = self.interval
        void = f", {self.void} void" if self.void else ""
        return (
            f"{self.player} scores {self.score:.1%} against {self.opponent} "
            f"(95 % interval {low:.1%} to {high:.1%}; {self.wins} wins, {self.draws} draws, {self.losses} losses{void})"
        )
