"""The learner is killed, stopped, paused or shut down (rows 13, 14, 18 and 19)."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes import CountingGame
from fault_helpers import (
    FOR_EVER_S,
    GAMES,
    HEARTBEAT_S,
    PLIES,
    SOAK,
    TIMEOUT_S,
    Audit,
    assert_within,
    collector_of,
    is_alive,
    wait_until,
)
from faults import crashing_game
from leaks import shared_memory_of
from soak_report import SoakReport

from keisei_lightning.errors import ConfigError

pytestmark = [pytest.mark.process, pytest.mark.timeout(TIMEOUT_S)]


# ---- row 13: the learner is killed


LEARNER = """
import sys, threading, time
sys.path[:0] = sys.argv[1:]
from fakes import VersionNetwork, counting_game
from faults import crashing_game
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector

def collector_of(game, **options):
    return SelfPlayCollector(
        game, ActorCritic(VersionNetwork()), games_per_worker=4, plies_per_rollout=6, heartbeat_s=600,
        stagger_games=False, **options
    )

idle = collector_of(counting_game(), num_workers=2)
writing = collector_of(counting_game(), num_workers=2, schedule="async", max_policy_lag=9)
hung = [collector_of(crashing_game(how, at=7)) for how in ("hang in Python", "hang in C", "ignore SIGTERM and sleep")]
for collector in (idle, writing, *hung):
    next(iter(collector))
for collector in hung:
    threading.Thread(target=next, args=(iter(collector),), daemon=True).start()
time.sleep(0.3)
print(*(w["pid"] for c in (idle, writing, *hung) for w in c.health()), flush=True)
for batch in writing:
    pass
"""


@contextlib.contextmanager
def learner_process(folder: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    script = folder / "learner.py"
    script.write_text(LEARNER)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "ignore", script, root / "tests", root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options) as process:
        yield process
        process.kill()


def pids_of(learner: subprocess.Popen[str]) -> list[int]:
    assert learner.stdout is not None
    pids = [int(pid) for pid in learner.stdout.readline().split()]
    assert len(pids) == 7
    assert all(psutil.pid_exists(pid) for pid in pids)
    return pids


def test_row_13_no_worker_outlives_a_learner_that_is_killed(tmp_path: Path, soak_report: SoakReport) -> None:
    """Idle, playing, writing, hanging with and without the interpreter's lock, deaf to SIGTERM, and stopped."""
    count = 100 if SOAK else 2
    seconds = []
    for number in range(count):
        with learner_process(tmp_path) as learner:
            pids = pids_of(learner)
            descendants = psutil.Process(learner.pid).children(recursive=True)
            assert set(pids) <= {child.pid for child in descendants}
            assert shared_memory_of([learner.pid, *pids]) == set()  # what has no name there cannot be left there
            os.kill(pids[0], signal.SIGSTOP)
            time.sleep(random.Random(number).uniform(0, 0.05))
            start = time.perf_counter()
            learner.kill()
            assert learner.wait() == -signal.SIGKILL
            wait_until(lambda: not any(is_alive(child) for child in descendants if child.pid in pids))  # noqa: B023
            seconds.append(time.perf_counter() - start)
            assert_within(2.0, seconds[-1])
            wait_until(lambda: not any(is_alive(child) for child in descendants))  # noqa: B023 - the fork server unloads its modules first
    soak_report.add(
        "13",
        "learner SIGKILLed; 7 workers idle, playing, writing, hanging, deaf, stopped",
        count,
        f"no worker left after {max(seconds):.2f} s at most; nothing in /dev/shm",
    )


# ---- row 14: the whole process group is killed


def test_row_14_a_process_group_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    with learner_process(tmp_path, start_new_session=True) as learner:
        pids = pids_of(learner)
        everyone = [psutil.Process(learner.pid), *psutil.Process(learner.pid).children(recursive=True)]
        assert {os.getpgid(pid) for pid in pids} == {learner.pid}
        assert shared_memory_of(process.pid for process in everyone) == set()
        os.killpg(learner.pid, signal.SIGKILL)
        assert learner.wait() == -signal.SIGKILL
        wait_until(lambda: not any(is_alive(process) for process in everyone))


# ---- row 18: shutdown


def test_row_18_shutdown_keeps_its_time_whatever_the_workers_do() -> None:
    before = set(psutil.Process().children(recursive=True))
    game = crashing_game("ignore SIGTERM and sleep", at=2 * PLIES)
    collector = collector_of(game, num_workers=3, schedule="async", max_policy_lag=9, heartbeat_s=60.0)
    batches = iter(collector)
    next(batches)  # from now on each worker fills its other slot and hangs in the next rollout
    pids = [worker["pid"] for worker in collector.health()]
    time.sleep(0.3)
    os.kill(pids[2], signal.SIGSTOP)
    start = time.perf_counter()
    collector.shutdown(timeout=1.0)
    elapsed = time.perf_counter() - start
    assert elapsed >= 0.9  # they did hang
    assert_within(2.0, elapsed)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    collector.shutdown(timeout=FOR_EVER_S)  # no process is left to wait for
    collector.shutdown()
    after = set(psutil.Process().children(recursive=True)) - before
    assert not [child for child in after if child.status() == psutil.STATUS_ZOMBIE]
    assert [worker["state"] for worker in collector.health()] == ["dead"] * 3


