r"""Keeping worker processes alive: start, watch, replace, stop. It knows processes and pipes, no torch and no game.

::

    STARTING --Ready--> RUNNING --Stop--> STOPPING --exit--> DEAD
        \________________ exit, hang ________________________^  |
        ^_________________ backoff, within the budget ___________|

One blocking wait covers every pipe *and* every process sentinel: a death is seen in milliseconds, without polling.
What to do about it is ``restarts.decide``, a pure function.
"""

from __future__ import annotations

import logging
import math
import pickle
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from keisei_lightning.errors import RemoteTraceback, TooFewWorkersError
from keisei_lightning.parallel.supervision.messages import Failure, LogRecord, Ready, Stop, ToLearner, ToWorker
from keisei_lightning.parallel.supervision.pipes import MessageReader
from keisei_lightning.parallel.supervision.processes import ProcessHandle, dump_stack, ends_by
from keisei_lightning.parallel.supervision.restarts import (
    TRANSITIONS,
    GiveUp,
    RestartPolicy,
    WorkerExit,
    WorkerState,
    decide,
)

__all__ = ["Exited", "Received", "Started", "Supervisor", "WorkerHealth"]

_logger = logging.getLogger("keisei_lightning.supervisor")
_MUTE_GRACE_S = 1.0  # between a closed pipe and the process's end
_ABSENCE_S = 0.5  # who has not looked for this long was busy, or was stopped (Ctrl-Z), and the workers with it ...
_RETURN_GRACE_S = 2.0  # ... which get this long, at most, to show life again
_KILL_GRACE_S = 0.2  # between SIGTERM and SIGKILL for a worker that hangs: it has shown that it does not listen
_REAP_S = 0.8  # for all who were sent SIGKILL: one in uninterruptible sleep (of a drive or a driver) is not waited for
_EXIT_CODE_S = 1.0  # from a sentinel, which shows that a process has ended, to its exit code


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """Event: a worker said something."""

    worker_id: int
    incarnation: int
    message: ToLearner


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """Event: a worker is ready."""

    worker_id: int
    incarnation: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Exited:
    """Event: a worker ended; everything it had announced came before this event."""

    exit: WorkerExit


Event = Received | Started | Exited


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerHealth:
    """One process as the supervisor sees it now; ``name`` is "worker 0" and so on, or a helper's."""

    worker_id: int
    name: str
    state: WorkerState
    pid: int | None
    incarnation: int
    restarts: int
    last_sign_of_life_s: float


@dataclass(slots=True)
class _Worker:
    worker_id: int
    name: str
    state: WorkerState = WorkerState.DEAD
    incarnation: int = -1
    process: ProcessHandle | None = None
    pid: int | None = None  # noted: another thread may ask while the process is being closed
    connection: Connection[Any, Any] | None = None
    reader: MessageReader | None = None
    started_at: float = 0.0
    last_heard: float = 0.0
    excused_sign: float = -math.inf  # the sign of life after which it was excused, and until when
    excused_until: float = -math.inf
    mute_since: float | None = None
    respawn_at: float | None = None
    failure: Failure | None = None
    restarts: list[float] = field(default_factory=list)


Spawn = Callable[[int, int], tuple[ProcessHandle, "Connection[Any, Any]"]]


