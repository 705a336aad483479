"""Workers that only play moves, one process that evaluates positions for all: the same promises with real processes."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import collector_helpers
import psutil
import pytest
import torch
from collector_helpers import assert_same, take
from fakes import TinyNetwork, VersionNetwork, counting_game
from fault_helpers import (
    GAMES,
    HEARTBEAT_S,
    PLIES,
    TIMEOUT_S,
    Audit,
    assert_within,
    collector_of,
    is_alive,
    pid_of,
    wait_until,
)
from faults import crashing_game
from rollout_checks import assert_whole
from tensordict import TensorDictBase
from torch import Tensor, nn

from keisei_lightning.errors import RemoteTraceback, WorkerBootError, WorkerCrashLoopError
from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.parallel import SelfPlayCollector

pytestmark = [pytest.mark.process, pytest.mark.timeout(TIMEOUT_S)]


def central_of(game: Any = None, **options: Any) -> SelfPlayCollector:
    return collector_of(game, **{"mode": "central", "num_workers": 2, "start_timeout_s": 60.0, **options})


def inference_pid(collector: SelfPlayCollector) -> int:
    helper = collector.health()[-1]
    assert helper["name"] == "the inference process"
    return int(helper["pid"])


# ---- the same numbers


def run(mode: str, policy: Callable[[], nn.Module], **options: Any) -> list[TensorDictBase]:
    torch.manual_seed(11)
    module, batches = policy(), []
    with collector_helpers.collector_of(module, mode=mode, augment_symmetry=False, **options) as collector:
        for number, batch in enumerate(collector):
            assert_whole(batch, games_per_worker=GAMES)
            batches.append(batch)
            if number == 3:
                break
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter += 0.1 * number
            collector.update_policy_weights_()
    return batches


POLICIES = pytest.mark.parametrize(
    "policy",
    [lambda: ActorCritic(TinyNetwork()), lambda: ActorCritic(TinyNetwork()).as_policy()],
    ids=["ActorCritic", "TensorDictModule"],
)


@POLICIES
def test_one_worker_with_one_group_gives_the_same_bits_as_no_process(policy: Callable[[], nn.Module]) -> None:
    options = {"num_workers": 1, "stagger_games": True}
    assert_same(run("serial", policy, **options), run("central", policy, groups_per_worker=1, **options))


@POLICIES
def test_many_workers_and_groups_give_the_same_bits_in_every_run(policy: Callable[[], nn.Module]) -> None:
    first, second = (run("central", policy, num_workers=3) for _ in range(2))
    assert_same(first, second)
    assert [int(batch["collector", "policy_version"].max()) for batch in first] == [0, 1, 2, 3]
    one_group = run("central", policy, num_workers=3, groups_per_worker=1)
    assert not torch.equal(first[0]["action"], one_group[0]["action"])  # other streams


@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_every_ply_carries_the_version_whose_weights_evaluated_it(schedule: str) -> None:
    policy = ActorCritic(VersionNetwork())
    with central_of(policy=policy, schedule=schedule, max_policy_lag=2) as collector:
        audit = Audit(collector, in_order=schedule == "sync")
        for number, batch in enumerate(collector):
            audit.take(batch)
            lag = number - batch["collector", "policy_version"]
            assert 0 <= lag.min() <= lag.max() <= (0 if schedule == "sync" else 2)
            if number == 10:
                break
            policy.network.version.data += 1
            collector.update_policy_weights_()
        assert batch["collector", "policy_version"].min() > 0


def test_a_group_is_never_empty_and_sizes_need_not_be_even() -> None:
    with central_of(games_per_worker=3, groups_per_worker=2) as uneven, central_of(games_per_worker=1) as one:
        for collector in (uneven, one):
            for batch in take(collector, 3):
                assert_whole(batch, games_per_worker=batch.batch_size[0] // 2)
                assert batch["collector", "traj_ids"].unique().numel() >= batch.batch_size[0]


def test_spawned_workers_load_no_torch() -> None:
    with central_of(game_factory("tic_tac_toe"), policy=tic_tac_toe_policy(), start_method="spawn") as collector:
        take(collector, 1)
        loaded = [Path(f"/proc/{entry['pid']}/maps").read_text() for entry in collector.health()]
    assert ["libtorch" in maps for maps in loaded] == [False, False, True]


def tic_tac_toe_policy() -> ActorCritic:
    return ActorCritic(build_network(game_factory("tic_tac_toe")(1).spec, kind="mlp", num_blocks=1, channels=8))


def test_health_includes_the_inference_process_and_the_version_that_it_holds() -> None:
    with central_of() as collector:
        batches = iter(collector)
        next(batches)
        collector.update_policy_weights_()
        next(batches)
        health = collector.health()
        assert [entry["name"] for entry in health] == ["worker 0", "worker 1", "the inference process"]
        assert [entry["policy_version"] for entry in health] == [1, 1, 1]
        assert collector.stats()["healthy_workers"] == 2
        collector.pause_workers([1])
        assert next(batches).batch_size[0] == GAMES
        collector.resume_workers([1])
        assert next(batches).batch_size[0] == 2 * GAMES


# ---- faults


def test_a_killed_worker_loses_its_rollout_and_the_others_lose_nothing(tmp_path: Path) -> None:
    game = crashing_game("SIGKILL", at=PLIES + 3, once=str(tmp_path / "once"))
    with central_of(game, num_workers=3, groups_per_worker=1) as collector:
        audit = Audit(collector)
        batches = iter(collector)
        for _ in range(5):
            audit.take(next(batches))
        stats = collector.stats()
    assert (tmp_path / "once").exists()
    assert (stats["restarts"], stats["lost_rollouts"], stats["plies"]) == (1, 1, 5 * 3 * GAMES * PLIES)


def test_killed_workers_are_replaced_whenever_that_happens() -> None:
    policy = ActorCritic(VersionNetwork())
    with central_of(policy=policy, num_workers=3, max_restarts=100) as collector:
        audit = Audit(collector)
        for number, batch in enumerate(collector):
            audit.take(batch)
            if number == 12:
                break
            policy.network.version.data += 1
            collector.update_policy_weights_()
            os.kill(pid_of(collector, number % 3), signal.SIGKILL)
            time.sleep(0.01 * (number % 4))
        assert collector.stats()["restarts"] == 12


class Slowly(VersionNetwork):
    """Takes 5 ms for a question: long enough to be killed in."""

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(0.005)
        return super().forward(observation)


@pytest.mark.parametrize("schedule", ["sync", "async"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_rollouts_are_played_again_if_the_inference_process_is_replaced_meanwhile(
    how: signal.Signals, schedule: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = ActorCritic(Slowly())
    with central_of(policy=policy, schedule=schedule, plies_per_rollout=40, max_policy_lag=100) as collector:
        audit = Audit(collector, in_order=False)
        batches = iter(collector)
        audit.take(next(batches))
        pid = inference_pid(collector)
        killer = threading.Timer(0.1, os.kill, (pid, how))
        killer.start()
        for _ in range(4):
            policy.network.version.data += 1
            collector.update_policy_weights_()
            audit.take(next(batches))
        killer.join()
        stats, health = collector.stats(), collector.health()
    assert not psutil.pid_exists(pid)
    assert [entry["incarnation"] for entry in health] == [0, 0, 1]
    assert 1 <= stats["lost_rollouts"] <= 2
    assert stats["plies"] == 5 * 2 * GAMES * 40
    said = "was ended by SIGKILL" if how is signal.SIGKILL else f"gave no sign of life for heartbeat_s={HEARTBEAT_S:g}"
    assert f"the inference process (incarnation 0) {said}" in caplog.text


class Broken(VersionNetwork):
    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        if torch.multiprocessing.parent_process() is None:
            return super().forward(observation)
        raise ValueError("the network is broken on purpose")


def test_a_policy_that_fails_is_reported_with_its_traceback() -> None:
    with central_of(policy=ActorCritic(Broken()), max_restarts=1) as collector:
        with pytest.raises(WorkerCrashLoopError) as info:
            next(iter(collector))
        assert str(info.value).startswith("the inference process (incarnation 1) raised ValueError: the network is")
        assert isinstance(info.value.__cause__, RemoteTraceback)
        assert "in forward" in str(info.value.__cause__)


class Unloadable(VersionNetwork):
    def __setstate__(self, state: dict[str, Any]) -> None:
        if torch.multiprocessing.parent_process() is not None:
            raise ImportError("not in a child")
        self.__dict__.update(state)


def test_an_inference_process_that_cannot_start_ends_the_run_at_once() -> None:
    with (
        central_of(policy=ActorCritic(Unloadable())) as collector,
        pytest.raises(WorkerBootError, match=r"^the inference process \(incarnation 0\) raised ImportError: not in"),
    ):
        next(iter(collector))


def test_a_hanging_game_is_replaced_while_its_neighbours_wait(tmp_path: Path) -> None:
    with central_of(crashing_game("hang in Python", at=PLIES + 2, once=str(tmp_path / "once"))) as collector:
        audit = Audit(collector)
        batches = iter(collector)
        audit.take(next(batches))
        start = time.perf_counter()
        audit.take(next(batches))
        elapsed_s = time.perf_counter() - start
        assert elapsed_s >= HEARTBEAT_S * 0.9
        assert_within(HEARTBEAT_S + 1.5, elapsed_s)
        audit.take(next(batches))
        assert collector.stats()["restarts"] == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_while_the_learner_is_busy_a_silent_worker_blocks_no_other(how: signal.Signals, tmp_path: Path) -> None:
    """In "async", where batches need not be the same in every run; the learner notices it at its next wait."""
    steps_of = str(tmp_path)

    def note(step: int) -> None:
        with open(f"{steps_of}/{os.getpid()}", "a", encoding="utf-8") as file:
            file.write(".")

    def steps(pid: int) -> int:
        return (tmp_path / str(pid)).stat().st_size

    policy = ActorCritic(Slowly())
    with central_of(
        counting_game(before_step=note), policy=policy, schedule="async", plies_per_rollout=100
    ) as collector:
        audit = Audit(collector, in_order=False)
        batches = iter(collector)
        audit.take(next(batches))
        silent, other = pid_of(collector, 0), pid_of(collector, 1)
        os.kill(silent, how)
        before = steps(other)
        wait_until(lambda: steps(other) > before + 20)
        for _ in range(4):
            audit.take(next(batches))
        assert collector.stats()["restarts"] == 1


def test_it_ends_in_the_middle_of_rollouts_at_once() -> None:
    with central_of(policy=ActorCritic(Slowly()), schedule="async", plies_per_rollout=400) as collector:
        batches = iter(collector)
        start = time.perf_counter()
        next(batches)
        rollout_s = time.perf_counter() - start
        processes = [psutil.Process(entry["pid"]) for entry in collector.health()]
        start = time.perf_counter()
    assert time.perf_counter() - start < rollout_s / 2
    assert not any(is_alive(process) for process in processes)


def test_a_log_line_of_the_inference_process_names_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"), central_of(counting_game(), policy=ActorCritic(Talkative())) as collector:
        take(collector, 1)
    assert re.search(r"\[the inference process\.0\] .*this network warns", caplog.text)


class Talkative(VersionNetwork):
    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        logging.getLogger("mine").warning("this network warns")
        return super().forward(observation)
