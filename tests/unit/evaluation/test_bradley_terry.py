from __future__ import annotations

import itertools

import choix
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from keisei_lightning.evaluation.bradley_terry import (
    ProfileLikelihood,
    bottleneck,
    components,
    expit,
    fit_strengths,
    fit_without_bias,
    log_likelihood,
    reachable,
)


def random_points(seed: int, num_players: int = 5, games: int = 12) -> NDArray[np.float64]:
    """Results of everybody against everybody, all of whom took a point from everybody."""
    rng = np.random.default_rng(seed)
    points = np.zeros((num_players, num_players))
    for one, other in itertools.combinations(range(num_players), 2):
        points[one, other] = rng.integers(1, games)
        points[other, one] = games - points[one, other]
    return points


def points_of(num_players: int, *taken: tuple[int, int, float]) -> NDArray[np.float64]:
    points = np.zeros((num_players, num_players))
    for taker, giver, number in taken:
        points[taker, giver] = number
    return points


def with_anchor(strengths: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], strengths])


@pytest.mark.parametrize("seed", range(3))
def test_the_most_likely_strengths_are_those_of_another_library(seed: int) -> None:
    points = random_points(seed)
    expected = choix.ilsr_pairwise_dense(points)
    fitted = fit_strengths(points, [0], np.zeros(5))
    assert fitted == pytest.approx(expected - expected[0], abs=1e-5)
    # Everybody's points are explained.
    explained = (points + points.T) * expit(fitted[:, None] - fitted)
    assert explained.sum(axis=1) == pytest.approx(points.sum(axis=1), abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_correction_is_jeffreys_prior(seed: int) -> None:
    points = random_points(seed, num_players=4)
    points[0, 3] = 0.0  # no need for everybody to have taken points

    def penalised(strengths: NDArray[np.float64]) -> float:
        theta = with_anchor(strengths)
        expected = expit(theta[:, None] - theta)
        weights = (points + points.T) * expected * expected.T
        information = (np.diag(weights.sum(axis=1)) - weights)[1:, 1:]
        return -(log_likelihood(points, theta) + 0.5 * float(np.linalg.slogdet(information)[1]))

    best = minimize(penalised, np.zeros(3), method="BFGS", options={"gtol": 1e-8}).x
    assert fit_without_bias(points, 0) == pytest.approx(with_anchor(best), abs=1e-4)


@pytest.mark.parametrize("seed", range(2))
def test_a_profile_is_the_best_that_other_strengths_can_do(seed: int) -> None:
    points = random_points(seed, num_players=3)
    profile = ProfileLikelihood.of(points, 2, 0)
    best = log_likelihood(points, fit_strengths(points, [0], np.zeros(3)))
    assert profile.supremum == pytest.approx(best)
    assert profile.drop(profile.likeliest) == pytest.approx(0.0, abs=1e-9)
    others = np.linspace(-8.0, 8.0, 3201)
    for difference in (-1.5, 0.3, 2.0):
        brute = max(log_likelihood(points, np.array([0.0, other, difference])) for other in others)
        assert profile.drop(difference) == pytest.approx(2.0 * (best - brute), abs=1e-4)
        assert profile.drop(profile.end(profile.likeliest, 1, 3.0)) == pytest.approx(3.0, abs=1e-3)


def test_where_all_was_won_the_supremum_is_at_infinity() -> None:
    # 2 beat 1, and 1 beat 0, in all of 10 games; 3 and 4 beat everybody, and each other.
    points = points_of(
        5,
        *[(1, 0, 10.0), (2, 1, 10.0), (2, 0, 10.0), (3, 4, 5.0), (4, 3, 5.0)],
        *[(top, low, 10.0) for top in (3, 4) for low in range(3)],
    )
    profile = ProfileLikelihood.of(points, 2, 0)
    assert len(profile.points) == 3  # 3 and 4 are infinitely far above, whatever the difference is
    assert profile.supremum == 0.0
    assert profile.drop(30.0) == pytest.approx(0.0, abs=1e-4)
    # By symmetry 1 is halfway.
    expected = -2.0 * 10.0 * (2.0 * np.log(expit(np.float64(1.0))) + np.log(expit(np.float64(2.0))))
    assert profile.drop(2.0) == pytest.approx(expected, abs=1e-9)


def test_components_are_those_who_took_points_from_each_other() -> None:
    points = points_of(5, (0, 1, 1.0), (1, 2, 1.0), (2, 0, 0.5), (3, 0, 2.0), (3, 4, 1.0))
    assert [members.tolist() for members in components(points)] == [[0, 1, 2], [3], [4]]
    reached = reachable(points)
    assert reached[3].all()
    assert reached[0].tolist() == [True, True, True, False, False]
    assert reached[4].tolist() == [False, False, False, False, True]


def test_a_difference_rests_on_the_points_of_the_minimum_cut() -> None:
    points = points_of(4, (1, 0, 9.0), (2, 1, 2.5), (3, 2, 7.0), (3, 0, 1.0), (0, 3, 40.0))
    assert bottleneck(points, taker=3, giver=0) == 3.5
    assert bottleneck(points, taker=0, giver=3) == 40.0
    assert bottleneck(points, taker=1, giver=2) == 7.0
    assert bottleneck(points_of(2, (0, 1, 1.0)), taker=1, giver=0) == 0.0
