"""What must be survived, as a table: real processes, real signals, a heartbeat of one second.

Each test says which fault it makes, shows that the fault has happened, and then counts what came of it.
``KEISEI_SOAK=1`` (``make soak``) makes each as often as is promised: 200 kills of 8 workers, 100 of the learner, 1000
restarts.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from fakes import VersionNetwork, counting_game, crashing_game, game_that_fails_to_boot
from rollout_checks import assert_continues, assert_whole, incarnations, worker_rows
from tensordict import TensorDictBase

from keisei_lightning.errors import RemoteTraceback, TooFewWorkersError, WorkerBootError, WorkerCrashLoopError
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector

pytestmark = [pytest.mark.process, pytest.mark.timeout(3600 if os.environ.get("KEISEI_SOAK") else 180)]

SOAK = os.environ.get("KEISEI_SOAK") == "1"
GAMES, PLIES = 4, 6
HEARTBEAT_S = 1.0
UNLIMITED = {"max_restarts": 1, "restart_window_s": 1e-6}  # no death is within the window of the one before


def collector_of(game: Any = None, *, policy: ActorCritic | None = None, **options: Any) -> SelfPlayCollector:
    return SelfPlayCollector(
        game or counting_game(),
        policy or ActorCritic(VersionNetwork()),
        **{
            "num_workers": 1,
            "games_per_worker": GAMES,
            "plies_per_rollout": PLIES,
            "threads_per_worker": 1,
            "heartbeat_s": HEARTBEAT_S,
            "restart_backoff_s": 0.02,
            "seed": 5,
            "stagger_games": False,  # faults are placed by the number of steps that a game has made
            **options,
        },
    )


def pid_of(collector: SelfPlayCollector, worker_id: int = 0) -> int:
    return int(collector.health()[worker_id]["pid"])


class Audit:
    """Takes in every batch and holds it to the promise: whole, once, and a game never spliced to another."""

    def __init__(self, collector: SelfPlayCollector) -> None:
        self._collector = collector
        self._seen: set[tuple[int, int, int]] = set()
        self._last: dict[int, TensorDictBase] = {}
        self.batches = 0

    def take(self, batch: TensorDictBase) -> None:
        assert_whole(batch, games_per_worker=GAMES)
        versions = batch["collector", "policy_version"].float()
        assert torch.equal(batch["state_value"][..., 0], versions), "a ply was not played by the version it names"
        assert self._collector._intake is not None
        for worker_id, header in self._collector._intake.last_headers.items():
            life = (header.worker_id, header.incarnation, header.sequence)
            assert life not in self._seen, f"delivered twice: {life}"
            self._seen.add(life)
            rows = worker_rows(batch, worker_id)
            assert incarnations(rows).unique().tolist() == [header.incarnation]
            earlier = self._last.get(worker_id)
            if earlier is not None:
                if int(incarnations(earlier)[0, 0]) == header.incarnation:
                    assert (*life[:2], life[2] - 1) in self._seen, f"a rollout before {life} was never delivered"
                    assert_continues(earlier, rows)
                else:
                    assert header.sequence == 0
                    assert not set(rows["collector", "traj_ids"].unique().tolist()) & set(
                        earlier["collector", "traj_ids"].unique().tolist()
                    ), "a game was spliced across a restart"
            self._last[worker_id] = rows
        self.batches += 1


# ---- row 1: SIGKILL at random moments


def kill_at_random_moments(collector: SelfPlayCollector, count: int, killed: list[int], rng: random.Random) -> None:
    while len(killed) < count:
        time.sleep(rng.uniform(0, 0.03))
        worker = rng.choice(collector.health())
        if worker["state"] == "running" and worker["pid"] not in killed:
            os.kill(worker["pid"], signal.SIGKILL)
            killed.append(worker["pid"])


def test_row_1_workers_killed_at_random_moments_lose_at_most_what_they_were_playing() -> None:
    num_workers, count = (8, 200) if SOAK else (4, 20)
    policy = ActorCritic(VersionNetwork())
    killed: list[int] = []
    with collector_of(policy=policy, num_workers=num_workers, plies_per_rollout=32, **UNLIMITED) as collector:
        audit = Audit(collector)
        batches = iter(collector)
        audit.take(next(batches))
        killer = threading.Thread(target=kill_at_random_moments, args=(collector, count, killed, random.Random(1)))
        killer.start()
        while killer.is_alive() or collector.stats()["restarts"] < count:
            audit.take(next(batches))
            policy.network.version.data += 1
            collector.update_policy_weights_()
        killer.join()
        audit.take(next(batches))
        stats = collector.stats()
    assert len(set(killed)) == count
    assert stats["restarts"] == count
    assert 0 < stats["lost_rollouts"] <= count
    assert stats["frames"] == audit.batches * num_workers * GAMES * 32
    assert stats["refused_batches"] == 0


def test_row_1_a_lost_rollout_is_counted_and_an_idle_worker_loses_none(tmp_path: Path) -> None:
    with collector_of(crashing_game("SIGKILL", at=PLIES + 3, once=str(tmp_path / "once"))) as collector:
        audit = Audit(collector)
        batches = iter(collector)
        audit.take(next(batches))
        assert not (tmp_path / "once").exists()
        audit.take(next(batches))  # killed in the middle of it
        assert (tmp_path / "once").exists()
        assert (collector.stats()["restarts"], collector.stats()["lost_rollouts"]) == (1, 1)
        os.kill(pid_of(collector), signal.SIGKILL)  # idle: in sync nothing is granted between batches
        time.sleep(0.1)
        audit.take(next(batches))
        assert collector.stats()["restarts"] == 2
        audit.take(next(batches))
        assert collector.frames == 4 * GAMES * PLIES


# ---- row 3 and 4: the replacement


def test_row_3_and_4_a_replacement_comes_quickly_with_present_weights_and_a_stream_of_its_own() -> None:
    policy = ActorCritic(VersionNetwork())
    with collector_of(policy=policy, num_workers=2) as collector:
        batches = iter(collector)
        before = worker_rows(next(batches), 0)
        policy.network.version.data.fill_(1.0)
        collector.update_policy_weights_()
        os.kill(pid_of(collector), signal.SIGKILL)
        start = time.perf_counter()
        batch = next(batches)
        elapsed = time.perf_counter() - start
        after, other = worker_rows(batch, 0), worker_rows(batch, 1)
    assert incarnations(before).unique().tolist() == [0]
    assert incarnations(after).unique().tolist() == [1]
    assert incarnations(other).unique().tolist() == [0]
    assert (batch["collector", "policy_version"] == 1).all()
    assert (batch["state_value"] == 1).all()
    assert torch.equal(before["observation"][:, 0], after["observation"][:, 0])  # both begin at the beginning
    assert not torch.equal(before["action"], after["action"])
    assert elapsed < 2.0  # 1 s on a quiet machine


# ---- row 5: crash loop


def test_row_5_a_crash_loop_ends_after_exactly_its_budget_with_growing_delays(caplog: pytest.LogCaptureFixture) -> None:
    with collector_of(crashing_game("ValueError"), max_restarts=3, restart_backoff_s=0.2) as collector:
        start = time.perf_counter()
        with pytest.raises(WorkerCrashLoopError) as info:
            next(iter(collector))
        elapsed = time.perf_counter() - start
        assert collector.stats()["restarts"] == 3
        assert not collector.is_healthy()
    text = str(info.value)
    assert text.startswith("worker 0 (incarnation 3) raised ValueError: the game is broken on purpose; ")
    assert "its budget of 3 restarts in 300 s is spent (restarts: " in text
    ago = [float(number) for number in re.findall(r"([\d.]+) s ago", text)]
    gaps = [earlier - later for earlier, later in itertools.pairwise(ago)]
    assert len(ago) == 3
    assert gaps[0] >= 0.2 * 0.8 - 0.1  # before restart 2; restart 1 came at once
    assert gaps[1] >= 0.4 * 0.8 - 0.1
    assert 0.6 * 0.8 <= elapsed < 0.6 * 1.2 + 3
    warnings = [line for line in caplog.messages if "restart" in line]
    assert [re.search(r"restart (\d) of 3 in ([\d.]+) s", line).groups() for line in warnings] == [  # type: ignore[union-attr]
        ("1", "0.0"),
        ("2", "0.2"),
        ("3", "0.4"),
    ]
    assert isinstance(info.value.__cause__, RemoteTraceback)
    assert "in _misbehave" in str(info.value.__cause__)
    assert 'raise ValueError("the game is broken on purpose")' in str(info.value.__cause__)


# ---- row 6: too few workers


def test_row_6_fewer_than_the_fewest_healthy_workers_end_the_run_and_more_do_not() -> None:
    with collector_of(num_workers=3, min_healthy_workers=2, restart_backoff_s=30.0) as collector:
        batches = iter(collector)
        next(batches)
        os.kill(pid_of(collector, 0), signal.SIGKILL)
        next(batches)  # replaced at once
        os.kill(pid_of(collector, 0), signal.SIGKILL)
        collector.pause_workers([0])
        while collector.health()[0]["state"] != "dead":
            assert next(batches).batch_size[0] == 2 * GAMES
        os.kill(pid_of(collector, 2), signal.SIGKILL)
        start = time.perf_counter()
        with pytest.raises(
            TooFewWorkersError, match=r"worker 2 .* SIGKILL.*1 of 3 workers are left, min_healthy_workers=2"
        ):
            next(batches)
        assert time.perf_counter() - start < HEARTBEAT_S + 1


# ---- rows 7 and 8: hung workers


@pytest.mark.parametrize("wakes", [False, True])
def test_row_7_a_stopped_worker_is_replaced_within_a_heartbeat_and_a_second(wakes: bool) -> None:
    with collector_of(num_workers=2) as collector:
        audit = Audit(collector)
        batches = iter(collector)
        audit.take(next(batches))
        pid = pid_of(collector)
        os.kill(pid, signal.SIGSTOP)
        start = time.perf_counter()
        wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        alarm = threading.Timer(HEARTBEAT_S / 2, os.kill, (pid, signal.SIGCONT))
        if wakes:
            alarm.start()
        batch = next(batches)
        elapsed = time.perf_counter() - start
        audit.take(batch)
        if wakes:
            alarm.join()
            assert HEARTBEAT_S / 2 <= elapsed < HEARTBEAT_S
            assert collector.stats()["restarts"] == 0
        else:
            assert HEARTBEAT_S * 0.7 <= elapsed < HEARTBEAT_S + 1.0
            assert not psutil.pid_exists(pid)
            assert collector.stats()["restarts"] == collector.stats()["lost_rollouts"] == 1
        audit.take(next(batches))


@pytest.mark.parametrize("how", ["hang in Python", "hang in C", "sleep"])
def test_row_8_a_hanging_game_is_replaced(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with collector_of(crashing_game(how, at=PLIES + 2, once=str(tmp_path / "once"))) as collector:
        audit = Audit(collector)
        batches = iter(collector)
        audit.take(next(batches))
        pid = pid_of(collector)
        start = time.perf_counter()
        audit.take(next(batches))
        elapsed = time.perf_counter() - start
        assert (tmp_path / "once").exists()
        assert not psutil.pid_exists(pid)
        assert HEARTBEAT_S * 0.9 <= elapsed < HEARTBEAT_S + 1.5
        assert collector.stats()["restarts"] == collector.stats()["lost_rollouts"] == 1
    assert "worker 0 (incarnation 0) gave no sign of life for heartbeat_s=1; restart 1 of 5" in caplog.text


def test_row_8_a_hanging_game_shows_where_it_hangs(capfd: pytest.CaptureFixture[str]) -> None:
    game = crashing_game("hang in C", at=PLIES + 2)
    with collector_of(game, start_method="spawn", max_restarts=0) as collector:  # spawned: it writes to this stderr
        batches = iter(collector)
        next(batches)
        with pytest.raises(WorkerCrashLoopError, match="gave no sign of life for heartbeat_s=1"):
            next(batches)
    stack = capfd.readouterr().err
    assert "Current thread" in stack
    assert "in _misbehave" in stack
    assert "in step" in stack


# ---- row 9 is test_it_is_healthy_from_the_start_however_slow_that_is in test_collector.py


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
        ("os._exit", "left without being asked, exit code 0;", None),
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
def test_rows_10_and_11_training_goes_on_after_any_of_them(how: str, tmp_path: Path) -> None:
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
    with collector_of(game_that_fails_to_boot, num_workers=2, restart_backoff_s=30.0) as collector:
        start = time.perf_counter()
        with pytest.raises(WorkerBootError) as info:
            next(iter(collector))
        assert time.perf_counter() - start < 5
        assert collector.stats()["restarts"] == 0
    text = "raised ImportError: no module named 'only_on_your_machine', before it was ready; nothing was restarted"
    assert text in str(info.value)
    assert "in game_that_fails_to_boot" in str(info.value.__cause__)


# ---- row 13: the learner is killed


LEARNER = """
import sys, threading, time
sys.path[:0] = sys.argv[1:]
from fakes import VersionNetwork, counting_game, crashing_game
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


