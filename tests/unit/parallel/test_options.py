"""Every argument of the collector that cannot work is named with its range, before anything starts."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import TinyNetwork, counting_game

from keisei_lightning.errors import ConfigError
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.system.machine import Allowance


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
        ({"mode": "threads"}, "mode=threads: must be one of serial, workers, central"),
        ({"schedule": "later"}, "schedule=later: must be one of sync, async"),
        ({"start_method": "fork"}, "start_method=fork: must be one of None, forkserver, spawn"),
        ({"heartbeat_s": 0.0}, "heartbeat_s=0.0: must be above 0 seconds, and finite"),
        ({"start_timeout_s": float("nan")}, "start_timeout_s=nan: must be above 0 seconds, and finite"),
        ({"restart_backoff_s": 0.0}, "restart_backoff_s=0.0: must be above 0 seconds, and finite"),
        ({"threads_per_worker": 0}, "threads_per_worker=0: must be at least 1, or None"),
        ({"heartbeat_s": "10"}, "heartbeat_s=10: must be above 0 seconds, and finite"),
        ({"heartbeat_s": float("inf")}, "heartbeat_s=inf: must be above 0 seconds, and finite"),
        ({"heartbeat_s": 0.1}, "heartbeat_s=0.1: must be at least 0.5 seconds"),
        ({"num_workers": True}, "num_workers=True: must be a whole number, at least 1"),
        ({"threads_per_worker": "2"}, "threads_per_worker=2: must be at least 1, or None"),
        ({"worker_device": "tpu"}, "worker_device=tpu: must be auto, cpu or cuda:N"),
        ({"worker_precision": "16-true"}, "worker_precision=16-true: must be one of 32-true, bf16-mixed"),
        (
            {"compile_mode": "fast"},
            "compile_mode=fast: must be None or one of default, reduce-overhead, max-autotune, "
            "max-autotune-no-cudagraphs",
        ),
        ({"groups_per_worker": 17}, "groups_per_worker=17: must be at most 16"),
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
        ConfigError,
        match=r"games_per_worker=999999999: must be from 1 to \d+ \(.* GiB of memory are needed and .* are free: slots "
        r".* = 2 workers x 1 slots x 999999999 games x 32 plies x 57 bytes",
    ):
        collector_of(games_per_worker=999_999_999)


def test_more_workers_than_descriptors_are_refused_with_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Allowance(limit=64, used=20, name="ulimit -n", ceiling=64)
    monkeypatch.setattr("keisei_lightning.system.limits.descriptor_allowance", lambda: few)
    with pytest.raises(ConfigError, match=r"num_workers=5: must be from 1 to 4 \(47 file descriptors are needed"):
        collector_of(num_workers=5)
    with pytest.raises(ConfigError, match=r"num_workers=5: must be from 1 to 2 \(57 file descriptors .* 5 x 5 workers"):
        collector_of(num_workers=5, mode="central")
    collector_of(num_workers=4)
    collector_of(num_workers=5, mode="serial")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"worker_device=cuda:0: must be cpu \(no GPU here\)"):
        collector_of(worker_device="cuda:0")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"worker_device=cuda:2: must be cuda:0 to cuda:1"):
        collector_of(worker_device="cuda:2")
