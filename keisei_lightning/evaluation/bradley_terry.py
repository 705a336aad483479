r"""The model of Bradley and Terry: most likely strengths, and profile likelihoods of differences.

Player i with strength :math:`\theta_i` scores against j

.. math::
    E_{ij} = \frac{1}{1 + e^{-(\theta_i - \theta_j)}}

points a game on average. With :math:`p_{ij}` the points that i took from j, a draw being half a point for either, the
log-likelihood is :math:`\ell(\theta) = \sum_{i \ne j} p_{ij} \ln E_{ij}`. It depends on differences only, is concave,
and has a maximum exactly where everybody took points from everybody, directly or through others: where the graph of
"took points from" is strongly connected. Elsewhere it only has a supremum, which it approaches as the graph's strongly
connected components move apart. Games between components add nothing to it then, so that it is the sum of the
components' own maxima.

References:
    R. A. Bradley and M. E. Terry (1952), "Rank analysis of incomplete block designs", Biometrika 39.
    D. J. Venzon and S. H. Moolgavkar (1988), "A method for computing profile-likelihood-based confidence intervals",
    Applied Statistics 37.
    L. R. Ford and D. R. Fulkerson (1956), "Maximal flow through a network", Canadian Journal of Mathematics 8 (what a
    difference rests on).
    L. R. Ford (1957), "Solution of a ranking problem from binary comparisons", American Mathematical Monthly 64 (where
    the maximum exists).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ProfileLikelihood",
    "bottleneck",
    "components",
    "expit",
    "fit_strengths",
    "fit_without_bias",
    "log_likelihood",
    "reachable",
]

_PER_POINT = 1000  # a flow is a whole number
_MAX_STEPS = 200
_SAME = 1e-6  # log-odds: less than a thousandth of an Elo point
_TOLERANCE = 1e-10  # Newton's decrement: twice what the log-likelihood still has to gain


def expit(x: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow."""
    half: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * x))
    return half


def log_likelihood(points: NDArray[np.float64], strengths: NDArray[np.float64]) -> float:
    """Log-likelihood of results.

    Args:
        points: float64 [n, n], points that the row's player took from the column's.
        strengths: float64 [n], log-odds.
    """
    return -float((points * np.logaddexp(0.0, strengths - strengths[:, None])).sum())