@pytest.fixture
def learner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "learner.py"
    script.write_text(LEARNER)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", script, root / "tests", root], stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs (what is left of it until init has reaped it is nothing of ours)."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("round_", range(100 if SOAK else 1))
def test_row_13_no_worker_outlives_a_learner_that_is_killed(round_: int, learner: subprocess.Popen[str]) -> None:
    """Idle, playing, writing, hanging with and without the interpreter's lock, deaf to SIGTERM, and stopped."""
    shared_memory = set(os.listdir("/dev/shm"))
    assert learner.stdout is not None
    pids = [int(pid) for pid in learner.stdout.readline().split()]
    assert len(pids) == 7
    assert all(psutil.pid_exists(pid) for pid in pids)
    descendants = psutil.Process(learner.pid).children(recursive=True)
    assert set(pids) <= {child.pid for child in descendants}
    os.kill(pids[0], signal.SIGSTOP)
    time.sleep(random.Random(round_).uniform(0, 0.05))
    learner.kill()
    assert learner.wait() == -signal.SIGKILL
    wait_until(lambda: not any(is_alive(child) for child in descendants if child.pid in pids), timeout_s=2.0)
    wait_until(lambda: not any(is_alive(child) for child in descendants))  # the fork server unloads its modules first
    assert set(os.listdir("/dev/shm")) <= shared_memory