@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_row_18_workers_that_listen_leave_at_once(schedule: str) -> None:
    collector = collector_of(num_workers=2, schedule=schedule, max_policy_lag=9)
    collector.start()
    pids = [worker["pid"] for worker in collector.health()]
    next(iter(collector))
    time.sleep(0.1)  # async: all slots are full
    collector.shutdown(timeout=FOR_EVER_S)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_row_18_workers_that_are_still_starting_are_not_waited_for() -> None:
    collector = collector_of(never_ready, num_workers=2, start_method="spawn", start_timeout_s=FOR_EVER_S)
    collector.start()
    pids = [worker["pid"] for worker in collector.health()]
    collector.shutdown(timeout=FOR_EVER_S)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def never_ready(num_games: int) -> CountingGame:
    """The game's maker takes longer than any test."""
    if multiprocessing.parent_process() is not None:
        time.sleep(FOR_EVER_S)
    return CountingGame(num_games)


# ---- row 19: the learner is paused


def test_row_19_workers_wait_for_a_learner_that_sleeps_and_nothing_is_dropped(soak_report: SoakReport) -> None:
    pause_s = 30.0 if SOAK else 3.0
    with collector_of(num_workers=2, schedule="async", max_policy_lag=9) as collector:
        audit = Audit(collector, in_order=False)
        batches = iter(collector)
        for _ in range(5):
            audit.take(next(batches))
        time.sleep(0.3)
        before = [worker["rss_bytes"] for worker in collector.health()]
        time.sleep(pause_s)  # three heartbeats and more
        after = [worker["rss_bytes"] for worker in collector.health()]
        for _ in range(20):
            audit.take(next(batches))
        stats = collector.stats()
    assert stats["restarts"] == stats["lost_rollouts"] == stats["dropped_batches"] == stats["refused_batches"] == 0
    assert stats["plies"] == 25 * 2 * GAMES * PLIES
    assert max(later - earlier for earlier, later in zip(before, after, strict=True)) < 2**20
    soak_report.add("19", f"learner asleep for {pause_s:.0f} s, heartbeat 1 s", 1, "0 dropped, 0 restarts, RSS flat")


def test_row_19_a_learner_that_was_stopped_does_not_take_its_workers_for_hung(tmp_path: Path) -> None:
    """Ctrl-Z for longer than a heartbeat stops learner and workers alike; then all continue."""
    script = tmp_path / "learner.py"
    script.write_text(STOPPED_LEARNER)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "ignore", script, root / "tests", root / "tests" / "process", root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as learner:
        assert learner.stdout is not None
        assert learner.stdout.readline() == "playing\n"
        os.killpg(learner.pid, signal.SIGSTOP)
        time.sleep(3 * HEARTBEAT_S)
        assert psutil.Process(learner.pid).status() == psutil.STATUS_STOPPED
        os.killpg(learner.pid, signal.SIGCONT)
        assert learner.stdout.readline() == "0 restarts\n"
        assert learner.wait(30) == 0


STOPPED_LEARNER = """
import sys, time
sys.path[:0] = sys.argv[1:]
from fault_helpers import collector_of

with collector_of(num_workers=2) as collector:
    batches = iter(collector)
    next(batches)
    print("playing", flush=True)
    start = time.monotonic()
    while time.monotonic() - start < 5:
        next(batches)
    print(f"{collector.stats()['restarts']} restarts", flush=True)
"""


def test_row_19_drop_oldest_counts_exactly_what_it_drops() -> None:
    with collector_of(
        num_workers=2, schedule="async", max_policy_lag=9, slots_per_worker=4, drop_oldest=True
    ) as collector:
        batches = iter(collector)
        next(batches)
        for _ in range(5):
            time.sleep(0.5)  # all 4 slots of both workers fill
            next(batches)
        stats = collector.stats()
        assert collector._session is not None
        last = [collector._session.intake.last_headers[worker_id].sequence for worker_id in range(2)]
        waiting = len(collector._session.intake._ready)
    arrived = sum(last) + 2
    assert stats["dropped_batches"] >= 10
    assert arrived == stats["dropped_batches"] + stats["plies"] / (GAMES * PLIES) + waiting


def test_row_19_dropping_needs_a_queue() -> None:
    with pytest.raises(ConfigError, match="drop_oldest=True: must be False with schedule=sync"):
        collector_of(drop_oldest=True)