class Supervisor:
    """Runs ``num_workers`` worker processes and replaces those that fail.

    Args:
        spawn: starts one incarnation: (worker_id, incarnation) -> (started process, the learner's end of its pipe).
        num_workers: how many.
        helpers: names of further processes, which are looked after alike but are no workers; their ids come after the
            workers'.
        policy: timeouts and budget.
        last_beat: time of a worker's last sign of life on ``clock``'s scale, or None where it gives none but messages.
        resident_bytes: memory that a worker held when it last looked, where that is known.
        abandon: hears of a process that SIGKILL does not end, of which nothing more is to be expected.
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
        last_beat: Callable[[int], float] | None = None,
        resident_bytes: Callable[[int], int | None] = lambda worker_id: None,
        abandon: Callable[[ProcessHandle], None] = lambda process: None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(-1, 1),
    ) -> None:
        self._spawn, self._policy = spawn, policy
        self._resident_bytes, self._abandon = resident_bytes, abandon
        self._last_beat, self._clock, self._jitter = last_beat, clock, jitter
        names = [f"worker {worker_id}" for worker_id in range(num_workers)] + list(helpers)
        self._workers = [_Worker(worker_id, name) for worker_id, name in enumerate(names)]
        self._num_workers = num_workers
        self._events: deque[Event] = deque()
        self._closed = False
        self._looked_at = clock()

    # ---- verbs of the owner

    def start(self) -> None:
        """Start all workers at once; returns before they are ready."""
        for worker in self._workers:
            self._start_worker(worker)

    def send(self, worker_id: int, message: ToWorker) -> bool:
        """Say something to a running worker; False if it is not running (its exit is, or will be, an event)."""
        worker = self._workers[worker_id]
        if worker.state is not WorkerState.RUNNING or worker.connection is None:
            return False
        try:
            worker.connection.send(message)
        except OSError:  # it died just now: the sentinel tells the rest
            return False
        return True

    def wait(self, timeout_s: float) -> list[Event]:
        """Block until something happens, at most ``timeout_s``; do what needs doing about it; return what happened.

        Raises:
            WorkerBootError: a worker's first incarnation did not get ready.
            WorkerCrashLoopError: a worker's restart budget is spent.
            TooFewWorkersError: fewer than ``min_healthy_workers`` are left.
        """
        deadline = self._clock() + timeout_s
        self._wait_once(0.0)  # nobody is hung or late who has spoken while the owner was busy elsewhere
        self._notice_absence(0.0)
        while True:  # once at least: others may always have something to say, and nobody would ever be found hung
            self._respawn_due()
            self._end_hung_workers()
            now = self._clock()
            if self._events or now >= deadline:
                break
            timeout = min(deadline, self._next_check(now)) - now
            self._wait_once(timeout)
            self._notice_absence(timeout)
        self._respawn_due()  # whoever died just now, if at once: the owner may not come back for a while
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
                    worker.process.terminate()  # it cannot hear yet, and has nothing to finish
                self.send(worker.worker_id, Stop())
                self._move(worker, WorkerState.STOPPING)
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
        """Every worker's state now."""
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

    # ---- one worker's life

    def _move(self, worker: _Worker, to: WorkerState) -> None:
        if to not in TRANSITIONS[worker.state]:
            raise RuntimeError(f"worker {worker.worker_id} cannot go from {worker.state} to {to}")
        _logger.debug("%s.%d: %s -> %s", worker.name, worker.incarnation, worker.state.value, to.value)
        worker.state = to

    def _start_worker(self, worker: _Worker) -> None:
        worker.incarnation += 1
        worker.failure, worker.respawn_at, worker.mute_since = None, None, None
        self._move(worker, WorkerState.STARTING)
        worker.process, worker.connection = self._spawn(worker.worker_id, worker.incarnation)
        worker.pid = worker.process.pid
        worker.reader = MessageReader(worker.connection)
        worker.started_at = worker.last_heard = self._clock()

    def _respawn_due(self) -> None:
        now = self._clock()
        for worker in self._workers:
            if worker.respawn_at is not None and now >= worker.respawn_at:
                worker.restarts.append(now)
                self._start_worker(worker)

    def _sign_of_life(self, worker: _Worker) -> float:
        beat = self._last_beat(worker.worker_id) if self._last_beat is not None else 0.0
        return max(worker.started_at, worker.last_heard, beat)

    def _deadline(self, worker: _Worker) -> float:
        """When a worker is given up, unless it shows life before."""
        if worker.mute_since is not None:
            return worker.mute_since + _MUTE_GRACE_S
        if worker.state is WorkerState.STARTING:
            return worker.started_at + self._policy.start_timeout_s
        return max(self._sign_of_life(worker) + self._policy.heartbeat_s, worker.excused_until)

    def _end_hung_workers(self) -> None:
        now = self._clock()
        for worker in self._workers:
            process = worker.process
            if process is None or now < self._deadline(worker):
                continue
            if worker.mute_since is not None:
                reason = "closed its pipe but did not leave"
            elif worker.state is WorkerState.STARTING:
                reason = f"was not ready within start_timeout_s={self._policy.start_timeout_s:g}"
            else:
                reason = f"gave no sign of life for heartbeat_s={self._policy.heartbeat_s:g}"
                _close_pipe(worker)  # should it wake now, nobody hears what it says
                dump_stack(process)
            process.terminate()
            self._bury(worker, process, reason=reason, patience_s=_KILL_GRACE_S)

    def _notice_absence(self, waited_s: float) -> None:
        """Excuse the workers where nobody has looked for longer than was meant: who was silent need not be hung.

        Each once for each sign of life: an owner that is busy again and again would excuse a hung one for ever.
        """
        now = self._clock()
        if now - self._looked_at > waited_s + _ABSENCE_S:
            for worker in self._workers:
                if (sign := self._sign_of_life(worker)) > worker.excused_sign:
                    worker.excused_sign = sign
                    worker.excused_until = now + min(self._policy.heartbeat_s, _RETURN_GRACE_S)
        self._looked_at = now

    def _next_check(self, now: float) -> float:
        times = [worker.respawn_at for worker in self._workers if worker.respawn_at is not None]
        times += [self._deadline(worker) for worker in self._workers if worker.process is not None]
        return max(min(times, default=now + 1.0), now + 0.001)

    def _wait_once(self, timeout_s: float) -> None:
        connections = {worker.connection: worker for worker in self._workers if worker.connection is not None}
        sentinels = {worker.process.sentinel: worker for worker in self._workers if worker.process is not None}
        ready = wait([*connections, *sentinels], timeout_s)
        for item in ready:
            if item in connections:
                self._read(connections[item])
        for item in ready:
            if item in sentinels and (process := sentinels[item].process) is not None:
                self._bury(sentinels[item], process, patience_s=_EXIT_CODE_S)

    def _read(self, worker: _Worker) -> None:
        """Take in everything that a worker has said."""
        if worker.reader is None:
            return
        try:
            for message in worker.reader.read():
                self._hear(worker, message)
        except (EOFError, OSError, pickle.UnpicklingError):  # its end is closed: the sentinel tells the rest
            _close_pipe(worker)
            worker.mute_since = self._clock()

    def _hear(self, worker: _Worker, message: ToLearner) -> None:
        worker.last_heard = self._clock()
        match message:
            case Ready():
                self._move(worker, WorkerState.RUNNING)
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

    def _bury(self, worker: _Worker, process: ProcessHandle, *, patience_s: float, reason: str = "") -> None:
        """A worker ends: hear its last words, reap it, and decide what comes next."""
        deadline = time.monotonic() + patience_s
        if not ends_by(process, deadline):
            process.kill()
            deadline = time.monotonic() + _REAP_S
            ends_by(process, deadline)
        self._read(worker)
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

    def _signal_all(self, workers: Sequence[_Worker], verb: Literal["terminate", "kill"]) -> None:
        for worker in workers:
            if worker.process is not None and worker.process.is_alive():
                _logger.warning("%s does not stop when asked: %s", worker.name, verb)
                getattr(worker.process, verb)()

    def _join_all(self, workers: Sequence[_Worker], until: float) -> None:
        pending = {worker.process.sentinel for worker in workers if worker.process is not None}
        while pending and (left := until - self._clock()) > 0:
            pending -= set(wait(list(pending), left))

    def _reap(self, worker: _Worker, deadline: float) -> int | None:
        """Let go of a worker's process; its exit code, None if it has none by a time of ``time.monotonic``."""
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
        _close_pipe(worker)
        worker.respawn_at = None
        self._move(worker, WorkerState.DEAD)
        return code


def _close_pipe(worker: _Worker) -> None:
    if worker.connection is not None:
        worker.connection.close()
        worker.connection, worker.reader = None, None


def _cause(exit: WorkerExit) -> RemoteTraceback | None:
    return RemoteTraceback(exit.failure.traceback) if exit.failure is not None else None
