r"""Ratings on the Elo scale from matches: of everybody who plays everybody, and of one player on a known ladder.

The model is Bradley and Terry's (:mod:`~keisei_lightning.evaluation.bradley_terry`): a player with rating r scores
against one with rating q

.. math::
    E(r - q) = \frac{1}{1 + 10^{-(r - q) / 400}}

points a game on average, a draw being half a win. Ratings are the ones under which all results together are most
likely, with Firth's correction: uncorrected, the stronger one of two is rated too high on average, and infinitely high
where it won all games.

A 95 % interval holds the differences d to the anchor that a likelihood-ratio test does not reject: with all other
ratings chosen to suit d best (the profile likelihood), the log-likelihood is at most
:math:`\chi^2_{1, 0.95} / 2 = 1.92` below its maximum. Such an interval is as lopsided as the evidence is.

The interval of a player that won everything has no upper end: every higher rating explains the results better. At its
lower end the probability of winning everything is 5 %, the other ratings again chosen to suit best. Against one
opponent that is the one-sided interval of Clopper and Pearson (the "rule of three"). Such a rating is marked "no loss":
it says what the games show, not how strong the player is. The mark also applies to a player that lost only to players
of this kind. "No win" is the mirror image, for a player that lost everything.

A rating whose difference to the anchor rests on fewer than three points is marked too ("1 point lost"): so many points
did all players on one side together lose to all players on the other side, at the minimum cut between the two.

Matches count as their effective number of games: two games with one opening are worth less than two independent ones
where they end alike, and drawn games are worth more (:func:`~keisei_lightning.evaluation.results.design_effect`).
Intervals assume that the model is true. Their ends are differences to the anchor: the difference of two players far
from the anchor may be much better known than either rating.

References:
    D. Firth (1993), "Bias reduction of maximum likelihood estimates", Biometrika 80.
    D. J. Venzon and S. H. Moolgavkar (1988), "A method for computing profile-likelihood-based confidence intervals",
    Applied Statistics 37.
    S. S. Wilks (1938), "The large-sample distribution of the likelihood ratio", Annals of Mathematical Statistics 9.
    C. J. Clopper and E. S. Pearson (1934), "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26.
    J. A. Hanley and A. Lippman-Hand (1983), "If nothing goes wrong, is everything all right?", JAMA 249 (one-sided
    intervals where nothing was lost).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.arena import play_match
from keisei_lightning.evaluation.bradley_terry import ProfileLikelihood, bottleneck, expit, fit_without_bias, reachable
from keisei_lightning.evaluation.ladder import Ladder, Match
from keisei_lightning.evaluation.players import Player
from keisei_lightning.evaluation.results import Z_95, MatchResult, Tally
from keisei_lightning.games.protocol import GameFactory

__all__ = ["RATING_MARKS", "Rating", "expected_score", "play_round_robin", "rate_against", "rate_players"]

_ELO_PER_NAT = 400.0 / math.log(10.0)
"""Elo points of one unit of log-odds."""

# How far the profile log-likelihood may be below its supremum, times two.
_TWO_SIDED = Z_95 * Z_95  # the 95 % quantile of the chi-squared distribution with one degree of freedom
_ONE_SIDED = -2.0 * math.log(0.05)  # where the supremum is 1, all games won: a probability of 5 %

_FEW_POINTS = 3.0

RATING_MARKS = (
    f"rests on: what separates the player from the anchor, where that is less than {_FEW_POINTS:g} points\n"
    "no loss, no win: every game across some line between the two was won (lost), so that the interval has no other end"
)
"""Explanation below a table that shows :attr:`Rating.mark`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rating:
    """A strength in Elo points.

    Attributes:
        value: the most likely strength, corrected for its bias.
        low: lower end of its 95 % interval; -inf for a player that lost everything.
        high: upper end; inf for a player that won everything.
        mark: "no loss", "no win", or the few points that it rests on (see the module's text); else empty.
    """

    value: float
    low: float
    high: float
    mark: str = ""

    def __str__(self) -> str:
        """One readable line."""
        mark = f"; {self.mark}" if self.mark else ""
        return f"{self.value:+.0f} Elo (95 % interval {self.interval}{mark})"

    @property
    def interval(self) -> str:
        """The interval in words: ``-3 to +267``, ``above +849``, ``below -849``."""
        if math.isinf(self.high):
            return f"above {self.low:+.0f}"
        if math.isinf(self.low):
            return f"below {self.high:+.0f}"
        return f"{self.low:+.0f} to {self.high:+.0f}"

    def as_json(self) -> dict[str, float | str | None]:
        """Entries of a JSON file; an end that is not there is null."""
        ends = {"low": self.low, "high": self.high}
        return {
            "value": self.value,
            **{name: end if math.isfinite(end) else None for name, end in ends.items()},
            **({"mark": self.mark} if self.mark else {}),
        }


def expected_score(difference: float) -> float:
    """Points per game, in (0, 1), of a player who is rated ``difference`` Elo points above the other one."""
    return float(expit(np.float64(difference / _ELO_PER_NAT)))