# ---- row 18: shutdown


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
    assert 0.9 <= elapsed < 2.0  # they did hang
    assert not any(psutil.pid_exists(pid) for pid in pids)
    start = time.perf_counter()
    collector.shutdown(timeout=1.0)
    collector.shutdown()
    assert time.perf_counter() - start < 0.1
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
    start = time.perf_counter()
    collector.shutdown(timeout=10.0)
    assert time.perf_counter() - start < 2.0
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_row_18_workers_that_are_still_starting_are_not_waited_for() -> None:
    collector = collector_of(num_workers=2, start_method="spawn")
    collector.start()
    pids = [worker["pid"] for worker in collector.health()]
    start = time.perf_counter()
    collector.shutdown(timeout=10.0)
    assert time.perf_counter() - start < 2.0
    assert not any(psutil.pid_exists(pid) for pid in pids)


# ---- row 33, in small: what many restarts leave behind


def test_row_33_restarts_leave_no_descriptors_and_no_threads() -> None:
    count = 1000 if SOAK else 15
    with collector_of(**UNLIMITED) as collector:
        batches = iter(collector)
        next(batches)
        gc.collect()  # of the tests before
        before = (len(os.listdir("/proc/self/fd")), threading.active_count(), set(os.listdir("/dev/shm")))
        for _ in range(count):
            os.kill(pid_of(collector), signal.SIGKILL)
            next(batches)
        assert collector.stats()["restarts"] == count
        after = (len(os.listdir("/proc/self/fd")), threading.active_count(), set(os.listdir("/dev/shm")))
    assert after == before
