r"""Ratings on the Elo scale from matches: of everybody who plays everybody, and of one player on a known ladder.

The model is Bradley and Terry's: a player with rating r scores against one with rating q

.. math::
    E(r - q) = \frac{1}{1 + 10^{-(r - q) / 400}}

points a game on average, a draw being half a win. Ratings are the ones under which the results are most likely. Who has
won all games would be infinitely strong, so every player is given one drawn game that was never played, shared out
evenly among the opponents that it met (a pair of players gets the mean of their two shares). Between two players that
is half a win for either, which takes away most of the estimate's bias.

Intervals are the rating plus and minus 1.96 standard errors from the observed information, drawn games that were never
played included. They take games to be independent; where games are drawn they are wider than they need to be.

References:
    R. A. Bradley and M. E. Terry (1952), "Rank analysis of incomplete block designs", Biometrika 39.
    L. Maystre and M. Grossglauser (2015), "Fast and accurate inference of Plackett-Luce models", NeurIPS
    (the algorithm, from the library choix).
    J. J. Gart and J. R. Zweifel (1967), "On the bias of various estimators of the logit and its variance with
    application to quantal bioassay", Biometrika 54 (the half wins, and the standard error between two players).
    R. Coulom, "Bayesian Elo rating" (virtual draws that are shared out among a player's opponents).
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
from keisei_lightning.evaluation.players import Player
from keisei_lightning.evaluation.results import Z_95, MatchResult, Tally
from keisei_lightning.games.protocol import GameFactory

__all__ = ["Rating", "expected_score", "play_round_robin", "rate_against", "rate_players"]

_ELO_PER_NAT = 400.0 / math.log(10.0)
"""Elo points of one unit of log-odds."""

_MAX_ITERATIONS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Rating:
    """A strength in Elo points.

    Attributes:
        value: the most likely one.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.value:+.0f} Elo (95 % interval {self.low:+.0f} to {self.high:+.0f})"


def expected_score(difference: float) -> float:
    """Points per game, in (0, 1), of a player who is rated ``difference`` Elo points above the other one."""
    return float(_expit(np.float64(difference / _ELO_PER_NAT)))


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
    """Let everybody play everybody, one match after the other; all matches have the same openings.

    Args:
        game: makes the boards.
        players: two or more, each with a name of its own.
        num_games: games of one match, an even number.
        opening_plies: see :func:`~keisei_lightning.evaluation.arena.play_match`.
        seed: likewise.
        keep_records: likewise.
        progress: likewise, of the match that is being played.

    Yields:
        Each match as soon as it is over.

    Raises:
        ConfigError: too few players, two of one name, or a number that cannot work.
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
    """Rate everybody who is connected by games with the anchor, whose rating is 0; see the module's text.

    Args:
        results: matches between players; a pair may have had several.
        anchor: the player whom all others are measured against.

    Returns:
        Ratings by name, the strongest first. A player without a game that counts, or whose opponents never met the
        anchor nor an opponent of it, has none: nothing is known of the difference.

    Raises:
        ConfigError: the anchor has not played.
    """
    names = sorted({name for result in results for name in (result.player, result.opponent)})
    if anchor not in names:
        raise ConfigError(f"anchor={anchor}: has not played; must be one of {', '.join(names) or 'no players'}")
    index = {name: number for number, name in enumerate(names)}
    points = np.zeros((len(names), len(names)))
    for result in results:
        one, other = index[result.player], index[result.opponent]
        won = result.wins + 0.5 * result.draws
        points[one, other] += won
        points[other, one] += result.num_games - won
    rated = _connected(points, index[anchor])
    values, errors = _fit(points[np.ix_(rated, rated)], rated.index(index[anchor]))
    ratings = {names[number]: _rating(value, error) for number, value, error in zip(rated, values, errors, strict=True)}
    return dict(sorted(ratings.items(), key=lambda item: -item[1].value))


def rate_against(ladder: Mapping[str, float], tallies: Mapping[str, Tally]) -> Rating:
    """Rate one player by its games against players of known ratings; see the module's text.

    Args:
        ladder: ratings of opponents, in Elo points, taken to be exact.
        tallies: wins, draws and losses of the player against some of them.

    Returns:
        The rating, on the ladder's scale.

    Raises:
        ConfigError: an opponent without a (finite) rating, or no game at all.
    """
    from scipy.optimize import brentq  # here: half a second, at the start of every process that knows players

    faults = [f"opponent {name}: has no rating; must be one of {', '.join(ladder)}" for name in tallies.keys() - ladder]
    faults += [
        f"opponent {name}: its rating is {ladder[name]}; must be a finite number"
        for name in tallies
        if name in ladder and not math.isfinite(ladder[name])
    ]
    met = [name for name, tally in tallies.items() if tally.games]
    if not met:
        faults.append(f"tallies={dict(tallies)}: must hold one game or more")
    if faults:
        raise ConfigError(sorted(faults))
    opponents = np.array([ladder[name] for name in met]) / _ELO_PER_NAT
    games = np.array([tallies[name].games for name in met]) + 1.0 / len(met)
    points = float(sum(tallies[name].wins + 0.5 * tallies[name].draws for name in met)) + 0.5

    def missing(strength: float) -> float:
        return points - float((games * _expit(strength - opponents)).sum())

    # Were all opponents as strong as the strongest (the weakest), it would be so much stronger than that.
    above = math.log(points / (games.sum() - points))
    low, high = float(opponents.min()) + above - 1e-3, float(opponents.max()) + above + 1e-3
    strength = float(brentq(missing, low, high, xtol=1e-9))
    expected = _expit(strength - opponents)
    return _rating(strength, float((games * expected * (1.0 - expected)).sum()) ** -0.5)


def _rating(strength: float, error: float) -> Rating:
    """From log-odds to Elo points."""
    value, spread = strength * _ELO_PER_NAT, Z_95 * error * _ELO_PER_NAT
    return Rating(value=float(value), low=float(value - spread), high=float(value + spread))


def _expit(x: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow."""
    half: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * x))
    return half


def _connected(points: NDArray[np.float64], start: int) -> list[int]:
    """Players who can be reached from one by games, in order of their numbers."""
    met = (points + points.T) > 0
    reached, frontier = {start}, [start]
    while frontier:
        new = {int(other) for other in np.flatnonzero(met[frontier.pop()])} - reached
        reached |= new
        frontier += sorted(new)
    return sorted(reached)


def _fit(points: NDArray[np.float64], anchor: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-odds and their standard errors.

    Args:
        points: float64 [n, n], points that the row's player took from the column's.
        anchor: number of the player whose log-odds are 0.

    Returns:
        float64 [n] each.
    """
    import choix  # here: for scipy's sake, as above

    num_players = len(points)
    values, errors = np.zeros(num_players), np.zeros(num_players)
    if num_players == 1:
        return values, errors
    met = (points + points.T) > 0
    share = met / met.sum(axis=1, keepdims=True)
    points = points + 0.25 * (share + share.T)
    values = choix.ilsr_pairwise_dense(points, max_iter=_MAX_ITERATIONS)
    values = values - values[anchor]
    expected = _expit(values[:, None] - values)
    weights = (points + points.T) * expected * (1.0 - expected)
    information = np.diag(weights.sum(axis=1)) - weights
    others = np.arange(num_players) != anchor
    errors[others] = np.sqrt(np.diag(np.linalg.inv(information[np.ix_(others, others)])))
    return values, errors
