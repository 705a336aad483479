"""What a worker shows of itself without being asked: when it last got on, what it holds, what it has begun."""

from __future__ import annotations

import os
import time

from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer
from keisei_lightning.system.machine import resident_memory

__all__ = ["IDLE_BEAT_S", "HeartbeatBoard"]

IDLE_BEAT_S = 0.25
"""How often a process that waits shows life; also how soon it notices what it is not waiting for."""

_LINE = 8  # int64 numbers: a cache line for each worker
_BEAT, _RSS, _BEGUN = 0, 1, 2
_RSS_EVERY_NS = 1_000_000_000


class HeartbeatBoard:
    """A board in shared memory with a line for each worker: int64 nanoseconds of ``time.monotonic``, bytes, rollouts.

    Each number stands for itself, and is one aligned store of eight bytes: nothing else is read because of it, so no
    order among them matters. (What a worker had begun is looked at when it has ended.)

    Args:
        buffer: from :meth:`reserve`, the same for the learner and its workers.
    """

    def __init__(self, buffer: SharedBuffer) -> None:
        self.buffer = buffer
        self._numbers = buffer.array().data.cast("q")  # a store is many times quicker than into an array
        self._rss_due_ns = 0

    @classmethod
    def reserve(cls, num_workers: int) -> HeartbeatBoard:
        """Make a board for this many workers."""
        return cls(SharedBuffer(8 * _LINE * num_workers))

    def beat(self, worker_id: int) -> None:
        """Show life, as this worker; takes about a microsecond."""
        now = time.monotonic_ns()
        self._numbers[_LINE * worker_id + _BEAT] = now
        if now >= self._rss_due_ns:
            self._rss_due_ns = now + _RSS_EVERY_NS
            self._numbers[_LINE * worker_id + _RSS] = resident_memory(os.getpid()) or 0

    def last_beat(self, worker_id: int) -> float:
        """Seconds of ``time.monotonic`` of a worker's last sign of life; 0 before its first."""
        return float(self._numbers[_LINE * worker_id + _BEAT]) * 1e-9

    def resident_bytes(self, worker_id: int) -> int | None:
        """Memory that a worker held when it last looked (about once a second); None before its first look."""
        return int(self._numbers[_LINE * worker_id + _RSS]) or None

    def begin_rollout(self, worker_id: int) -> None:
        """Count a rollout that this worker begins."""
        self._numbers[_LINE * worker_id + _BEGUN] += 1

    def rollouts_begun(self, worker_id: int) -> int:
        """How many rollouts a worker has begun in all its lives."""
        return int(self._numbers[_LINE * worker_id + _BEGUN])

    def forget(self, worker_id: int) -> None:
        """Clear what a worker showed of its life: its next one begins."""
        self._numbers[_LINE * worker_id + _BEAT] = self._numbers[_LINE * worker_id + _RSS] = 0
