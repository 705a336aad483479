"""Workers that are killed, crash or hang (rows 1 to 9 of what must be survived): real processes, real signals.

Each test says which fault it makes, shows that the fault has happened, and then counts what came of it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from fakes import CountingGame, VersionNetwork, counting_game
from fault_helpers import (
    FOR_EVER_S,
    GAMES,
    HEARTBEAT_S,
    PLIES,
    SOAK,
    TIMEOUT_S,
    UNLIMITED,
    Audit,
    assert_within,
    collector_of,
    pid_of,
    wait_until,
)
from faults import POINTS, Fault, chaotic_game, crashing_game, faulty_game
from rollout_checks import assert_whole, incarnations, worker_rows
from soak_report import SoakReport
from tensordict import TensorDictBase
from torch import Tensor, nn

from keisei_lightning.errors import RemoteTraceback, TooFewWorkersError, WorkerCrashLoopError
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector

pytestmark = [pytest.mark.process, pytest.mark.timeout(TIMEOUT_S)]


# ---- row 1: SIGKILL at random moments


def kill_at_random_moments(collector: SelfPlayCollector, count: int, killed: list[int], rng: random.Random) -> None:
    while len(killed) < count:
        time.sleep(rng.uniform(0, 0.03))
        worker = rng.choice(collector.health())
        if worker["state"] == "running" and worker["pid"] not in killed:
            with contextlib.suppress(ProcessLookupError):  # it has just been replaced
                os.kill(worker["pid"], signal.SIGKILL)
                killed.append(worker["pid"])


def test_row_1_workers_killed_at_random_moments_lose_at_most_what_they_were_playing(soak_report: SoakReport) -> None:
    num_workers, count = (8, 200) if SOAK else (4, 20)
    policy = ActorCritic(VersionNetwork())
    killed: list[int] = []
    with collector_of(policy=policy, num_workers=num_workers, plies_per_rollout=32, **UNLIMITED) as collector:
        audit = Audit(collector)
        batches = iter(collector)
        audit.take(next(batches))
        killer = threading.Thread(target=kill_at_random_moments, args=(collector, count, killed, random.Random(1)))
        killer.start()
        while killer.is_alive() or collector.stats()["restarts"] < len(killed):
            audit.take(next(batches))
            policy.network.version.data += 1
            collector.update_policy_weights_()
        killer.join()
        audit.take(next(batches))
        stats = collector.stats()
    assert len(set(killed)) == count
    assert stats["restarts"] == count
    assert 0 < stats["lost_rollouts"] <= count
    assert stats["plies"] == audit.batches * num_workers * GAMES * 32
    assert stats["refused_batches"] == 0
    soak_report.add(
        "1",
        f"SIGKILL at random moments, {num_workers} workers",
        count,
        f"0 torn, 0 delivered twice in {audit.batches} batches; {stats['lost_rollouts']:.0f} lost in flight, counted",
    )


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
        assert collector.plies == 4 * GAMES * PLIES


# ---- row 2: SIGKILL and SIGSTOP at named points


PASSES_OF_A_ROLLOUT = {"ply": PLIES, "adopting": 3}


@pytest.mark.parametrize("at", POINTS)
def test_row_2_a_worker_killed_at_a_named_point_loses_what_it_was_playing_and_nothing_else(
    at: str, tmp_path: Path
) -> None:
    policy = ActorCritic(VersionNetwork())
    fault = Fault("SIGKILL", at=at, passing=PASSES_OF_A_ROLLOUT.get(at, 1) + 1, once=str(tmp_path / "once"))
    with collector_of(faulty_game(fault), policy=policy, num_workers=2, heartbeat_s=FOR_EVER_S) as collector:
        audit = Audit(collector)
        seconds = []
        for batch, start in timed(collector, 6):
            seconds.append(time.perf_counter() - start)
            audit.take(batch)
            policy.network.version.data += 1
            collector.update_policy_weights_()
        stats = collector.stats()
    assert (tmp_path / "once").exists()
    assert stats["restarts"] == 1
    assert stats["lost_rollouts"] == (at != "header sent")
    assert stats["plies"] == 6 * 2 * GAMES * PLIES
    assert_within(2.0, max(seconds[1:]))  # 1 s on a quiet machine: with a replacement in it


@pytest.mark.parametrize("at", POINTS)
def test_row_2_a_worker_stopped_at_a_named_point_never_blocks_the_others(at: str, tmp_path: Path) -> None:
    """Stopped in the middle of a message, even: the other worker's batches come as if nothing had happened."""
    fault = Fault("SIGSTOP", at=at, passing=3, once=str(tmp_path / "once"))
    policy = ActorCritic(VersionNetwork())
    with collector_of(
        faulty_game(fault), policy=policy, num_workers=2, schedule="async", max_policy_lag=10**9
    ) as collector:
        batches = iter(collector)
        next(batches)
        gaps = []
        while collector.stats()["restarts"] == 0:
            stopped, start = (tmp_path / "once").exists(), time.perf_counter()
            assert_whole(next(batches), games_per_worker=GAMES)
            if stopped:
                gaps.append(time.perf_counter() - start)
            policy.network.version.data += 1
            collector.update_policy_weights_()
            time.sleep(0.002)
        assert (tmp_path / "once").exists()
        assert len(gaps) > 3  # it went on through the heartbeat
        assert_within(1.0, max(gaps))
        assert collector.stats()["lost_rollouts"] == (at != "header sent")


