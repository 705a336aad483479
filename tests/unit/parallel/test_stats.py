"""Counts over the whole run, rates and shares over a window: literal numbers on a clock that the test turns."""

from __future__ import annotations

import pytest

from keisei_lightning.parallel.state.stats import CollectionStats
from keisei_lightning.parallel.supervision.messages import RolloutHeader


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def header(
    worker_id: int = 0,
    *,
    plies: int = 50,
    version: int = 0,
    first: int = 0,
    second: int = 0,
    draw: int = 0,
    game_plies: int = 0,
    outcomes: dict[str, int] | None = None,
    wait_s: float = 0.0,
) -> RolloutHeader:
    return RolloutHeader(
        worker_id=worker_id,
        incarnation=0,
        sequence=0,
        slot=0,
        policy_version=version,
        plies=plies,
        games=first + second + draw,
        game_plies=game_plies,
        results={"first": first, "second": second, "draw": draw},
        outcomes=outcomes or {},
        wait_s=wait_s,
    )


def test_rates_of_the_first_batches_count_from_the_start() -> None:
    clock = Clock()
    stats = CollectionStats(window_s=60.0, clock=clock)
    stats.start()
    clock.now += 2.0
    stats.add([header(0), header(1)], latest_version=0, learner_wait_s=1.0)
    clock.now += 2.0
    stats.start()  # twice is harmless: the clock of the first rate goes on
    stats.add([header(0), header(1)], latest_version=0, learner_wait_s=0.5)
    summary = stats.summary()
    assert summary["plies"] == 200
    assert summary["plies_per_s"] == pytest.approx(200 / 4)
    assert summary["learner_wait_s"] == pytest.approx(0.75)


def test_the_time_between_two_starts_counts_for_no_rate() -> None:
    clock = Clock()
    stats = CollectionStats(window_s=60.0, clock=clock)
    for _ in range(2):
        stats.start()
        clock.now += 2.0
        stats.add([header(0), header(1)], latest_version=0, learner_wait_s=1.0)
        assert stats.summary()["plies_per_s"] == pytest.approx(100 / 2)
        stats.forget_window()
        clock.now += 30.0
    assert stats.summary()["plies"] == 200


def test_the_window_slides_and_totals_stay() -> None:
    clock = Clock()
    stats = CollectionStats(window_s=10.0, clock=clock)
    stats.start()
    for plies in (1000, 10, 20, 30):  # at 6, 12, 18, 24 seconds
        clock.now += 6.0
        stats.add([header(plies=plies)], latest_version=0, learner_wait_s=0.0)
    summary = stats.summary()
    assert summary["plies"] == 1060
    assert summary["plies_per_s"] == pytest.approx((20 + 30) / 12)  # since the batch that left last, at 12 seconds


def test_the_last_batch_stays_in_the_window_however_long_it_took() -> None:
    clock = Clock()
    stats = CollectionStats(window_s=10.0, clock=clock)
    stats.start()
    clock.now += 5.0
    stats.add([header(plies=1)], latest_version=0, learner_wait_s=0.0)
    clock.now += 100.0
    stats.add([header(plies=500)], latest_version=0, learner_wait_s=0.0)
    assert stats.summary()["plies_per_s"] == pytest.approx(5.0)


def test_lag_is_counted_for_each_rollout_against_the_latest_version() -> None:
    stats = CollectionStats(clock=Clock())
    stats.add([header(0, version=7), header(1, version=4)], latest_version=7, learner_wait_s=0.0)
    stats.add([header(0, version=8), header(1, version=8)], latest_version=9, learner_wait_s=0.0)
    summary = stats.summary()
    assert summary["policy_lag_mean"] == pytest.approx((0 + 3 + 1 + 1) / 4)
    assert summary["policy_lag_max"] == 3


def test_shares_of_results_and_outcomes_and_the_mean_length() -> None:
    stats = CollectionStats(clock=Clock())
    stats.add(
        [
            header(0, first=3, second=1, game_plies=40, outcomes={"goal": 4}, wait_s=0.1),
            header(1, second=2, draw=2, game_plies=20, outcomes={"goal": 2, "max plies": 2}, wait_s=0.3),
        ],
        latest_version=0,
        learner_wait_s=0.0,
    )
    summary = stats.summary()
    assert summary["games"] == 8
    assert summary["game_length_mean"] == pytest.approx(60 / 8)
    assert summary["first_win_share"] == pytest.approx(3 / 8)
    assert summary["second_win_share"] == pytest.approx(3 / 8)
    assert summary["draw_share"] == pytest.approx(2 / 8)
    assert summary["outcome/goal"] == pytest.approx(6 / 8)
    assert summary["outcome/max_plies"] == pytest.approx(2 / 8)
    assert summary["worker_wait_s"] == pytest.approx(0.2)


def test_without_a_batch_there_are_totals_alone_and_without_a_game_no_shares() -> None:
    stats = CollectionStats(clock=Clock())
    assert stats.summary() == {"plies": 0, "games": 0, "publish_ms": 0.0}
    stats.publish_s = 0.0025
    stats.add([header()], latest_version=0, learner_wait_s=0.0)
    summary = stats.summary()
    assert summary["publish_ms"] == pytest.approx(2.5)
    assert not {"game_length_mean", "first_win_share", "draw_share"} & set(summary)
