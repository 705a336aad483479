"""Expected scores beside actual ones, in bins that are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.calibration import Calibration, calibrate, error_and_brier_score
from keisei_lightning.evaluation.results import wilson_interval


def calibrated(value: list[float], result: list[int], game: list[int], **options: int) -> Calibration:
    return calibrate(np.array(value), np.array(result, dtype=np.int8), np.array(game, dtype=np.int64), **options)


def test_calibration_puts_positions_into_bins_and_counts_games_for_the_interval() -> None:
    found = calibrated([0.9, 0.9, 0.9, -1.0], [1, 1, -1, -1], [0, 0, 1, 1], num_bins=10)
    low, high = found.bins
    assert (low.predicted, low.actual, low.positions, low.games) == (0.0, 0.0, 1, 1)
    assert (high.predicted, high.positions, high.games) == (pytest.approx(0.95), 3, 2)
    assert high.actual == pytest.approx(2 / 3)
    assert (high.low, high.high) == pytest.approx(wilson_interval(2 / 3, 2))  # two games, not three positions
    assert found.error == pytest.approx(3 / 4 * (0.95 - 2 / 3))
    assert found.brier == pytest.approx((2 * 0.05**2 + 0.95**2 + 0.0) / 4)


def test_a_value_outside_of_its_range_is_at_its_end_and_nothing_is_no_calibration() -> None:
    assert calibrated([1.5], [1], [0]).bins[0].predicted == 1.0
    with pytest.raises(ConfigError, match="no game has ended"):
        calibrated([], [], [])
    with pytest.raises(ConfigError, match="num_bins=0"):
        calibrated([1.0], [1], [0], num_bins=0)


def test_error_and_brier_score_alone_are_those_of_the_calibration() -> None:
    value, result = np.array([0.9, 0.9, 0.9, -1.0]), np.array([1, 1, -1, -1], dtype=np.int8)
    assert error_and_brier_score(value, result) == pytest.approx((0.75 * (0.95 - 2 / 3), (2 * 0.05**2 + 0.95**2) / 4))
