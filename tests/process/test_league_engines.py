"""USI engines as opponents in training: a crash costs the game that waited for the engine, and nothing else."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from collector_helpers import collector_of
from fault_helpers import wait_until
from tensordict import TensorDictBase

from keisei_lightning.evaluation.registry import player_factory
from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.parallel import League, OpponentOptions, PlayerMember, SelfPlayCollector

FAKE = Path(__file__).resolve().parents[1] / "fake_usi_engine.py"
GAMES = 4

pytestmark = pytest.mark.process


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    return tmp_path / "diary"


def engine_collector(diary: Path, *arguments: str, options: str = "", **keywords: Any) -> SelfPlayCollector:
    """A collector whose games are all against the fake engine."""
    command = shlex.join([sys.executable, str(FAKE), "--diary", str(diary), *arguments])
    engine = PlayerMember("engine", player_factory(f'usi(command="{command}",nodes=1{options})'))
    game = game_factory("shogi", max_plies=40)
    torch.manual_seed(0)
    policy = ActorCritic(build_network(game(1).spec, kind="mlp", num_blocks=1, channels=8))
    return collector_of(
        policy,
        game=game,
        opponents=League(options=OpponentOptions(share=1.0), players=(engine,)),
        **{"num_workers": 1, "games_per_worker": GAMES, "plies_per_rollout": 8, "mode": "workers", **keywords},
    )


def lives(diary: Path) -> list[int]:
    """Process ids of all engines that were ever started."""
    return [int(line.split()[1]) for line in diary.read_text().splitlines() if line.startswith("start ")]


def take(collector: SelfPlayCollector, num_batches: int) -> list[TensorDictBase]:
    batches = iter(collector)
    return [next(batches).clone() for _ in range(num_batches)]


def is_wholly_ended(pid: int) -> bool:
    """Whether no thread of a killed child is left, one of which may keep its pipes open when the first is a zombie."""
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE and len(os.listdir(f"/proc/{pid}/task")) == 1


def totals(collector: SelfPlayCollector) -> list[int]:
    assert collector.pool is not None
    return collector.pool.totals.get("engine", [0, 0, 0, 0])


@pytest.mark.parametrize("mode", ["serial", "workers", "central"])
def test_each_crash_of_an_engine_costs_the_game_that_waited_for_it(diary: Path, mode: str) -> None:
    # The first life is that of the check before the start; it is asked nothing.
    with engine_collector(diary, "--fault", "killed", "--at", "5", "--lives", "3", mode=mode) as collector:
        batches = take(collector, 8)
        void, stats = totals(collector)[3], collector.stats()
    assert void == sum(int((batch["next", "truncated"] & ~batch["trainable"][..., None]).sum()) for batch in batches)
    assert void == 2
    assert stats["restarts"] == stats["quarantined_batches"] == stats["lost_rollouts"] == 0
    assert all(torch.isfinite(batch["state_value"]).all() for batch in batches)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in lives(diary)))


def test_an_idle_engine_that_somebody_kills_twice_is_started_again_and_costs_nothing(diary: Path) -> None:
    with engine_collector(diary) as collector:
        for _ in range(2):
            take(collector, 2)
            engine = lives(diary)[-1]
            os.kill(engine, signal.SIGKILL)
            wait_until(lambda engine=engine: is_wholly_ended(engine))  # type: ignore[misc]
            take(collector, 2)
            assert lives(diary)[-1] != engine
        assert totals(collector)[3] == 0  # nobody waited for it
        assert collector.stats()["restarts"] == 0
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in lives(diary)))


def test_an_engine_that_never_works_costs_its_games_and_the_others_go_on(diary: Path) -> None:
    with engine_collector(diary, "--fault", "crash", "--at", "0") as collector:
        batches = take(collector, 3)
        wins, draws, losses, void = totals(collector)
    assert void >= GAMES
    assert (wins, draws, losses) == (0, 0, 0)
    assert all(bool(batch["trainable"].any()) for batch in batches)


def test_a_worker_that_waits_for_a_slow_engine_is_not_taken_for_a_hung_one(diary: Path) -> None:
    with engine_collector(diary, "--think-s", "0.4", heartbeat_s=0.5, plies_per_rollout=2) as collector:
        take(collector, 2)  # four boards: more than three heartbeats
        assert collector.stats()["restarts"] == 0
        assert totals(collector)[3] == 0


def test_an_engine_ends_with_its_worker_and_the_next_worker_has_one_of_its_own(diary: Path) -> None:
    with engine_collector(diary) as collector:
        take(collector, 2)
        engine = lives(diary)[-1]
        os.kill(collector.health()[0]["pid"], signal.SIGKILL)
        take(collector, 2)
        wait_until(lambda: not psutil.pid_exists(engine))
        assert lives(diary)[-1] != engine
        assert collector.stats()["restarts"] == 1
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in lives(diary)))
