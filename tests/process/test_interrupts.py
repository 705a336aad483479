"""Ctrl-C during the wait for a batch, as in a notebook that continues afterwards, loses no rollout uncounted."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable

import pytest
from fakes import CountingGame
from fault_helpers import GAMES, Audit, collector_of
from rollout_checks import assert_whole

from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.parallel.supervision.messages import RolloutHeader

pytestmark = pytest.mark.process


class OneByOne:
    """Passes on a backend's headers one at a time, and raises between two as Ctrl-C does."""

    def __init__(self, collector: SelfPlayCollector) -> None:
        collector.start()
        assert collector._session is not None
        backend = collector._session.backend
        self._wait, self._arrived = backend.wait, deque[RolloutHeader]()
        self.interrupt_after: int | None = None
        backend.wait = self  # type: ignore[method-assign]

    def __call__(self, timeout_s: float) -> list[RolloutHeader]:
        if self.interrupt_after == 0:
            raise KeyboardInterrupt
        self._arrived += [] if self._arrived else self._wait(timeout_s)
        if not self._arrived:
            return []
        if self.interrupt_after is not None:
            self.interrupt_after -= 1
        return [self._arrived.popleft()]


@pytest.mark.parametrize(
    ("mode", "schedule"),
    [("serial", "sync"), ("workers", "sync"), ("workers", "async"), ("central", "sync"), ("central", "async")],
)
def test_what_workers_had_announced_is_delivered_after_an_interrupt(mode: str, schedule: str) -> None:
    with collector_of(mode=mode, schedule=schedule, num_workers=3, max_policy_lag=100) as collector:
        backend, audit, delivered = OneByOne(collector), Audit(collector, in_order=schedule == "sync"), 0
        for arrived in (None, 1, None, 2, 0, None):
            backend.interrupt_after = arrived
            if arrived is None:
                audit.take(next(iter(collector)))
                delivered += 1
            else:
                with pytest.raises(KeyboardInterrupt):
                    next(iter(collector))
        assert collector.plies == delivered * collector.frames_per_batch
        stats = collector.stats()
        assert {stats[key] for key in ("refused_batches", "dropped_batches", "lost_rollouts", "restarts")} == {0}


class _InterruptOnce:
    """Raises in one step of a game, as Ctrl-C does where there is no worker process."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, step: int) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


def _game(num_games: int, *, before_step: Callable[[int], None]) -> CountingGame:
    return CountingGame(num_games, before_step=before_step)


def test_a_rollout_that_is_broken_off_in_this_process_is_counted_and_played_again() -> None:
    game = functools.partial(_game, before_step=_InterruptOnce(at=6 + 3))  # in the second rollout, its third ply
    with collector_of(game, mode="serial") as collector:
        before = next(iter(collector))
        with pytest.raises(KeyboardInterrupt):
            next(iter(collector))
        after = next(iter(collector))
        assert collector.stats()["lost_rollouts"] == 1
        assert collector.plies == 2 * collector.frames_per_batch
    assert_whole(after, games_per_worker=GAMES)
    spliced = set(before["collector", "traj_ids"].flatten().tolist()) & set(
        after["collector", "traj_ids"].flatten().tolist()
    )
    assert not spliced


def test_next_continues_after_an_interrupt() -> None:
    game = functools.partial(_game, before_step=_InterruptOnce(at=3))
    with collector_of(game, mode="serial") as collector:
        with pytest.raises(KeyboardInterrupt):
            collector.next()
        for _ in range(2):
            assert_whole(collector.next(), games_per_worker=GAMES)
        assert collector.plies == 2 * collector.frames_per_batch