def timed(collector: SelfPlayCollector, count: int) -> Iterator[tuple[TensorDictBase, float]]:
    """Batches, each with the time at which it was asked for."""
    batches = iter(collector)
    for _ in range(count):
        start = time.perf_counter()
        yield next(batches), start


def test_rows_1_and_2_incarnations_that_all_end_at_random_points(tmp_path: Path, soak_report: SoakReport) -> None:
    num_workers, count = (8, 9_800) if SOAK else (4, 40)
    log = tmp_path / "log"
    policy = ActorCritic(VersionNetwork())
    with collector_of(chaotic_game(str(log)), policy=policy, num_workers=num_workers, **UNLIMITED) as collector:
        audit = Audit(collector)
        for batch in collector:
            audit.take(batch)
            policy.network.version.data += 1
            collector.update_policy_weights_()
            if (stats := collector.stats())["restarts"] >= count:
                break
    ends = Counter(line.split()[1:] and " ".join(line.split()[1:]) for line in log.read_text().splitlines())
    deaths = sum(ends.values())
    assert set(ends) == set(POINTS)
    assert 0 <= deaths - stats["restarts"] <= num_workers  # the last ones were not seen any more
    assert 0 <= deaths - ends["header sent"] - stats["lost_rollouts"] <= num_workers
    assert stats["plies"] == audit.batches * num_workers * GAMES * PLIES
    soak_report.add(
        "1, 2",
        f"SIGKILL at drawn points, {num_workers} workers",
        deaths,
        f"0 torn, 0 delivered twice in {audit.batches} batches; {stats['lost_rollouts']:.0f} lost in flight = all "
        f"but the {ends['header sent']} killed after their header: all counted",
    )


# ---- row 3 and 4: the replacement


def test_row_3_and_4_a_replacement_comes_quickly_with_present_weights_and_a_stream_of_its_own() -> None:
    policy = ActorCritic(VersionNetwork())
    with collector_of(policy=policy, num_workers=2, heartbeat_s=FOR_EVER_S) as collector:
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
    assert_within(2.0, elapsed)  # 1 s on a quiet machine


def test_row_3_a_death_is_seen_and_mended_without_waiting_for_a_heartbeat(
    caplog: pytest.LogCaptureFixture, soak_report: SoakReport
) -> None:
    """One worker of two is killed while it plays; the batch that waits for it needs its replacement."""
    count = 200 if SOAK else 10
    seen, mended = [], []
    with collector_of(slow_game(), num_workers=2, heartbeat_s=FOR_EVER_S, **UNLIMITED) as collector:
        batches = iter(collector)
        next(batches)
        for number in range(count):
            killed: list[float] = []
            killer = threading.Timer(0.01, kill_and_note, (pid_of(collector, number % 2), killed))
            caplog.clear()
            killer.start()
            batch = next(batches)
            mended.append(time.time() - killed[0])
            killer.join()
            assert int(incarnations(worker_rows(batch, number % 2))[0, 0]) == number // 2 + 1
            seen += [record.created - killed[0] for record in caplog.records if "SIGKILL" in record.message]
    assert len(seen) == len(mended) == count
    assert_within(1.0, max(seen))
    assert_within(1.5, statistics.median(mended))
    soak_report.add(
        "3",
        "SIGKILL while playing, 2 workers, forkserver: seen after / first batch of the replacement after",
        count,
        f"p50 {percentile(seen, 50) * 1e3:.0f} ms, p99 {percentile(seen, 99) * 1e3:.0f} ms / "
        f"p50 {percentile(mended, 50):.2f} s, p99 {percentile(mended, 99):.2f} s",
    )


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def kill_and_note(pid: int, killed: list[float]) -> None:
    killed.append(time.time())
    os.kill(pid, signal.SIGKILL)


def slow_game() -> Callable[[int], CountingGame]:
    """A rollout of it takes 30 ms: long enough to be killed in."""
    return counting_game(before_step=nap)


def nap(*_: object) -> None:
    time.sleep(0.005)


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
    assert elapsed >= 0.6 * 0.8
    assert_within(0.6 * 1.2 + 3, elapsed)
    warnings = [line for line in caplog.messages if "restart" in line]
    assert [re.search(r"restart (\d) of 3 in ([\d.]+) s", line).groups() for line in warnings] == [  # type: ignore[union-attr]
        ("1", "0.0"),
        ("2", "0.2"),
        ("3", "0.4"),
    ]
    assert isinstance(info.value.__cause__, RemoteTraceback)
    assert "in misbehave" in str(info.value.__cause__)
    assert 'raise ValueError("the game is broken on purpose")' in str(info.value.__cause__)


