r"""The supervisor starts, watches, replaces and stops worker processes. It knows no torch and no game.

::

    STARTING --Ready--> RUNNING --Stop--> STOPPING --exit--> DEAD
        \________________ exit, hang ________________________^  |
        ^_________________ backoff, within the budget ___________|

One blocking wait covers every pipe *and* every process sentinel: a death is noticed in milliseconds, without polling.
``restarts.decide``, a pure function, decides what follows.
"""

from __future__ import annotations

import logging
import os
import pickle
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from keisei_lightning.errors import RemoteTraceback, TooFewWorkersError
from keisei_lightning.parallel.supervision.events import Event, Exited, Received, Started, Woken, WorkerHealth
from keisei_lightning.parallel.supervision.messages import Failure, LogRecord, Ready, Stop, ToLearner, ToWorker
from keisei_lightning.parallel.supervision.processes import ProcessHandle, dump_stack, ends_by
from keisei_lightning.parallel.supervision.restarts import GiveUp, RestartPolicy, WorkerExit, WorkerState, decide
from keisei_lightning.parallel.supervision.worker_record import WorkerRecord

__all__ = ["Supervisor"]

_logger = logging.getLogger("keisei_lightning.supervisor")
_CLOSED_PIPE_GRACE_S = 1.0  # between a closed pipe and the process's end
_ABSENCE_S = 0.5  # an owner away for this long was busy, or was stopped (Ctrl-Z), and the workers with it ...
_RETURN_GRACE_S = 2.0  # ... which get at most this long to show a sign of life again
_KILL_GRACE_S = 0.2  # between SIGTERM and SIGKILL for a worker that hangs: it is not expected to react
_REAP_S = 0.8  # for all that were sent SIGKILL: one in uninterruptible sleep (of a drive or a driver) is not waited for
_WAKE_BYTES = 4096  # of all threads that want the owner to wake: it wakes once
_EXIT_CODE_S = 1.0  # from a sentinel, which shows that a process has ended, to its exit code


Spawn = Callable[[int, int], tuple[ProcessHandle, "Connection[Any, Any]"]]


