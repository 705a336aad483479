"""Heartbeats: one process writes what another reads, and a new incarnation begins with a clear line."""

from __future__ import annotations

import time

import psutil
import pytest

from keisei_lightning.parallel.supervision.heartbeats import HeartbeatBoard


def test_heartbeats_memory_and_rollouts_are_read_through_the_shared_buffer() -> None:
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


def test_a_new_incarnation_begins_with_a_clear_line_but_keeps_the_count_of_rollouts() -> None:
    board = HeartbeatBoard.reserve(1)
    board.beat(0)
    board.begin_rollout(0)
    board.clear(0)
    assert (board.last_beat(0), board.resident_bytes(0), board.rollouts_begun(0)) == (0.0, None, 1)
    board.buffer.close()
