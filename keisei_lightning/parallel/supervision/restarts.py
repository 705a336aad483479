"""When a dead worker is replaced and when it is given up: a pure function of how it ended and what came before."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from keisei_lightning.errors import WorkerBootError, WorkerCrashLoopError, WorkerError
from keisei_lightning.parallel.supervision.messages import Failure

__all__ = ["TRANSITIONS", "GiveUp", "Respawn", "RestartPolicy", "WorkerExit", "WorkerState", "decide"]


class WorkerState(StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    DEAD = "dead"


TRANSITIONS: Mapping[WorkerState, frozenset[WorkerState]] = {
    WorkerState.STARTING: frozenset({WorkerState.RUNNING, WorkerState.STOPPING, WorkerState.DEAD}),
    WorkerState.RUNNING: frozenset({WorkerState.STOPPING, WorkerState.DEAD}),
    WorkerState.STOPPING: frozenset({WorkerState.DEAD}),
    WorkerState.DEAD: frozenset({WorkerState.STARTING}),
}
"""The only steps there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RestartPolicy:
    """How long to wait for workers, and how often to replace one.

    Attributes:
        heartbeat_s: a running worker that gives no sign of life for this long is hung.
        start_timeout_s: a worker must be ready within this time.
        max_restarts: of one worker within ``window_s``; the next death is a crash loop.
        window_s: the sliding window of the restart budget.
        backoff_s: delay before a restart after one short life; doubled for each further one on end.
        backoff_cap_s: the longest delay.
        jitter: delays vary by this share, so that workers that died together do not come back together.
        min_healthy_workers: with fewer alive, training ends (0: as long as the restart budgets last).
    """

    heartbeat_s: float = 10.0
    start_timeout_s: float = 120.0
    max_restarts: int = 5
    window_s: float = 300.0
    backoff_s: float = 0.5
    backoff_cap_s: float = 30.0
    jitter: float = 0.2
    min_healthy_workers: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerExit:
    """How one life of a worker ended.

    Attributes:
        worker_id: which worker.
        incarnation: which life.
        state: in which state it was.
        exit_code: as ``multiprocessing`` gives it: negative for a signal.
        failure: its last words, if it could say any.
        reason: set where the supervisor ended it: why.
        resident_bytes: memory that it held, when it last looked.
        name: of the process; "worker N" where none is given.
    """

    worker_id: int
    incarnation: int
    state: WorkerState
    exit_code: int | None
    failure: Failure | None = None
    reason: str = ""
    resident_bytes: int | None = None
    name: str = ""

    def describe(self) -> str:
        """One line: who, how, and what that likely means."""
        who = f"{self.name or f'worker {self.worker_id}'} (incarnation {self.incarnation})"
        if self.failure is not None:
            return f"{who} raised {self.failure.kind}: {self.failure.message}"
        if self.reason:
            return f"{who} {self.reason}"
        code = self.exit_code
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return f"{who} was ended by {name}{self._memory_hint() if name == 'SIGKILL' else ''}"
        return f"{who} left without being asked, exit code {code}"

    def _memory_hint(self) -> str:
        held = "" if self.resident_bytes is None else f"; it held {self.resident_bytes / 2**20:.0f} MiB"
        return f" (likely out of memory, if nobody killed it{held})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Respawn:
    """Decision: start the worker's next incarnation after a delay."""

    delay_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """Decision: end with this error."""

    error: type[WorkerError]
    message: str


def decide(exit: WorkerExit, history: Sequence[float], now: float, policy: RestartPolicy) -> Respawn | GiveUp:
    """What to do about a worker that ended without being asked to. Pure.

    Args:
        exit: how it ended.
        history: times (seconds, same clock as ``now``) of this worker's earlier restarts.
        now: the present time.
        policy: the budget.

    Returns:
        :class:`Respawn` at once, or after ``backoff_s * 2**(k - 1)`` seconds if the last k lives, one after another,
        were each shorter than the budget allows on average (``window_s / max_restarts``): a worker that is killed now
        and then is no crash loop. Or :class:`GiveUp`: the first incarnation never got ready (nor would the next), or
        the budget is spent.
    """
    if exit.state is WorkerState.STARTING and exit.incarnation == 0:
        return GiveUp(error=WorkerBootError, message=f"{exit.describe()}, before it was ready; nothing was restarted")
    recent = [time for time in history if now - time < policy.window_s]
    if len(recent) >= policy.max_restarts:
        times = ", ".join(f"{now - time:.1f} s ago" for time in recent) or "none"
        return GiveUp(
            error=WorkerCrashLoopError,
            message=(
                f"{exit.describe()}; its budget of {policy.max_restarts} restarts in {policy.window_s:.0f} s is spent "
                f"(restarts: {times})"
            ),
        )
    short_lives = _count_short_lives(recent, now, shorter_than_s=policy.window_s / policy.max_restarts)
    if short_lives == 0:
        return Respawn(delay_s=0.0)
    return Respawn(delay_s=min(policy.backoff_s * 2 ** (short_lives - 1), policy.backoff_cap_s))


def _count_short_lives(restarts: Sequence[float], now: float, *, shorter_than_s: float) -> int:
    """How many lives on end, back from the present death, were short; the first incarnation's does not count."""
    count, end = 0, now
    for start in reversed(restarts):
        if end - start >= shorter_than_s:
            break
        count, end = count + 1, start
    return count