def play_round_robin(
    game: GameFactory,
    players: Sequence[Player],
    *,
    num_games: int,
    opening_plies: int | None = None,
    seed: int = 0,
    keep_records: bool = False,
    progress: Callable[[int], None] = lambda finished: None,
) -> Iterator[MatchResult]:
    """Play a match between each pair of players, one after the other; all matches have the same openings.

    Args:
        game: makes the boards.
        players: two or more, with different names.
        num_games: games of one match, even.
        opening_plies: see :func:`~keisei_lightning.evaluation.arena.play_match`.
        seed: see :func:`~keisei_lightning.evaluation.arena.play_match`.
        keep_records: see :func:`~keisei_lightning.evaluation.arena.play_match`.
        progress: see :func:`~keisei_lightning.evaluation.arena.play_match`.

    Yields:
        The result of each match as soon as it is over.

    Raises:
        ConfigError: fewer than two players, two of one name, or an illegal number.
    """
    names = [player.name for player in players]
    if len(names) < 2:
        raise ConfigError(f"players={names}: must be two or more")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"players={names}: must have a name each ({', '.join(twice)} is there more than once)")
    for player, opponent in itertools.combinations(players, 2):
        yield play_match(
            game,
            player,
            opponent,
            num_games=num_games,
            opening_plies=opening_plies,
            seed=seed,
            keep_records=keep_records,
            progress=progress,
        )


def rate_players(results: Sequence[MatchResult], *, anchor: str = "random") -> dict[str, Rating]:
    """Rate all players that games connect with the anchor, whose rating is 0; see the module's text.

    Args:
        results: matches between players; a pair may have several.
        anchor: the player with rating 0.

    Returns:
        Ratings by name, the strongest first. A player has none where nothing is known of the difference: without a
        game that counts, or where neither it nor the anchor took a point from the other, directly or through others.

    Raises:
        ConfigError: the anchor has not played.
    """
    return _rate([(result.player, result.opponent, result.total) for result in results], anchor)


def rate_against(ladder: Ladder, tallies: Mapping[str, Tally]) -> Rating | None:
    """Rate one player by its games against players of a ladder; see the module's text.

    The ladder's games and the player's are explained together, so that the interval holds what is not known of the
    ladder as well. Of two players that were rated so, the difference is better known than the intervals say: what the
    ladder leaves open is the same for both.

    Args:
        ladder: opponents, and their games against each other.
        tallies: wins, draws and losses of the player against some of them.

    Returns:
        The rating on the ladder's scale; None where nothing is known of the difference to its anchor.

    Raises:
        ConfigError: an opponent that is not on the ladder, or no game at all.
    """
    errors = [
        f"opponent {name}: is not on the ladder; must be one of {', '.join(ladder.names)}"
        for name in sorted(tallies.keys() - set(ladder.names))
    ]
    if not any(tally.games for tally in tallies.values()):
        errors.append(f"tallies={dict(tallies)}: must hold one game or more")
    if errors:
        raise ConfigError(errors)
    own = [(_RATED, name, tally) for name, tally in tallies.items()]
    return _rate([*ladder.matches, *own], ladder.anchor, only=_RATED).get(_RATED)


_RATED = ""  # name of the player that is rated on a ladder: no player has it


def _rate(matches: Sequence[Match], anchor: str, *, only: str | None = None) -> dict[str, Rating]:
    """Ratings of all players, or of one, by name, the strongest first."""
    names = sorted({name for one, other, _ in matches for name in (one, other)})
    if anchor not in names:
        raise ConfigError(f"anchor={anchor}: has not played; must be one of {', '.join(names) or 'no players'}")
    index = {name: number for number, name in enumerate(names)}
    played = np.zeros((len(names), len(names)))
    points = np.zeros_like(played)  # of effective games
    for one, other, tally in matches:
        for taker, giver, taken in ((one, other, tally.points), (other, one, tally.games - tally.points)):
            played[index[taker], index[giver]] += taken
            points[index[taker], index[giver]] += taken / tally.design_effect
    connected = np.flatnonzero(reachable(points + points.T)[index[anchor]])
    strengths = fit_without_bias(points[np.ix_(connected, connected)], int(np.searchsorted(connected, index[anchor])))
    values = dict(zip(connected.tolist(), strengths.tolist(), strict=True))
    ratings = {anchor: Rating(value=0.0, low=0.0, high=0.0)}
    for name in names if only is None else [only]:
        if name != anchor and (ends := _ends(points, index[name], index[anchor])) is not None:
            low, high = ends
            mark = _mark(played, index[name], index[anchor])
            value = values[index[name]] * _ELO_PER_NAT
            ratings[name] = Rating(value=value, low=low * _ELO_PER_NAT, high=high * _ELO_PER_NAT, mark=mark)
    return dict(sorted(ratings.items(), key=lambda item: -item[1].value))


def _ends(points: NDArray[np.float64], player: int, anchor: int) -> tuple[float, float] | None:
    """Ends of a player's interval in log-odds; None where nothing is known of the difference."""
    reached = reachable(points)
    took, lost = bool(reached[player, anchor]), bool(reached[anchor, player])
    if not took and not lost:
        return None
    if not took:  # as for who lost nothing, upside down
        return -math.inf, -_end_of_no_loss(points.T, player, anchor)
    if not lost:
        return _end_of_no_loss(points, player, anchor), math.inf
    profile = ProfileLikelihood.of(points, player, anchor)
    low, high = (profile.end(profile.likeliest, direction, _TWO_SIDED) for direction in (-1, 1))
    return low, high


def _end_of_no_loss(points: NDArray[np.float64], player: int, anchor: int) -> float:
    profile = ProfileLikelihood.of(points, player, anchor)
    far = 1.0
    while profile.drop(far) > _ONE_SIDED:
        far *= 2.0
    return profile.end(far, -1, _ONE_SIDED)


def _mark(points: NDArray[np.float64], player: int, anchor: int) -> str:
    """On how few points a difference rests; empty where there are enough."""
    pairs = {"won": (player, anchor), "lost": (anchor, player)}
    found = {what: bottleneck(points, *pair) for what, pair in pairs.items()}
    what = min(found, key=lambda what: found[what])
    if not found[what]:
        return {"won": "no win", "lost": "no loss"}[what]
    if found[what] >= _FEW_POINTS:
        return ""
    return f"{found[what]:g} point{'' if found[what] == 1 else 's'} {what}"
