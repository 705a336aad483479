"""Threads beside the event loop: boards live on them, since a board is used by the thread that made it alone."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar

from keisei_lightning.serve.fields import RequestError

__all__ = ["BusyError", "Stop", "WorkThread", "WorkThreads"]

T = TypeVar("T")

Stop = Callable[[], bool]
"""Whether nobody waits any more for what is being done."""


class BusyError(RequestError):
    """More is waiting than may wait."""

    def __init__(self) -> None:
        super().__init__(503, "the server has too much to do just now; try again in a moment")


class _Job(Generic[T]):
    """A function to be called on a thread, and what will come of it."""

    def __init__(self, work: Callable[[Stop], T]) -> None:
        self.future: Future[T] = Future()
        self._work = work
        self.lets_go = False
        """Boards are let go by it: it is done in any case."""
        self._given_up = threading.Event()

    def give_up(self) -> None:
        """Nobody waits any more."""
        self._given_up.set()
        self.future.cancel()

    def run(self) -> None:
        """Do it, on the thread."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._work(self._given_up.is_set)
        except BaseException as error:  # noqa: BLE001 - raised again where somebody waits for it
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class WorkThread:
    """One thread that does one thing after another.

    Args:
        max_waiting: so many may wait; further ones are refused.
        name: of the thread.
    """

    def __init__(self, *, max_waiting: int, name: str) -> None:
        self._max_waiting = max_waiting
        self._jobs: deque[_Job[Any]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._running: _Job[Any] | None = None
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    @property
    def load(self) -> int:
        """What is being done and what waits."""
        with self._changed:
            return len(self._jobs) + (self._running is not None)

    async def run(self, work: Callable[[Stop], T]) -> T:
        """Do something on the thread, and wait for it without blocking the event loop.

        Args:
            work: is told how to learn that the caller has been cancelled. What it raises is raised here.

        Raises:
            BusyError: too much waits already.
        """
        job = _Job(work)
        self._put(job)
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            job.give_up()
            raise

    def release(self, work: Callable[[], object]) -> None:
        """Do something small on the thread, later; it is never refused, and nobody waits for it."""
        job = _Job(lambda _: work())
        job.lets_go = True
        with contextlib.suppress(BusyError):  # closed: nobody comes back for it
            self._put(job)

    def close(self) -> None:
        """End the thread: what runs is told to stop, and what waits is not done."""
        with self._changed:
            self._closed = True
            jobs = [*self._jobs, *([self._running] if self._running else [])]
            self._changed.notify()
        for job in jobs:
            if not job.lets_go:
                job.give_up()
        self._thread.join()

    def _put(self, job: _Job[Any]) -> None:
        with self._changed:
            if self._closed or (not job.lets_go and len(self._jobs) >= self._max_waiting):
                raise BusyError
            self._jobs.append(job)
            self._changed.notify()

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._running = None
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if not self._jobs:
                    return
                job = self._running = self._jobs.popleft()
            with contextlib.suppress(CancelledError):
                job.run()
            del job  # what it refers to belongs to this thread, and shall not wait for the next job to be let go


class WorkThreads:
    """Some threads; each game is given to the one that has least to do.

    Args:
        count: how many searches can run side by side.
        max_waiting: see :class:`WorkThread`.
    """

    def __init__(self, count: int, *, max_waiting: int = 16) -> None:
        self._threads = [WorkThread(max_waiting=max_waiting, name=f"keisei-boards-{n}") for n in range(count)]
        self._next = 0

    def choose(self) -> WorkThread:
        """The thread for a new game."""
        self._next += 1
        order = self._threads[self._next % len(self._threads) :] + self._threads[: self._next % len(self._threads)]
        return min(order, key=lambda thread: thread.load)

    def close(self) -> None:
        """End all of them."""
        for thread in self._threads:
            thread.close()
