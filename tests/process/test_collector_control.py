"""The control of a running collector: pausing, resetting, closing, restoring."""

from __future__ import annotations

import functools
import logging
import os
import time
from pathlib import Path

import pytest
import torch
from collector_helpers import FRAMES, GAMES, PLIES, WORKERS, assert_same, collector_of, take
from fakes import CountingGame, VersionNetwork, counting_game
from rollout_checks import assert_continues, assert_whole, worker_rows

from keisei_lightning.errors import CollectorClosedError, ConfigError
from keisei_lightning.models import ActorCritic

pytestmark = pytest.mark.process


@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_paused_workers_sit_out_and_come_back_with_their_games(schedule: str) -> None:
    with collector_of(schedule=schedule, max_policy_lag=9) as collector:
        batches = iter(collector)
        next(batches)
        collector.pause_workers([0])
        assert [worker["paused"] for worker in collector.health()] == [True, False]
        paused, turns = 0, 12
        for _ in range(turns):
            batch = next(batches)
            assert batch.batch_size == (GAMES, PLIES)
            paused += int((batch["collector", "worker_id"] == 0).all())
        # What it was playing by then still comes.
        slots = collector._collector_spec.layout.num_slots if schedule == "async" else 0
        assert paused <= slots < turns // 2
        collector.resume_workers()
        seen: set[int] = set()
        for _ in range(20):
            batch = next(batches)
            assert_whole(batch, games_per_worker=GAMES)
            seen |= set(batch["collector", "worker_id"].unique().tolist())
            if seen == {0, 1}:
                break
            time.sleep(0.02)
        assert seen == {0, 1}
        with collector.pause(), pytest.raises(RuntimeError, match="all workers are paused"):
            collector._next_batch()
        assert next(batches).batch_size[0] == WORKERS * GAMES


def test_reset_games_begins_new_games_of_the_chosen_workers() -> None:
    with collector_of(game=counting_game(), plies_per_rollout=2) as collector:
        batches = iter(collector)
        before = next(batches)
        collector.reset_games([1])
        after = next(batches)
    assert_continues(worker_rows(before, 0), worker_rows(after, 0))
    reset = worker_rows(after, 1)
    assert (reset["observation"][:, 0, 0] == 0).all()
    assert not set(reset["collector", "traj_ids"].unique().tolist()) & set(
        worker_rows(before, 1)["collector", "traj_ids"].unique().tolist()
    )


def test_games_in_progress_are_drawn_for_who_asks_after_the_start() -> None:
    collector = collector_of(game=counting_game())
    with pytest.raises(ConfigError, match=r"^num_boards=-1: must be at least 0$"):
        collector.draw_boards(-1)
    collector.draw_boards(3)
    with collector:
        batches = iter(collector)
        next(batches)
        assert collector.drawn_boards == {}
        collector.draw_boards(3)
        next(batches)
        shown = collector.drawn_boards
        assert {worker: [view.board for view in views] for worker, views in shown.items()} == {0: [0, 1], 1: [0]}
        speeds = [worker["last_batch_plies_per_s"] for worker in collector.health()]
        assert len(speeds) == WORKERS
        assert min(speeds) > 0
        next(batches)
        assert collector.drawn_boards == shown


def slow_boot(num_games: int, *, learner: int) -> CountingGame:
    if os.getpid() != learner:
        time.sleep(1.5)  # longer than a heartbeat
    return CountingGame(num_games)


def boot_in_company(num_games: int, *, learner: int, folder: Path, company: int) -> CountingGame:
    """A boot that ends when ``company`` of them have begun."""
    if os.getpid() != learner:
        (folder / str(os.getpid())).touch()
        while len(list(folder.iterdir())) < company:
            time.sleep(0.01)
    return CountingGame(num_games)


def test_it_is_healthy_from_the_start_however_slow_that_is() -> None:
    begun, collector = time.monotonic(), collector_of(game=functools.partial(slow_boot, learner=os.getpid()))
    assert collector.is_healthy()
    assert collector.health() == []
    with collector:
        collector.start()
        collector.start()  # twice is harmless
        assert collector.is_healthy()
        assert [worker["state"] for worker in collector.health()] == ["starting", "starting"]
        next(iter(collector))
        assert collector.is_healthy()
        for worker_id, worker in enumerate(collector.health()):
            assert worker["worker_id"] == worker_id
            assert worker["state"] == "running"
            assert worker["pid"] != os.getpid()
            assert worker["incarnation"] == worker["restarts"] == 0
            assert (worker["policy_version"], worker["policy_lag"]) == (0, 0)
            assert worker["rss_bytes"] > 1 << 20
            assert 0 <= worker["last_sign_of_life_s"] <= time.monotonic() - begun
    assert not collector.is_healthy()


