"""Every argument of the collector that cannot work is named with its range, before anything starts."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import TinyNetwork, counting_game

from keisei_lightning.errors import ConfigError
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector


def collector_of(**options: Any) -> SelfPlayCollector:
    return SelfPlayCollector(counting_game(), ActorCritic(TinyNetwork()), **{"num_workers": 2, **options})


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"num_workers": 0}, "num_workers=0: must be a whole number, at least 1"),
        ({"num_workers": -5}, "num_workers=-5: must be a whole number, at least 1"),
        ({"num_workers": "4"}, "num_workers=4: must be a whole number, at least 1"),
        ({"games_per_worker": 2.5}, "games_per_worker=2.5: must be a whole number, at least 1"),
        ({"plies_per_rollout": "8"}, "plies_per_rollout=8: must be a whole number, at least 1"),
        ({"max_policy_lag": -1}, "max_policy_lag=-1: must be a whole number, at least 0"),
        ({"slots_per_worker": 0}, "slots_per_worker=0: must be a whole number, at least 1"),
        ({"max_restarts": -1}, "max_restarts=-1: must be a whole number, at least 0"),
        ({"total_frames": -2}, "total_frames=-2: must be a whole number, at least -1"),
        ({"seed": -1}, "seed=-1: must be a whole number, at least 0"),
        ({"mode": "threads"}, "mode=threads: must be one of serial, workers"),
        ({"schedule": "later"}, "schedule=later: must be one of sync, async"),
        ({"start_method": "fork"}, "start_method=fork: must be one of None, forkserver, spawn"),
        ({"heartbeat_s": 0.0}, "heartbeat_s=0.0: must be above 0 seconds"),
        ({"start_timeout_s": float("nan")}, "start_timeout_s=nan: must be above 0 seconds"),
        ({"restart_backoff_s": 0.0}, "restart_backoff_s=0.0: must be above 0 seconds"),
        ({"threads_per_worker": 0}, "threads_per_worker=0: must be at least 1, or None"),
        ({"min_healthy_workers": 3}, "min_healthy_workers=3: must be at most num_workers=2"),
    ],
)
def test_an_option_that_cannot_work_is_named_with_its_range(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as info:
        collector_of(**options)
    assert info.value.faults == (fault,)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as info:
        collector_of(num_workers=0, heartbeat_s=-1.0, mode="x")
    assert [fault.split("=")[0] for fault in info.value.faults] == ["mode", "num_workers", "heartbeat_s"]


def test_more_slots_than_memory_are_refused_with_the_arithmetic() -> None:
    with pytest.raises(
        ConfigError, match=r"slots need \d+ MiB = num_workers 2 x slots_per_worker 1 x games_per_worker 9"
    ):
        collector_of(games_per_worker=999_999_999)