# ---- row 6: too few workers


def test_row_6_fewer_than_the_fewest_healthy_workers_end_the_run_and_more_do_not() -> None:
    patient = {"restart_backoff_s": FOR_EVER_S, "heartbeat_s": FOR_EVER_S}
    with collector_of(num_workers=3, min_healthy_workers=2, **patient) as collector:
        batches = iter(collector)
        next(batches)
        os.kill(pid_of(collector, 0), signal.SIGKILL)
        next(batches)  # replaced at once
        os.kill(pid_of(collector, 0), signal.SIGKILL)
        collector.pause_workers([0])
        while collector.health()[0]["state"] != "dead":
            assert next(batches).batch_size[0] == 2 * GAMES
        os.kill(pid_of(collector, 2), signal.SIGKILL)
        with pytest.raises(
            TooFewWorkersError, match=r"worker 2 .* SIGKILL.*1 of 3 workers are left, min_healthy_workers=2"
        ):
            next(batches)


# ---- rows 7 and 8: hung workers


@pytest.mark.parametrize("wakes", [False, True])
def test_row_7_a_stopped_worker_is_replaced_within_a_heartbeat_and_a_second(
    wakes: bool, soak_report: SoakReport
) -> None:
    with collector_of(num_workers=2) as collector:
        audit = Audit(collector)
        batches = iter(collector)
        audit.take(next(batches))
        pid = pid_of(collector)
        os.kill(pid, signal.SIGSTOP)
        start = time.perf_counter()
        wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        alarm = threading.Timer(HEARTBEAT_S / 4, os.kill, (pid, signal.SIGCONT))
        if wakes:
            alarm.start()
        batch = next(batches)
        elapsed = time.perf_counter() - start
        audit.take(batch)
        if wakes:
            alarm.join()
            assert elapsed >= HEARTBEAT_S / 4
            assert collector.stats()["restarts"] == 0
        else:
            assert elapsed >= HEARTBEAT_S * 0.7
            assert_within(HEARTBEAT_S + 1.0, elapsed)
            assert not psutil.pid_exists(pid)
            assert collector.stats()["restarts"] == 1
            assert collector.stats()["lost_rollouts"] == 0  # it had not begun
            soak_report.add("7", "SIGSTOP, heartbeat 1 s", 1, f"replaced and delivered after {elapsed:.2f} s")
        audit.take(next(batches))


class SlowLayers(nn.Module):
    """Two layers that take most of a heartbeat each."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = VersionNetwork()
        self.layers = nn.ModuleList([Slow(0.6 * HEARTBEAT_S) for _ in range(3)])

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            observation = layer(observation)
        return self.inner(observation)  # type: ignore[no-any-return]


class Slow(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, observation: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return observation


def test_row_8_a_forward_pass_of_nearly_two_heartbeats_is_no_hang() -> None:
    with collector_of(policy=ActorCritic(SlowLayers()), plies_per_rollout=1) as collector:
        start = time.perf_counter()
        next(iter(collector))
        assert time.perf_counter() - start > 2 * 1.8 * HEARTBEAT_S  # one for the ply, one for the last value
        next(iter(collector))
        assert collector.stats()["restarts"] == 0


@pytest.mark.parametrize("how", ["hang in Python", "hang in C", "sleep"])
def test_row_8_a_hanging_game_is_replaced(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, soak_report: SoakReport
) -> None:
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
        assert elapsed >= HEARTBEAT_S * 0.9
        assert_within(HEARTBEAT_S + 1.5, elapsed)
        assert collector.stats()["restarts"] == collector.stats()["lost_rollouts"] == 1
    assert "worker 0 (incarnation 0) gave no sign of life for heartbeat_s=1; restart 1 of 5" in caplog.text
    soak_report.add("8", f"{how}, heartbeat 1 s", 1, f"replaced and delivered after {elapsed:.2f} s")


def test_row_8_a_hanging_game_shows_where_it_hangs(capfd: pytest.CaptureFixture[str]) -> None:
    game = crashing_game("hang in C", at=PLIES + 2)
    with collector_of(game, start_method="spawn", max_restarts=0) as collector:  # spawned: it writes to this stderr
        batches = iter(collector)
        next(batches)
        with pytest.raises(WorkerCrashLoopError, match="gave no sign of life for heartbeat_s=1"):
            next(batches)
    stack = capfd.readouterr().err
    assert "Current thread" in stack
    assert "in misbehave" in stack
    assert "in step" in stack


# ---- row 9 is test_it_is_healthy_from_the_start_however_slow_that_is in test_collector.py