def test_workers_start_together_and_not_one_after_another(tmp_path: Path) -> None:
    game = functools.partial(boot_in_company, learner=os.getpid(), folder=tmp_path, company=3)
    with collector_of(game=game, num_workers=3, threads_per_worker=1) as collector:
        next(iter(collector))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("mode", ["serial", "workers"])
def test_a_closed_collector_raises_an_error(mode: str) -> None:
    collector = collector_of(mode=mode)
    batches = iter(collector)
    next(batches)
    collector.shutdown()
    collector.shutdown(timeout=1.0)
    assert not collector.is_healthy()
    for use in (collector.start, lambda: next(batches), lambda: next(iter(collector))):
        with pytest.raises(CollectorClosedError, match="make a new one"):
            use()


def test_a_collector_that_was_never_started_can_be_closed() -> None:
    collector = collector_of()
    collector.shutdown()
    with pytest.raises(CollectorClosedError):
        next(iter(collector))


def test_log_records_of_workers_arrive_in_the_learner(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), collector_of(game=counting_game(before_step=log_the_first)) as collector:
        take(collector, 1)
    assert ("keisei_lightning.worker", logging.INFO, "[worker 1.0] game: step 0 begins") in caplog.record_tuples


def log_the_first(step: int) -> None:
    if step == 0:
        logging.getLogger("game").info("step %d begins", step)


# ---- seed and state


def test_set_seed_is_the_seed_of_the_run_and_only_before_it() -> None:
    with collector_of(mode="serial", seed=8) as collector:
        expected = take(collector, 1)
    with collector_of(mode="serial", seed=0) as collector:
        assert collector.set_seed(8) == 9
        assert collector.set_seed(8, static_seed=True) == 8
        assert_same(take(collector, 1), expected)
        with pytest.raises(ConfigError, match="seed=9: the workers have started"):
            collector.set_seed(9)


def test_a_restored_collector_counts_on_and_plays_new_games(tmp_path: Path) -> None:
    policy = ActorCritic(VersionNetwork())
    with collector_of(policy, mode="serial") as collector:
        before = take(collector, 3)
        for _ in range(5):
            collector.update_policy_weights_()
        torch.save(collector.state_dict(), tmp_path / "state.pt")
        games = collector.games
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state == {
        "plies": 3 * FRAMES,
        "games": games,
        "refused_batches": 0,
        "quarantined_batches": 0,
        "dropped_batches": 0,
        "policy_version": 5,
        "seed": 3,
        "games_in_flight": [],
        "opponents": None,
    }
    with collector_of(policy, mode="serial") as collector:  # a state that an earlier version wrote
        collector.load_state_dict({"frames" if name == "plies" else name: value for name, value in state.items()})
        assert collector.plies == 3 * FRAMES
    with collector_of(policy, mode="serial", total_frames=5 * FRAMES) as collector:
        collector.load_state_dict(state)
        assert (collector.plies, collector.games, collector.policy_version) == (3 * FRAMES, games, 5)
        after = list(collector)
        assert len(after) == 2
        assert collector.plies == 5 * FRAMES
        assert {int(version) for batch in after for version in batch["collector", "policy_version"].unique()} == {5}
        assert not torch.equal(after[0]["action"], before[0]["action"])  # another random stream
        collector.update_policy_weights_()
        assert collector.policy_version == 6
        with pytest.raises(ConfigError, match="restore before the first batch"):
            collector.load_state_dict(state)


def test_a_collector_that_was_shut_down_can_be_opened_again():
    collector = collector_of()
    try:
        first = take(collector, 1)[0].clone()
        collector.shutdown()
        pids = {worker["pid"] for worker in collector.health()}
        with pytest.raises(CollectorClosedError, match=r"reopen\(\) it"):
            collector.start()
        collector.reopen()
        assert collector.is_healthy()
        second = take(collector, 1)[0]
        assert collector.plies == 2 * FRAMES
        assert not pids & {worker["pid"] for worker in collector.health()}
        assert not torch.equal(first["observation"], second["observation"])  # with random streams of its own
        collector.reopen()  # an open one is left alone
        take(collector, 1)
        assert collector.plies == 3 * FRAMES
    finally:
        collector.shutdown()
