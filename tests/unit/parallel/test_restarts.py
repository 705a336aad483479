"""When a dead worker is replaced: a table of cases, without a clock."""

from __future__ import annotations

import signal

import pytest

from keisei_lightning.errors import WorkerBootError, WorkerCrashLoopError
from keisei_lightning.parallel.supervision.messages import Failure
from keisei_lightning.parallel.supervision.restarts import (
    GiveUp,
    Respawn,
    RestartPolicy,
    WorkerExit,
    WorkerState,
    decide,
)

STARTING, RUNNING = WorkerState.STARTING, WorkerState.RUNNING


def worker_exit(
    *,
    incarnation: int = 0,
    state: WorkerState = RUNNING,
    exit_code: int | None = 1,
    failure: Failure | None = None,
    reason: str = "",
    resident_bytes: int | None = None,
) -> WorkerExit:
    return WorkerExit(
        worker_id=3,
        incarnation=incarnation,
        state=state,
        exit_code=exit_code,
        failure=failure,
        reason=reason,
        resident_bytes=resident_bytes,
    )


POLICY = RestartPolicy(max_restarts=5, restart_window_s=300.0, restart_backoff_s=0.5, backoff_cap_s=3.0)


@pytest.mark.parametrize(
    ("history", "now", "delay_s"),
    [
        ([], 1000.0, 0.0),  # one death is no loop
        ([999.0], 1000.0, 0.5),
        ([998.0, 999.0], 1000.0, 1.0),
        ([997.0, 998.0, 999.0], 1000.0, 2.0),
        ([996.0, 997.0, 998.0, 999.0], 1000.0, 3.0),  # 4 s, capped
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 1000.0, 0.0),  # all out of the window
        ([701.0, 800.0, 900.0], 1000.0, 0.0),  # each life was longer than 300 s / 5: no loop
        ([701.0, 990.0], 1000.0, 0.5),  # only the last one was short
        ([900.0, 901.0, 940.0], 1000.0, 0.0),  # a life of exactly 60 s is long enough
        ([900.0, 941.0], 1000.0, 1.0),  # two consecutive ones: 41 s and 59 s
    ],
)
def test_a_restart_comes_at_once_and_after_each_further_consecutive_short_life_the_delay_doubles_up_to_the_cap(
    history: list[float], now: float, delay_s: float
) -> None:
    assert decide(worker_exit(), history, now, POLICY) == Respawn(delay_s=delay_s)


def test_the_budget_slides_with_the_window() -> None:
    history = [100.0, 200.0, 300.0, 350.0, 390.0]
    assert isinstance(decide(worker_exit(), history, 399.9, POLICY), GiveUp)
    assert decide(worker_exit(), history, 400.0, POLICY) == Respawn(delay_s=2.0)  # the first has left; three were short


def test_a_crash_loop_names_worker_cause_and_times() -> None:
    decision = decide(
        worker_exit(incarnation=5, exit_code=-signal.SIGSEGV), [990.0, 991.5, 993.0, 996.0, 999.75], 1000.0, POLICY
    )
    assert decision == GiveUp(
        error=WorkerCrashLoopError,
        message=(
            "worker 3 (incarnation 5) was ended by SIGSEGV; its budget of 5 restarts in 300 s is spent "
            "(restarts: 10.0 s ago, 8.5 s ago, 7.0 s ago, 4.0 s ago, 0.2 s ago)"
        ),
    )


def test_without_a_budget_the_first_death_is_the_last() -> None:
    decision = decide(worker_exit(), [], 0.0, RestartPolicy(max_restarts=0))
    assert isinstance(decision, GiveUp)
    assert decision.error is WorkerCrashLoopError
    assert "budget of 0 restarts in 300 s is spent (restarts: none)" in decision.message


def test_a_first_incarnation_that_never_got_ready_is_not_restarted() -> None:
    decision = decide(worker_exit(state=STARTING), [], 0.0, POLICY)
    assert decision == GiveUp(
        error=WorkerBootError,
        message=("worker 3 (incarnation 0) ended by itself, exit code 1, before it was ready; nothing was restarted"),
    )
    assert isinstance(decide(worker_exit(state=STARTING, incarnation=1), [0.0], 1.0, POLICY), Respawn)


@pytest.mark.parametrize(
    ("ended", "text"),
    [
        (worker_exit(exit_code=-signal.SIGSEGV), "was ended by SIGSEGV"),
        (worker_exit(exit_code=-signal.SIGABRT), "was ended by SIGABRT"),
        (worker_exit(exit_code=-signal.SIGBUS), "was ended by SIGBUS"),
        (worker_exit(exit_code=-signal.SIGKILL), "was ended by SIGKILL (likely out of memory, if nobody killed it)"),
        (
            worker_exit(exit_code=-signal.SIGKILL, resident_bytes=700 * 2**20),
            "was ended by SIGKILL (likely out of memory, if nobody killed it; it held 700 MiB)",
        ),
        (worker_exit(exit_code=-200), "was ended by signal 200"),
        (worker_exit(exit_code=0), "ended by itself, exit code 0"),
        (worker_exit(exit_code=-9, reason="gave no sign of life"), "gave no sign of life"),
        (
            worker_exit(failure=Failure(kind="KeyError", message="'x'", traceback=""), reason="was mute"),
            "raised KeyError: 'x'",
        ),
    ],
)
def test_an_exit_is_described_by_the_best_that_is_known(ended: WorkerExit, text: str) -> None:
    assert ended.describe() == f"worker 3 (incarnation 0) {text}"