def fit_strengths(
    points: NDArray[np.float64], fixed: Sequence[int], strengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The most likely strengths while some are fixed, by Newton's method with a line search.

    Args:
        points: float64 [n, n], points that the row's player took from the column's. Every other player must have taken
            points from, and lost points to, a fixed one, directly or through others.
        fixed: numbers of the players, one or more, whose strengths are fixed.
        strengths: float64 [n], log-odds: the fixed ones, and the starting point of the others.

    Returns:
        float64 [n].
    """
    games = points + points.T
    free = np.setdiff1d(np.arange(len(points)), fixed)
    now, best = strengths.astype(np.float64), log_likelihood(points, strengths)
    for _ in range(_MAX_STEPS if len(free) else 0):
        slope = (points - games * expit(now[:, None] - now)).sum(axis=1)[free]
        information = _information(games, now)[1][np.ix_(free, free)]
        step = np.zeros_like(now)
        step[free] = _solve(information, slope)
        decrement = float(slope @ step[free])
        if decrement < _TOLERANCE:
            break
        size = min(1.0, 5.0 / float(np.abs(step).max()))
        while (reached := log_likelihood(points, now + size * step)) < best and size > 1e-9:
            size *= 0.5
        now, best = now + size * step, max(best, reached)
    return now


def _solve(information: NDArray[np.float64], slope: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        solution = np.linalg.solve(information, slope)
    except np.linalg.LinAlgError:  # far from the maximum the information may vanish in rounding
        solution = np.linalg.lstsq(information, slope, rcond=None)[0]
    return solution.astype(np.float64, copy=False)


def fit_without_bias(points: NDArray[np.float64], anchor: int) -> NDArray[np.float64]:
    r"""Strengths from which Firth's correction has removed the leading term of the bias; they are always finite.

    They are the most likely ones had every pair of players i, j drawn :math:`h_{ij}` further games, where

    .. math::
        h_{ij} = n_{ij} E_{ij} E_{ji} \operatorname{Var}(\theta_i - \theta_j)

    is the leverage of their :math:`n_{ij}` games (all leverages together are the number of players less one): a draw
    is imagined where it tells as little as the games that were played. Two players get half a win each.

    Args:
        points: float64 [n, n], points that the row's player took from the column's; all are connected by games.
        anchor: number of the player whose log-odds are 0.

    Returns:
        float64 [n], log-odds.

    References:
        D. Firth (1993), "Bias reduction of maximum likelihood estimates", Biometrika 80.
        I. Kosmidis and D. Firth (2021), "Jeffreys-prior penalty, finiteness and shrinkage in binomial-response
        generalized linear models", Biometrika 108.
    """
    games = points + points.T
    others = np.delete(np.arange(len(points)), anchor)
    leverage = (games > 0).astype(np.float64)
    strengths = np.zeros(len(points))
    for _ in range(_MAX_STEPS):
        before, strengths = strengths, fit_strengths(points + 0.5 * leverage, [anchor], strengths)
        if float(np.abs(strengths - before).max()) < _SAME:
            break
        covariance = np.zeros_like(points)
        weights, information = _information(games, strengths)
        covariance[np.ix_(others, others)] = np.linalg.inv(information[np.ix_(others, others)])
        variance = np.diag(covariance)
        leverage = weights * (variance[:, None] + variance - 2.0 * covariance)
    return strengths


def _information(
    games: NDArray[np.float64], strengths: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight of each pair's games, and Fisher's information of all strengths: float64 [n, n] each."""
    expected = expit(strengths[:, None] - strengths)
    weights = games * expected * expected.T
    return weights, np.diag(weights.sum(axis=1)) - weights


def reachable(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which players took points from which, directly or through others.

    Args:
        points: float64 [n, n], points that the row's player took from the column's.

    Returns:
        bool [n, n]; every player reaches itself.
    """
    reached = (points > 0) | np.eye(len(points), dtype=np.bool_)
    for through in range(len(points)):  # Warshall's closure
        reached |= reached[:, through, None] & reached[through]
    return reached


def components(points: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Strongly connected components: in one, every player took points from every other, directly or through others.

    Args:
        points: float64 [n, n], points that the row's player took from the column's.

    Returns:
        Numbers of each component's players, ascending; components by their first player.
    """
    reached = reachable(points)
    mutual = reached & reached.T
    return [np.flatnonzero(row) for number, row in enumerate(mutual) if int(np.argmax(row)) == number]


def bottleneck(points: NDArray[np.float64], taker: int, giver: int) -> float:
    """The fewest points that a group with one player took from all other players, with another player among these.

    Without these points the difference would have no bound in one direction. The number is the graph's minimum cut,
    which is its maximum flow.

    Args:
        points: float64 [n, n], points that the row's player took from the column's.
        taker: the player in the group.
        giver: the player outside.
    """
    from scipy.sparse import csr_array  # imported late, as below
    from scipy.sparse.csgraph import maximum_flow

    capacities = csr_array(np.rint(points * _PER_POINT).astype(np.int32))
    return float(maximum_flow(capacities, taker, giver).flow_value) / _PER_POINT


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileLikelihood:
    """The likelihood of a difference between two players, with all other strengths at their most likely values.

    Attributes:
        points: float64 [n, n] of the players that it depends on: those that would be in one component with the two if
            these had taken points from each other. The others' best strengths are infinitely far away.
        player: number of the player whose strength varies.
        anchor: number of the player with strength 0.
        start: float64 [n], strengths where fits begin.
        supremum: supremum of the log-likelihood over all strengths.
    """

    points: NDArray[np.float64]
    player: int
    anchor: int
    start: NDArray[np.float64]
    supremum: float

    @classmethod
    def of(cls, points: NDArray[np.float64], player: int, anchor: int) -> ProfileLikelihood:
        """The profile of a player's strength.

        Args:
            points: float64 [n, n], points that the row's player took from the column's.
            player: number of the player.
            anchor: number of another one.
        """
        joined = points.copy()
        joined[player, anchor] += 1.0
        joined[anchor, player] += 1.0
        members = next(members for members in components(joined) if player in members)
        points = points[np.ix_(members, members)]
        start, supremum = np.zeros(len(members)), 0.0
        for component in components(points):
            inside = points[np.ix_(component, component)]
            start[component] = fit_strengths(inside, [0], np.zeros(len(component)))
            supremum += log_likelihood(inside, start[component])
        player, anchor = (int(np.searchsorted(members, number)) for number in (player, anchor))
        return cls(points=points, player=player, anchor=anchor, start=start - start[anchor], supremum=supremum)

    @property
    def likeliest(self) -> float:
        """The most likely difference; it exists if both are in one component of the results."""
        return float(self.start[self.player])

    def drop(self, difference: float) -> float:
        """Twice the distance of the log-likelihood from its supremum, at a difference in log-odds."""
        strengths = self.start.copy()
        strengths[self.player] = difference
        fitted = fit_strengths(self.points, [self.player, self.anchor], strengths)
        return 2.0 * (self.supremum - log_likelihood(self.points, fitted))

    def end(self, inside: float, direction: int, drop: float) -> float:
        """The end of an interval: the difference at which the log-likelihood has dropped by a given amount.

        Args:
            inside: a difference inside the interval.
            direction: +1 or -1; the likelihood must fall without bound in that direction.
            drop: twice the log-likelihood's drop below its supremum.
        """
        from scipy.optimize import brentq  # imported late: it takes half a second

        step = 1.0
        while self.drop(inside + direction * step) < drop:
            step *= 2.0
        outside = inside + direction * step
        return float(brentq(lambda difference: self.drop(difference) - drop, inside, outside, xtol=1e-5))
