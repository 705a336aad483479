"""Heartbeats: each worker writes to shared memory when it last made progress, its memory, the rollouts it has begun."""

from __future__ import annotations

import os
import time

from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer
from keisei_lightning.system.machine import resident_memory

__all__ = ["IDLE_BEAT_S", "HeartbeatBoard"]

IDLE_BEAT_S = 0.25
"""Seconds between two heartbeats of a waiting process; also how soon it notices an event that it does not wait for."""

_LINE = 8  # int64 numbers: a cache line for each worker
_BEAT, _RSS, _BEGUN = 0, 1, 2
_RSS_EVERY_NS = 1_000_000_000


class HeartbeatBoard:
    """A board in shared memory with a line for each worker: int64 nanoseconds of ``time.monotonic``, bytes, rollouts.

    Each number is independent, and is one aligned store of eight bytes: nothing else is read because of it, so no order
    among them matters. (The rollouts that a worker had begun are read when it has ended.)

    Args:
        buffer: from :meth:`reserve`, the same for the learner and its workers.
    """

    def __init__(self, buffer: SharedBuffer) -> None:
        self.buffer = buffer
        self._numbers = buffer.array().data.cast("q")  # a store is many times quicker than into an array
        self._rss_due_ns = 0

    @classmethod
    def reserve(cls, num_workers: int) -> HeartbeatBoard:
        """Reserve a board for this many workers."""
        return cls(SharedBuffer(8 * _LINE * num_workers))

    def beat(self, worker_id: int) -> None:
        """Record a heartbeat of this worker; takes about a microsecond."""
        now = time.monotonic_ns()
        self._numbers[_LINE * worker_id + _BEAT] = now
        if now >= self._rss_due_ns:
            self._rss_due_ns = now + _RSS_EVERY_NS
            self._numbers[_LINE * worker_id + _RSS] = resident_memory(os.getpid()) or 0

    def last_beat(self, worker_id: int) -> float:
        """Time of a worker's last heartbeat, in seconds of ``time.monotonic``; 0 before its first."""
        return float(self._numbers[_LINE * worker_id + _BEAT]) * 1e-9

    def resident_bytes(self, worker_id: int) -> int | None:
        """Memory of a worker, which it measures about once a second; None before the first measurement."""
        return int(self._numbers[_LINE * worker_id + _RSS]) or None

    def begin_rollout(self, worker_id: int) -> None:
        """Count a rollout that this worker begins."""
        self._numbers[_LINE * worker_id + _BEGUN] += 1

    def rollouts_begun(self, worker_id: int) -> int:
        """How many rollouts a worker has begun in all its incarnations."""
        return int(self._numbers[_LINE * worker_id + _BEGUN])

    def clear(self, worker_id: int) -> None:
        """Clear a worker's heartbeat and memory before its next incarnation starts."""
        self._numbers[_LINE * worker_id + _BEAT] = self._numbers[_LINE * worker_id + _RSS] = 0
