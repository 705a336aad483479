"""Calibration of a value: of the positions where a network expects so much, how much came?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.results import wilson_interval

__all__ = ["Bin", "Calibration", "calibrate", "error_and_brier_score"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Positions of about the same expected score.

    Attributes:
        predicted: their mean expected score for the mover, from 0 (lost) to 1 (won).
        actual: the mean of what came of them: a win is 1, a draw 1/2.
        low: lower end of the 95 % interval of ``actual``.
        high: its upper end.
        positions: how many.
        games: of how many games.
    """

    predicted: float
    actual: float
    low: float
    high: float
    positions: int
    games: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """A value beside what came.

    Attributes:
        bins: of equal width, those without a position left out.
        error: mean distance of expected and actual score, weighted by positions (expected calibration error).
        brier: mean square of expected score minus result; 0 is perfect, and 1/4 is what "always 1/2" has without draws.
        games: of how many games.
        positions: of how many positions.
    """

    bins: tuple[Bin, ...]
    error: float
    brier: float
    games: int
    positions: int


def calibrate(
    value: NDArray[np.floating], result: NDArray[np.int8], game: NDArray[np.int64], *, num_bins: int = 10
) -> Calibration:
    """Compare what a network expected with what came.

    The positions of a game share its result, so that the interval of a bin is Wilson's of as many trials as it has
    games, not positions.

    Args:
        value: float [n], the result that a network expects for the mover of each position, from -1 to 1.
        result: int8 [n], what came of it for the mover: 1, 0 or -1.
        game: int64 [n], a number for the game of each position.
        num_bins: of equal width, from 0 to 1.

    Raises:
        ConfigError: there is no position, or there are no bins.

    References:
        C. Guo et al. (2017), "On calibration of modern neural networks", https://arxiv.org/abs/1706.04599 (expected
        calibration error).
    """
    predicted, actual, places = _placed(value, result, num_bins)
    _, numbered = np.unique(game, return_inverse=True)
    games = np.bincount(np.unique(numbered * num_bins + places) % num_bins, minlength=num_bins)
    positions = np.bincount(places, minlength=num_bins)
    expected, scored = (np.bincount(places, weights, num_bins) for weights in (predicted, actual))
    bins = []
    for place in np.flatnonzero(positions).tolist():
        score = float(scored[place] / positions[place])
        low, high = wilson_interval(score, int(games[place]))
        bins.append(
            Bin(
                predicted=float(expected[place] / positions[place]),
                actual=score,
                low=low,
                high=high,
                positions=int(positions[place]),
                games=int(games[place]),
            )
        )
    error, brier = error_and_brier_score(value, result, num_bins=num_bins)
    return Calibration(
        bins=tuple(bins), error=error, brier=brier, games=int(numbered.max()) + 1, positions=len(predicted)
    )


def error_and_brier_score(
    value: NDArray[np.floating], result: NDArray[np.int8], *, num_bins: int = 10
) -> tuple[float, float]:
    """``error`` and ``brier`` of :func:`calibrate` alone, a few times as fast.

    Args:
        value: as there.
        result: as there.
        num_bins: as there.

    Raises:
        ConfigError: as there.
    """
    predicted, actual, places = _placed(value, result, num_bins)
    difference = predicted - actual
    error = np.abs(np.bincount(places, difference, num_bins)).sum() / len(difference)
    return float(error), float((difference**2).mean())


def _placed(
    value: NDArray[np.floating], result: NDArray[np.int8], num_bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Expected scores, actual ones, and bins of positions."""
    if num_bins < 1:
        raise ConfigError(f"num_bins={num_bins}: must be 1 or more")
    if not len(value):
        raise ConfigError("calibration: no game has ended")
    predicted = (np.clip(value.astype(np.float64), -1.0, 1.0) + 1.0) / 2.0
    actual = (result.astype(np.float64) + 1.0) / 2.0
    return predicted, actual, np.minimum((predicted * num_bins).astype(np.int64), num_bins - 1)
