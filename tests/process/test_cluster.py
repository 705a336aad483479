"""``mode="ray"`` on a simulated cluster of two nodes: the bits of ``mode="workers"``, and nothing lost in silence."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from collector_helpers import FRAMES, GAMES, assert_same, collector_of
from fakes import TinyNetwork, counting_game
from fault_helpers import wait_until
from league_players import FIRST, RANDOM
from rollout_checks import assert_whole
from simulated_cluster import SimulatedCluster, family_of
from tensordict import TensorDictBase
from torch import nn

from keisei_lightning.errors import ConfigError, WorkerBootError
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import League, OpponentOptions, PolicyMember, SelfPlayCollector

pytestmark = [pytest.mark.process, pytest.mark.slow]

HANG_S = 120.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[SimulatedCluster]:
    with SimulatedCluster(2, cpus_per_node=2) as made:
        yield made


def on(
    cluster: SimulatedCluster, policy: nn.Module | None = None, game: Any = None, **options: Any
) -> SelfPlayCollector:
    defaults = {"mode": "ray", "ray_address": cluster.address, "threads_per_worker": 1, "heartbeat_s": 20.0}
    return collector_of(policy, game, **{**defaults, **options})


def policy_of_bfloat16s() -> nn.Module:
    torch.manual_seed(11)
    policy = ActorCritic(TinyNetwork())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(parameter.bfloat16().float())
    return policy


def six_batches(collector: SelfPlayCollector, policy: nn.Module) -> list[TensorDictBase]:
    """Batches of three versions, of which the second and the third also meet snapshots where there are any."""
    out = []
    with collector:
        for number, batch in enumerate(collector):
            assert_whole(batch, games_per_worker=GAMES)
            out.append(batch)
            if number == 5:
                return out
            if number % 2:
                if collector._collector_spec.opponents is not None:
                    collector.push_snapshot()
                with torch.no_grad():
                    for parameter in policy.parameters():
                        parameter.mul_(2).bfloat16()
                collector.update_policy_weights_()
    raise AssertionError


# ---- the same bits


@pytest.fixture(scope="module")
def bits_of_workers() -> list[TensorDictBase]:
    policy = policy_of_bfloat16s()
    return six_batches(collector_of(policy, threads_per_worker=1, opponents=OpponentOptions()), policy)


@pytest.mark.parametrize(
    "options",
    [
        {"num_agents": 1, "num_workers": 2},
        {"num_agents": 2, "num_workers": 1, "weight_dtype": "bfloat16", "weight_compression": "zstd"},
    ],
    ids=["one agent", "two agents, weights rounded and compressed"],
)
def test_agents_give_the_bits_of_workers(
    cluster: SimulatedCluster, bits_of_workers: list[TensorDictBase], options: dict[str, Any]
) -> None:
    policy = policy_of_bfloat16s()
    collector = on(cluster, policy, opponents=OpponentOptions(), **options)
    batches = six_batches(collector, policy)
    assert_same(batches, bits_of_workers)
    assert [int(batch["collector", "policy_version"].max()) for batch in batches] == [0, 0, 1, 1, 2, 2]
    assert not all(bool(batch["trainable"].all()) for batch in batches)  # snapshots have played


def test_agents_play_a_league_as_workers_do(cluster: SimulatedCluster) -> None:
    batches, totals = {}, {}
    for name, make in (("workers", collector_of), ("ray", functools.partial(on, cluster, num_agents=2, num_workers=1))):
        policy = policy_of_bfloat16s()
        other = PolicyMember("other", ActorCritic(TinyNetwork()))
        league = League(options=OpponentOptions(share=1.0), players=(FIRST, RANDOM), policies=(other,))
        collector = make(policy, threads_per_worker=1, opponents=league)
        batches[name] = six_batches(collector, policy)
        assert collector.pool is not None
        totals[name] = collector.pool.totals
    assert_same(batches["ray"], batches["workers"])
    assert totals["ray"] == totals["workers"]
    assert {"first", "random", "other"} & set(totals["ray"])


# ---- health, control, ends


def test_workers_of_two_nodes_are_healthy_can_be_paused_and_end_with_the_collector(cluster: SimulatedCluster) -> None:
    with on(cluster, schedule="async", max_policy_lag=10, num_agents="auto", num_workers=2) as collector:
        assert collector.num_workers == 4
        assert collector.frames_per_batch == 2 * FRAMES
        batches = iter(collector)
        seen: Counter[int] = Counter()
        while len(seen) < 4:
            seen.update(next(batches)["collector", "worker_id"][:, 0].tolist())
        health = collector.health()
        assert [entry["name"] for entry in health] == [*(f"worker {n}" for n in range(4)), "agent 0", "agent 1"]
        assert all(entry["node"] and entry["rss_bytes"] for entry in health)
        assert collector.is_healthy()
        pids = [entry["pid"] for entry in health]
        assert len(set(pids)) == 6
        agents = [psutil.Process(pid) for pid in pids[4:]]
        assert [
            psutil.Process(pid) in agents[number // 2].children(recursive=True) for number, pid in enumerate(pids[:4])
        ]
        collector.pause_workers([0, 1])
        assert next(batches).batch_size == (2 * GAMES, collector.plies_per_rollout)
        collector.resume_workers()
        collector.update_policy_weights_()
        while next(batches)["collector", "policy_version"].min() < 1:
            continue
        assert collector.stats()["lost_rollouts"] == 0
        families = [process for pid in pids for process in family_of(pid)]
    _, alive = psutil.wait_procs(families, timeout=HANG_S)
    assert not alive
    assert not ray.is_initialized()


def test_a_program_that_is_connected_keeps_its_connection(cluster: SimulatedCluster) -> None:
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        with on(cluster, ray_address=None, num_agents=1, num_workers=1) as collector:
            next(iter(collector))
        assert ray.is_initialized()
        assert len([node for node in ray.nodes() if node["Alive"]]) == 3
    finally:
        ray.shutdown()


def test_two_learners_of_one_training_share_the_nodes_of_a_cluster(cluster: SimulatedCluster, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "keisei_lightning", "train", "experiment=tic_tac_toe"),
        *("trainer.devices=2", "trainer.strategy=ddp", "trainer.max_epochs=1"),
        *("parallel=ray", f"parallel.ray_address={cluster.address}", "parallel.num_workers=1"),
        *("evaluation.num_games=2", f"hydra.run.dir={tmp_path}"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=4 * HANG_S, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 node agents" in ran.stdout  # one of each learner on each node
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


# ---- faults


def test_an_agent_that_is_killed_is_replaced_and_its_grants_are_counted_and_played(cluster: SimulatedCluster) -> None:
    with on(cluster, num_agents=2, num_workers=1) as collector:
        batches = iter(collector)
        for _ in range(2):
            for _ in range(3):
                assert_whole(next(batches), games_per_worker=GAMES)
            pid = next(entry["pid"] for entry in collector.health() if entry["name"] == "agent 1")
            family = family_of(pid)
            psutil.Process(pid).kill()
            for _ in range(3):
                batch = next(batches)
                assert_whole(batch, games_per_worker=GAMES)
                assert sorted(set(batch["collector", "worker_id"][:, 0].tolist())) == [0, 1]
            _, alive = psutil.wait_procs(family, timeout=HANG_S)
            assert not alive  # its workers end with it
        stats, health = collector.stats(), {entry["name"]: entry for entry in collector.health()}
    assert stats["plies"] == 12 * FRAMES
    assert stats["lost_rollouts"] == 2  # sync: one grant was outstanding at each death
    assert health["agent 1"]["incarnation"] == 2
    assert health["worker 1"]["incarnation"] == 2
    assert health["worker 0"]["incarnation"] == 0


def test_a_worker_of_an_agent_that_is_killed_is_replaced_there(cluster: SimulatedCluster) -> None:
    with on(cluster, num_agents=1, num_workers=2) as collector:
        batches = iter(collector)
        next(batches)
        worker = collector.health()[1]
        psutil.Process(worker["pid"]).kill()
        for _ in range(3):
            assert_whole(next(batches), games_per_worker=GAMES)
        wait_until(lambda: next(batches) is not None and collector.health()[1]["incarnation"] == 1, HANG_S)
        assert collector.health()[2]["incarnation"] == 0
        assert collector.stats()["restarts"] == 1


def test_a_game_that_fails_to_start_ends_the_training_with_the_nodes_own_words(cluster: SimulatedCluster) -> None:
    def broken(num_games: int) -> Any:
        if num_games == GAMES:
            raise ZeroDivisionError("no game today")
        return counting_game()(num_games)

    with on(cluster, game=broken, num_agents=1) as collector, pytest.raises(WorkerBootError) as info:
        next(iter(collector))
    assert str(info.value).startswith("agent 0 on ")
    assert "raised ZeroDivisionError: no game today" in str(info.value)
    assert "in broken" in str(info.value.__cause__)


def test_a_cluster_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^ray_address=127\.0\.0\.1:1: Ray cannot be reached or started"):
        collector_of(mode="ray", ray_address="127.0.0.1:1", num_agents="auto")


def test_games_of_each_agents_workers_are_shown(cluster: SimulatedCluster) -> None:
    with on(cluster, num_agents=2, num_workers=1) as collector:
        assert collector.drawn_boards == {}
        batches = iter(collector)
        next(batches)
        collector.draw_boards(3)
        next(batches)
        shown = collector.drawn_boards
        assert all(worker["last_batch_plies_per_s"] > 0 for worker in collector.health()[:2])
    assert {worker: [view.board for view in views] for worker, views in shown.items()} == {0: [0, 1], 1: [0]}
    assert all(view.svg.startswith("<svg") for views in shown.values() for view in views)


# ---- a cluster of our own


SCRIPT = """
import os, sys
import ray
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector
from fakes import CountingGame, TinyNetwork

