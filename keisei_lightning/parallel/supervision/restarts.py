"""The restart policy: a pure function decides whether a dead worker is replaced, and when."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from keisei_lightning.errors import WorkerBootError, WorkerCrashLoopError, WorkerError
from keisei_lightning.parallel.options import SupervisionOptions
from keisei_lightning.parallel.supervision.messages import Failure

__all__ = ["TRANSITIONS", "GiveUp", "Respawn", "RestartPolicy", "WorkerExit", "WorkerState", "decide"]


class WorkerState(StrEnum):
    """The state of a worker."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    DEAD = "dead"

    def moved(self, to: WorkerState, name: str) -> WorkerState:
        """The state after a transition.

        Args:
            to: that state.
            name: whose state it is.

        Raises:
            RuntimeError: the transition is not one of ``TRANSITIONS``.
        """
        if to not in TRANSITIONS[self]:
            raise RuntimeError(f"{name} cannot go from {self} to {to}")
        return to


TRANSITIONS: Mapping[WorkerState, frozenset[WorkerState]] = {
    WorkerState.STARTING: frozenset({WorkerState.RUNNING, WorkerState.STOPPING, WorkerState.DEAD}),
    WorkerState.RUNNING: frozenset({WorkerState.STOPPING, WorkerState.DEAD}),
    WorkerState.STOPPING: frozenset({WorkerState.DEAD}),
    WorkerState.DEAD: frozenset({WorkerState.STARTING}),
}
"""The only transitions."""


@dataclass(frozen=True, kw_only=True)
class RestartPolicy(SupervisionOptions):
    """Time limits for workers, and the restart budget.

    Attributes:
        backoff_cap_s: the longest delay before a restart.
        jitter: delays vary by this share, so that workers that died together do not restart together.
    """

    backoff_cap_s: float = 30.0
    jitter: float = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerExit:
    """The end of one incarnation of a worker.

    Attributes:
        worker_id: which worker.
        incarnation: of the worker.
        state: its state before.
        exit_code: as ``multiprocessing`` gives it: negative for a signal.
        failure: the exception that it reported, if any.
        reason: why the supervisor ended it, if it did.
        resident_bytes: its memory, when it was last measured.
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
        """One line: which worker, how it ended, and the likely cause."""
        who = f"{self.name or f'worker {self.worker_id}'} (incarnation {self.incarnation})"
        if self.failure is not None:
            return f"{who} raised {self.failure.kind}: {self.failure.message}"
        if self.reason:
            return f"{who} {self.reason}"
        code = self.exit_code
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return f"{who} was ended by {name}{self._memory_hint() if name == 'SIGKILL' else ''}"
        return f"{who} ended by itself, exit code {code}"

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
    """Decide what to do about a worker that ended unexpectedly. A pure function.

    Args:
        exit: how it ended.
        history: times (seconds, same clock as ``now``) of this worker's earlier restarts.
        now: the present time.
        policy: the budget.

    Returns:
        :class:`Respawn` at once, or after ``restart_backoff_s * 2**(k - 1)`` seconds if the last k consecutive lives
        were each shorter than the budget allows on average (``restart_window_s / max_restarts``): a worker that is
        killed now and then is no crash loop. Or :class:`GiveUp`: the first incarnation never became ready (nor would
        the next), or the budget is spent.
    """
    if exit.state is WorkerState.STARTING and exit.incarnation == 0:
        return GiveUp(error=WorkerBootError, message=f"{exit.describe()}, before it was ready; nothing was restarted")
    recent = [time for time in history if now - time < policy.restart_window_s]
    if len(recent) >= policy.max_restarts:
        times = ", ".join(f"{now - time:.1f} s ago" for time in recent) or "none"
        return GiveUp(
            error=WorkerCrashLoopError,
            message=(
                f"{exit.describe()}; its budget of {policy.max_restarts} restarts in {policy.restart_window_s:.0f} s "
                f"is spent (restarts: {times})"
            ),
        )
    short_lives = _count_short_lives(recent, now, shorter_than_s=policy.restart_window_s / policy.max_restarts)
    if short_lives == 0:
        return Respawn(delay_s=0.0)
    return Respawn(delay_s=min(policy.restart_backoff_s * 2 ** (short_lives - 1), policy.backoff_cap_s))


def _count_short_lives(restarts: Sequence[float], now: float, *, shorter_than_s: float) -> int:
    """How many consecutive lives, back from the present death, were short; the first incarnation's does not count."""
    count, end = 0, now
    for start in reversed(restarts):
        if end - start >= shorter_than_s:
            break
        count, end = count + 1, start
    return count
