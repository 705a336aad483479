"""Every way in which a worker can end (rows 10 to 12) is reported as a failure; training continues where it can."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fault_helpers import GAMES, PLIES, TIMEOUT_S, Audit, collector_of
from faults import crashing_game, game_that_fails_to_boot
from rollout_checks import assert_whole

from keisei_lightning.errors import RemoteTraceback, WorkerBootError, WorkerCrashLoopError

pytestmark = [pytest.mark.process, pytest.mark.timeout(TIMEOUT_S)]


# ---- rows 10 and 11: every way to go


@pytest.mark.parametrize(
    ("how", "message", "frame"),
    [
        ("ValueError", "raised ValueError: the game is broken on purpose;", "raise ValueError("),
        ("KeyError", "raised KeyError: 'broken on purpose';", "raise KeyError("),
        ("SystemExit", "raised SystemExit: 0;", "raise SystemExit(0)"),
        ("unpicklable", "raised ValueError: cannot be pickled;", "raise error"),
        ("unshowable", "raised UnshowableError: its message cannot be shown;", "raise UnshowableError"),
        ("long message", "raised ValueError: " + "x" * 2000 + ";", ""),
        ("os._exit", "ended by itself, exit code 0;", None),
        ("SIGSEGV", "was ended by SIGSEGV;", None),
        ("SIGABRT", "was ended by SIGABRT;", None),
        ("SIGBUS", "was ended by SIGBUS;", None),
        ("SIGKILL", "was ended by SIGKILL (likely out of memory, if nobody killed it; it held N MiB);", None),
    ],
)
def test_rows_10_and_11_every_death_is_a_failure_that_is_named(how: str, message: str, frame: str | None) -> None:
    with collector_of(crashing_game(how, at=PLIES + 1), max_restarts=0) as collector:
        batches = iter(collector)
        assert_whole(next(batches), games_per_worker=GAMES)
        with pytest.raises(WorkerCrashLoopError) as info:
            next(batches)
    text = re.sub(r"\d+ MiB", "N MiB", str(info.value))
    assert text.startswith(f"worker 0 (incarnation 0) {message} its budget of 0 restarts")
    cause = info.value.__cause__
    if frame is None:
        assert cause is None
    else:
        assert isinstance(cause, RemoteTraceback)
        assert frame in cause.text
        assert len(cause.text) <= 20_000


@pytest.mark.parametrize("how", ["SystemExit", "unpicklable", "unshowable", "long message", "os._exit", "SIGABRT"])
def test_rows_10_and_11_training_continues_after_any_of_them(how: str, tmp_path: Path) -> None:
    with collector_of(crashing_game(how, at=3, once=str(tmp_path / "once")), num_workers=2) as collector:
        audit = Audit(collector)
        for batch in collector:
            audit.take(batch)
            if audit.batches == 3:
                break
        assert (tmp_path / "once").exists()
        assert collector.stats()["restarts"] == collector.stats()["lost_rollouts"] == 1


# ---- row 12: boot failure


def test_row_12_a_worker_that_cannot_boot_is_one_error_at_once() -> None:
    with collector_of(game_that_fails_to_boot, num_workers=2, restart_backoff_s=600.0) as collector:
        with pytest.raises(WorkerBootError) as info:
            next(iter(collector))
        assert collector.stats()["restarts"] == 0
    text = "raised ImportError: no module named 'only_on_your_machine', before it was ready; nothing was restarted"
    assert text in str(info.value)
    assert "in game_that_fails_to_boot" in str(info.value.__cause__)