class OwnGame(CountingGame):  # of the script alone: it travels by value
    pass

if __name__ == "__main__":
    with SelfPlayCollector(OwnGame, ActorCritic(TinyNetwork()), mode="ray", num_workers=1, games_per_worker=4,
                           plies_per_rollout=6, stagger_games=False) as collector:
        batches = iter(collector)
        next(batches)
        print(*[entry["pid"] for entry in collector.health()], flush=True)
        if sys.argv[1] == "wait":
            while True:
                next(batches)
    print(ray.is_initialized(), [name for name in os.listdir(os.environ["TMPDIR"]) if "ray" in name], flush=True)
"""


@contextlib.contextmanager
def running_script(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """The script, whose workers play, and all its processes."""
    script = folder / "own.py"
    script.write_text(SCRIPT)
    (folder / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "RAY_worker_niceness"):
        environment.pop(name, None)
    command = [sys.executable, str(script), *words]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process, family_of(process.pid)
        finally:
            process.kill()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="kt", dir="/tmp"))  # below it are sockets, whose paths may have 107 letters
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_without_an_address_a_cluster_is_started_and_stopped_and_plays_the_scripts_own_game(short_folder: Path) -> None:
    with running_script(short_folder, "once") as (process, family):
        assert any("raylet" in one.name() for one in family)
        assert process.stdout is not None
        assert process.stdout.readlines()[-1].split() == ["False", "[]"]
        assert process.wait(HANG_S) == 0
    _, alive = psutil.wait_procs(family, timeout=HANG_S)
    assert not alive


def test_agents_of_its_own_cluster_are_as_nice_as_the_learner_and_end_when_it_is_killed(short_folder: Path) -> None:
    with running_script(short_folder, "wait") as (process, family):
        assert len(family) > 5
        agents = [one for one in family if "AgentActor" in one.name()]
        assert [one.nice() for one in agents] == [psutil.Process(process.pid).nice()]
        process.send_signal(signal.SIGKILL)
        process.wait(HANG_S)
    _, alive = psutil.wait_procs(family, timeout=HANG_S)
    assert not alive
    wait_until(lambda: not list((short_folder / "tmp").iterdir()), HANG_S)
