"""How long a search takes, by a clock that the test moves."""

from __future__ import annotations

import pytest

from keisei_lightning.engine.clock import Limits, StepTimes, Task


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def seconds_taken(
    limits: Limits, *, step_s: float, seat: int = 0, delay_s: float = 0.12, waited_s: float = 0.0
) -> float:
    """How long a search of equal steps takes from its command on."""
    clock, steps = Clock(), StepTimes()
    steps.add(step_s)
    task = Task(limits, delay_s=delay_s, steps=steps, clock=clock)
    clock.now += waited_s
    task.begin(seat)
    while not task.is_over:
        clock.now += step_s
        if not task.goes_on():
            break
    return clock.now - 100.0


@pytest.mark.parametrize("byoyomi_s", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("step_s", [0.005, 0.03, 0.3, 5.0])
@pytest.mark.parametrize("waited_s", [0.0, 0.05])
def test_byoyomi_is_never_exceeded_by_steps_that_are_as_slow_as_before(
    byoyomi_s: float, step_s: float, waited_s: float
) -> None:
    taken = seconds_taken(Limits(byoyomi_s=byoyomi_s), step_s=step_s, waited_s=waited_s)
    assert taken < byoyomi_s
    if step_s >= byoyomi_s:
        assert taken == pytest.approx(waited_s)  # there is no time for one step


def test_byoyomi_is_used_but_for_the_delay_and_a_step() -> None:
    assert seconds_taken(Limits(byoyomi_s=1.0), step_s=0.01) == pytest.approx(1.0 - 0.12, abs=0.021)
    assert seconds_taken(Limits(byoyomi_s=0.1), step_s=0.001) == pytest.approx(0.05, abs=0.0021)
    assert seconds_taken(Limits(move_time_s=1.0), step_s=0.01) == pytest.approx(1.0 - 0.12, abs=0.021)


def test_a_step_that_was_slow_is_kept_in_mind() -> None:
    clock, steps = Clock(), StepTimes()
    steps.add(0.4)
    task = Task(Limits(byoyomi_s=1.0), delay_s=0.1, steps=steps, clock=clock)
    task.begin(0)
    clock.now += 0.2
    assert task.goes_on()
    clock.now += 0.25
    assert task.goes_on()
    clock.now += 0.06
    assert not task.goes_on()


def test_a_single_slow_step_is_forgotten_where_none_are_made() -> None:
    steps = StepTimes()
    for seconds in (9.0, *[0.01] * 9):
        steps.add(seconds)
    assert steps.expected_s(0.5) == 0.5
    steps.fade()
    assert steps.expected_s(0.5) == 0.0
    steps.add(2.0)
    assert steps.expected_s(0.5) == 2.0  # the usual one


@pytest.mark.parametrize(
    ("limits", "seat", "expected"),
    [
        (Limits(clock_s=(60.0, 20.0)), 0, 1.5),
        (Limits(clock_s=(60.0, 20.0)), 1, 0.5),
        (Limits(clock_s=(60.0, 20.0), increment_s=(1.0, 2.0)), 1, 2.5),
        (Limits(clock_s=(60.0, 0.0), byoyomi_s=3.0), 0, 4.5),
        (Limits(clock_s=(60.0, 0.0), byoyomi_s=3.0), 1, 3.0),
        (Limits(clock_s=(0.5, 0.5), increment_s=(2.0, 2.0)), 0, 0.5),
        (Limits(clock_s=(0.0, 0.0), increment_s=(2.0, 2.0)), 0, 2.0),
        (Limits(clock_s=(-5.0, 0.0)), 0, 0.0),
        (Limits(move_time_s=-1.0), 0, 0.0),
        (Limits(nodes=100), 0, None),
        (Limits(), 0, None),
    ],
)
def test_a_moves_share_of_the_time(limits: Limits, seat: int, expected: float | None) -> None:
    assert limits.seconds(seat) == expected


@pytest.mark.parametrize("increment_s", [0.0, 0.1])
def test_a_whole_game_never_runs_out_of_time(increment_s: float) -> None:
    left = 10.0
    for _ in range(300):
        taken = seconds_taken(Limits(clock_s=(left, 5.0), increment_s=(increment_s, 0.0)), step_s=0.02)
        assert taken < left
        left += increment_s - taken


def test_a_ponder_search_has_its_time_from_the_moment_that_the_move_is_played() -> None:
    clock = Clock()
    task = Task(Limits(byoyomi_s=1.0, pondering=True), delay_s=0.1, steps=StepTimes(), clock=clock)
    task.begin(0)
    for _ in range(5000):
        clock.now += 0.01
        assert task.goes_on()
    assert task.is_open_ended
    task.ponder_hit()
    assert not task.is_open_ended
    assert task.time_left_s == pytest.approx(1.0 - 0.1 - 0.01)
    clock.now += 0.88
    assert not task.is_over
    clock.now += 0.02
    assert task.is_over


def test_a_stop_ends_what_nothing_else_would() -> None:
    task = Task(Limits(until_stopped=True), delay_s=0.1, steps=StepTimes(), clock=Clock())
    task.begin(0)
    assert task.goes_on()
    task.stop()
    assert not task.goes_on()
    task.wait_for_release()
