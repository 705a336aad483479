"""What the fault tests share: a small collector with a short heartbeat, and an audit of every batch.

``KEISEI_SOAK=1`` (``make soak``) makes each fault as often as is promised.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch
from fakes import VersionNetwork, counting_game
from rollout_checks import assert_continues, assert_whole, incarnations, worker_rows
from tensordict import TensorDictBase

from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector

__all__ = [
    "FOR_EVER_S",
    "GAMES",
    "HEARTBEAT_S",
    "PLIES",
    "SOAK",
    "TIMEOUT_S",
    "UNLIMITED",
    "Audit",
    "assert_within",
    "collector_of",
    "is_alive",
    "pid_of",
    "wait_until",
]

SOAK = os.environ.get("KEISEI_SOAK") == "1"
GAMES, PLIES = 4, 6
HEARTBEAT_S = 1.0
TIMEOUT_S = 3600 if SOAK else 600
FOR_EVER_S = 2.0 * TIMEOUT_S
"""A limit that nothing may wait for: a test that does ends by its own timeout."""
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
    """Takes in every batch and holds it to the promise: whole, once, and a game never spliced to another.

    Args:
        collector: whose batches.
        in_order: each batch holds the newest rollout of every worker (the schedule is "sync").
    """

    def __init__(self, collector: SelfPlayCollector, *, in_order: bool = True) -> None:
        self._collector, self._in_order = collector, in_order
        self._seen: set[tuple[int, int, int]] = set()
        self._last: dict[int, TensorDictBase] = {}
        self.batches = 0

    def take(self, batch: TensorDictBase) -> None:
        assert_whole(batch, games_per_worker=GAMES)
        versions = batch["collector", "policy_version"].float()
        assert torch.equal(batch["state_value"][..., 0], versions), "a ply was not played by the version it names"
        self.batches += 1
        if self._in_order:
            self._take_in_order(batch)

    def _take_in_order(self, batch: TensorDictBase) -> None:
        assert self._collector._session is not None
        for worker_id, header in self._collector._session.intake.last_headers.items():
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


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs (what is left of it until init has reaped it is nothing of ours)."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_within(limit_s: float, elapsed_s: float) -> None:
    """Hold a promise of time, in the soak only: a busy machine has no quiet time to be held to."""
    assert not SOAK or elapsed_s < limit_s


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Return when the condition holds; the timeout only ends a test that would wait for ever."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
