"""Signs of life: what one side writes, the other reads, and a new life begins with a clear line."""

from __future__ import annotations

import time

import psutil
import pytest

from keisei_lightning.parallel.supervision.heartbeats import HeartbeatBoard


def test_beats_memory_and_rollouts_are_read_by_whoever_has_the_buffer() -> None:
    learner = HeartbeatBoard.reserve(3)
    worker = HeartbeatBoard(learner.buffer)
    assert (learner.last_beat(1), learner.resident_bytes(1), learner.rollouts_begun(1)) == (0.0, None, 0)
    before = time.monotonic()
    worker.beat(1)
    worker.begin_rollout(1)
    assert before <= learner.last_beat(1) <= time.monotonic()
    assert learner.resident_bytes(1) == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert learner.rollouts_begun(1) == 1
    assert (learner.last_beat(0), learner.last_beat(2), learner.rollouts_begun(2)) == (0.0, 0.0, 0)
    learner.buffer.close()


def test_a_new_life_begins_with_a_clear_line_but_its_rollouts_count_on() -> None:
    signs = HeartbeatBoard.reserve(1)
    signs.beat(0)
    signs.begin_rollout(0)
    signs.forget(0)
    assert (signs.last_beat(0), signs.resident_bytes(0), signs.rollouts_begun(0)) == (0.0, None, 1)
    signs.buffer.close()