class Supervisor:
    """Runs ``num_workers`` worker processes and replaces those that fail.

    Args:
        spawn: starts one incarnation: (worker_id, incarnation) -> (started process, the learner's end of its pipe).
        num_workers: how many.
        helpers: names of further processes, which are supervised alike but are no workers; their ids follow the
            workers'.
        policy: timeouts and budget.
        last_heartbeat: time of a worker's last heartbeat on ``clock``'s scale; None: workers only send messages.
        resident_bytes: memory of a worker when it was last measured; None where that is not known.
        abandon: called with a process that SIGKILL does not end, and that is not waited for.
        first_incarnations: number of each worker's first incarnation, where earlier ones were supervised elsewhere;
            empty: 0.
        wake_by: readable end of a pipe; a byte that another thread writes there ends a wait (:class:`Woken`).
        clock: seconds; injected by tests.
        jitter: a number in [-1, 1); injected by tests.
    """

    def __init__(
        self,
        spawn: Spawn,
        *,
        num_workers: int,
        policy: RestartPolicy,
        helpers: Sequence[str] = (),
        last_heartbeat: Callable[[int], float] | None = None,
        resident_bytes: Callable[[int], int | None] = lambda worker_id: None,
        abandon: Callable[[ProcessHandle], None] = lambda process: None,
        first_incarnations: Sequence[int] = (),
        wake_by: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(-1, 1),
    ) -> None:
        self._spawn, self._policy = spawn, policy
        self._resident_bytes, self._abandon = resident_bytes, abandon
        self._last_heartbeat, self._clock, self._jitter = last_heartbeat, clock, jitter
        names = [f"worker {worker_id}" for worker_id in range(num_workers)] + list(helpers)
        self._workers = [WorkerRecord(worker_id, name) for worker_id, name in enumerate(names)]
        for worker, first in zip(self._workers, first_incarnations, strict=False):
            worker.incarnation = first - 1
        self._num_workers, self._wake_by = num_workers, wake_by
        self._events: deque[Event] = deque()
        self._closed = False
        self._last_wait_at = clock()

    # ---- the owner's interface

    def start(self) -> None:
        """Start all workers at once; returns before they are ready."""
        for worker in self._workers:
            self._start_worker(worker)

    def send(self, worker_id: int, message: ToWorker) -> bool:
        """Send a message to a running worker; False if it is not running (its exit is, or will be, an event)."""
        worker = self._workers[worker_id]
        if worker.state is not WorkerState.RUNNING or worker.connection is None:
            return False
        try:
            worker.connection.send(message)
        except OSError:  # it died just now: the sentinel tells the rest
            return False
        return True

    def wait(self, timeout_s: float) -> list[Event]:
        """Block until events happen, at most ``timeout_s``; replace workers where necessary; return the events.

        Raises:
            WorkerBootError: a worker's first incarnation did not become ready.
            WorkerCrashLoopError: a worker's restart budget is spent.
            TooFewWorkersError: fewer than ``min_healthy_workers`` are left.
        """
        deadline = self._clock() + timeout_s
        # Drain pending messages first, so that a busy owner does not mistake a live worker for a hung one.
        self._wait_once(0.0)
        self._excuse_after_absence(0.0)
        while True:  # once at least: if messages were always pending, no hung worker would ever be found
            self._respawn_due()
            self._end_hung_workers()
            now = self._clock()
            if self._events or now >= deadline:
                break
            timeout = min(deadline, self._next_check(now)) - now
            self._wait_once(timeout)
            self._excuse_after_absence(timeout)
        self._respawn_due()  # workers that died just now, if at once: the owner may not wait again for some time
        events = list(self._events)
        self._events.clear()
        return events

    def shutdown(self, timeout_s: float) -> None:
        """Stop all workers: ask, then SIGTERM, then SIGKILL. Returns within ``timeout_s`` + 1 s; twice is harmless."""
        if self._closed:
            return
        self._closed = True
        alive = [worker for worker in self._workers if worker.process is not None]
        try:
            for worker in alive:
                if worker.state is WorkerState.STARTING and worker.process is not None:
                    worker.process.terminate()  # it reads no messages yet, and has nothing to finish
                self.send(worker.worker_id, Stop())
                worker.move(WorkerState.STOPPING)
            start = self._clock()
            self._join_all(alive, start + 0.7 * timeout_s)
            self._signal_all(alive, "terminate")
            self._join_all(alive, start + timeout_s)
        finally:  # also when a second Ctrl-C ends the waiting
            self._signal_all(alive, "kill")
            deadline = time.monotonic() + _REAP_S
            for worker in alive:
                self._reap(worker, deadline)

    def health(self) -> list[WorkerHealth]:
        """The present state of every worker."""
        now = self._clock()
        return [
            WorkerHealth(
                worker_id=worker.worker_id,
                name=worker.name,
                state=worker.state,
                pid=worker.pid,
                incarnation=worker.incarnation,
                restarts=max(worker.incarnation, 0),
                last_sign_of_life_s=now - self._sign_of_life(worker),
            )
            for worker in self._workers
        ]

    # ---- one worker

    def _start_worker(self, worker: WorkerRecord) -> None:
        worker.begin_incarnation()
        process, connection = self._spawn(worker.worker_id, worker.incarnation)
        worker.attach(process, connection, self._clock())

    def _respawn_due(self) -> None:
        now = self._clock()
        for worker in self._workers:
            if worker.respawn_at is not None and now >= worker.respawn_at:
                worker.restarts.append(now)
                self._start_worker(worker)

    def _sign_of_life(self, worker: WorkerRecord) -> float:
        beat = self._last_heartbeat(worker.worker_id) if self._last_heartbeat is not None else 0.0
        return max(worker.started_at, worker.last_message_at, beat)

    def _deadline(self, worker: WorkerRecord) -> float:
        """When a worker counts as hung, unless it shows a sign of life before."""
        if worker.pipe_closed_at is not None:
            return worker.pipe_closed_at + _CLOSED_PIPE_GRACE_S
        if worker.state is WorkerState.STARTING:
            return worker.started_at + self._policy.start_timeout_s
        return max(self._sign_of_life(worker) + self._policy.heartbeat_s, worker.excused_until)

    def _end_hung_workers(self) -> None:
        now = self._clock()
        for worker in self._workers:
            process = worker.process
            if process is None or now < self._deadline(worker):
                continue
            if worker.pipe_closed_at is not None:
                reason = "closed its pipe but did not end"
            elif worker.state is WorkerState.STARTING:
                reason = f"was not ready within start_timeout_s={self._policy.start_timeout_s:g}"
            else:
                reason = f"gave no sign of life for heartbeat_s={self._policy.heartbeat_s:g}"
                worker.close_pipe()  # should it continue now, its messages are not read
                dump_stack(process)
            process.terminate()
            self._handle_exit(worker, process, reason=reason, grace_s=_KILL_GRACE_S)

    def _excuse_after_absence(self, waited_s: float) -> None:
        """Excuse silent workers if the owner has been away for longer than it waited: they need not be hung.

        Each is excused once for each sign of life: otherwise an owner that is away repeatedly would excuse a hung
        worker for ever.
        """
        now = self._clock()
        if now - self._last_wait_at > waited_s + _ABSENCE_S:
            for worker in self._workers:
                if (sign := self._sign_of_life(worker)) > worker.excused_sign:
                    worker.excused_sign = sign
                    worker.excused_until = now + min(self._policy.heartbeat_s, _RETURN_GRACE_S)
        self._last_wait_at = now

    def _next_check(self, now: float) -> float:
        times = [worker.respawn_at for worker in self._workers if worker.respawn_at is not None]
        times += [self._deadline(worker) for worker in self._workers if worker.process is not None]
        return max(min(times, default=now + 1.0), now + 0.001)

    def _wait_once(self, timeout_s: float) -> None:
        connections = {worker.connection: worker for worker in self._workers if worker.connection is not None}
        sentinels = {worker.process.sentinel: worker for worker in self._workers if worker.process is not None}
        ready = wait([*connections, *sentinels, *([] if self._wake_by is None else [self._wake_by])], timeout_s)
        if self._wake_by in ready:
            os.read(self._wake_by, _WAKE_BYTES)
            self._events.append(Woken())
        for item in ready:
            if item in connections:
                self._read_messages(connections[item])
        for item in ready:
            if item in sentinels and (process := sentinels[item].process) is not None:
                self._handle_exit(sentinels[item], process, grace_s=_EXIT_CODE_S)

    def _read_messages(self, worker: WorkerRecord) -> None:
        """Handle all messages of a worker that have come."""
        if worker.reader is None:
            return
        try:
            for message in worker.reader.read():
                self._handle_message(worker, message)
        except (EOFError, OSError, pickle.UnpicklingError):  # its end is closed: the sentinel tells the rest
            worker.close_pipe()
            worker.pipe_closed_at = self._clock()

    def _handle_message(self, worker: WorkerRecord, message: ToLearner) -> None:
        worker.last_message_at = self._clock()
        match message:
            case Ready():
                worker.move(WorkerState.RUNNING)
                self._events.append(Started(worker_id=worker.worker_id, incarnation=worker.incarnation))
            case Failure():
                worker.failure = message
            case LogRecord():
                logger = logging.getLogger("keisei_lightning.worker")
                logger.log(message.level, "[%s.%d] %s", worker.name, worker.incarnation, message.message)
            case _:
                self._events.append(
                    Received(worker_id=worker.worker_id, incarnation=worker.incarnation, message=message)
                )

    def _handle_exit(self, worker: WorkerRecord, process: ProcessHandle, *, grace_s: float, reason: str = "") -> None:
        """Read the last messages of a worker that ends, reap its process, and decide what follows."""
        deadline = time.monotonic() + grace_s
        if not ends_by(process, deadline):
            process.kill()
            deadline = time.monotonic() + _REAP_S
            ends_by(process, deadline)
        self._read_messages(worker)
        state, code = worker.state, self._reap(worker, deadline)
        exit = WorkerExit(
            worker_id=worker.worker_id,
            incarnation=worker.incarnation,
            state=state,
            exit_code=code,
            failure=worker.failure,
            reason=reason,
            resident_bytes=self._resident_bytes(worker.worker_id),
            name=worker.name,
        )
        self._events.append(Exited(exit=exit))
        now = self._clock()
        decision = decide(exit, worker.restarts, now, self._policy)
        if isinstance(decision, GiveUp):
            raise decision.error(decision.message) from _cause(exit)
        worker.respawn_at = now + decision.delay_s * (1 + self._policy.jitter * self._jitter())
        healthy = sum(other.process is not None for other in self._workers[: self._num_workers])
        _logger.warning(
            "%s; restart %d of %d in %.1f s, %d of %d workers left",
            exit.describe(),
            len(worker.restarts) + 1,
            self._policy.max_restarts,
            decision.delay_s,
            healthy,
            self._num_workers,
        )
        if healthy < self._policy.min_healthy_workers:
            raise TooFewWorkersError(
                f"{exit.describe()}; {healthy} of {self._num_workers} workers are left, "
                f"min_healthy_workers={self._policy.min_healthy_workers}"
            ) from _cause(exit)

    def _signal_all(self, workers: Sequence[WorkerRecord], verb: Literal["terminate", "kill"]) -> None:
        for worker in workers:
            if worker.process is not None and worker.process.is_alive():
                _logger.warning("%s does not stop when asked: %s", worker.name, verb)
                getattr(worker.process, verb)()

    def _join_all(self, workers: Sequence[WorkerRecord], until: float) -> None:
        pending = {worker.process.sentinel for worker in workers if worker.process is not None}
        while pending and (left := until - self._clock()) > 0:
            pending -= set(wait(list(pending), left))

    def _reap(self, worker: WorkerRecord, deadline: float) -> int | None:
        """Close a worker's process; returns its exit code, None if it has none by a time of ``time.monotonic``."""
        process, worker.process, worker.pid = worker.process, None, None
        code: int | None = None
        if process is not None:
            if ends_by(process, deadline):
                code = process.exitcode
                process.close()
            else:
                _logger.error(
                    "%s: SIGKILL does not end its process %s, which sleeps in the kernel (a drive or a driver that "
                    "does not answer?); it is left behind",
                    worker.name,
                    process.pid,
                )
                self._abandon(process)
        worker.close_pipe()
        worker.respawn_at = None
        worker.move(WorkerState.DEAD)
        return code


def _cause(exit: WorkerExit) -> RemoteTraceback | None:
    return RemoteTraceback(exit.failure.traceback) if exit.failure is not None else None
