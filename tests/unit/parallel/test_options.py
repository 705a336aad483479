"""Every argument of the collector that cannot work is named with its range, before anything starts."""

from __future__ import annotations

import importlib.util
import inspect
from typing import Any

import pytest
from fakes import TinyNetwork, counting_game

from keisei_lightning.errors import ConfigError
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import (
    BatchOptions,
    ClusterOptions,
    CollectorOptions,
    SelfPlayCollector,
    SupervisionOptions,
    WorkerOptions,
)
from keisei_lightning.parallel.options import agent_needs, with_number_of_workers
from keisei_lightning.system.machine import Allowance
from keisei_lightning.system.options import declared


def collector_of(**options: Any) -> SelfPlayCollector:
    return SelfPlayCollector(counting_game(), ActorCritic(TinyNetwork()), **{"num_workers": 2, **options})


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"num_workers": 0}, "num_workers=0: must be auto, or a whole number, 1 or more"),
        ({"num_workers": -5}, "num_workers=-5: must be auto, or a whole number, 1 or more"),
        ({"num_workers": "4"}, "num_workers=4: must be auto, or a whole number, 1 or more"),
        ({"games_per_worker": 2.5}, "games_per_worker=2.5: must be a whole number, from 1 to 65536"),
        ({"plies_per_rollout": "8"}, "plies_per_rollout=8: must be a whole number, from 1 to 65536"),
        ({"max_policy_lag": -1}, "max_policy_lag=-1: must be a whole number, 0 or more"),
        ({"slots_per_worker": 0}, "slots_per_worker=0: must be a whole number, from 1 to 64"),
        ({"max_restarts": -1}, "max_restarts=-1: must be a whole number, 0 or more"),
        ({"total_frames": -2}, "total_frames=-2: must be a whole number, -1 or more"),
        ({"seed": -1}, "seed=-1: must be a whole number, 0 or more"),
        ({"mode": "threads"}, "mode=threads: must be one of serial, workers, central, ray"),
        ({"schedule": "later"}, "schedule=later: must be one of sync, async"),
        ({"start_method": "fork"}, "start_method=fork: must be one of forkserver, spawn, or None"),
        ({"heartbeat_s": 0.0}, "heartbeat_s=0: must be a number, 0.5 or more"),
        ({"start_timeout_s": float("nan")}, "start_timeout_s=nan: must be a number, more than 0"),
        ({"restart_backoff_s": 0.0}, "restart_backoff_s=0: must be a number, more than 0"),
        ({"threads_per_worker": 0}, "threads_per_worker=0: must be a whole number, from 1 to 1024, or None"),
        ({"heartbeat_s": "10"}, "heartbeat_s=10: must be a number, 0.5 or more"),
        ({"heartbeat_s": float("inf")}, "heartbeat_s=inf: must be a number, 0.5 or more"),
        ({"heartbeat_s": 0.1}, "heartbeat_s=0.1: must be a number, 0.5 or more"),
        ({"num_workers": True}, "num_workers=True: must be auto, or a whole number, 1 or more"),
        ({"threads_per_worker": "2"}, "threads_per_worker=2: must be a whole number, from 1 to 1024, or None"),
        ({"worker_device": "tpu"}, "worker_device=tpu: must be auto, cpu, cuda or cuda:N"),
        ({"worker_precision": "16-true"}, "worker_precision=16-true: must be one of 32-true, bf16-mixed"),
        (
            {"compile_mode": "fast"},
            "compile_mode=fast: must be one of default, reduce-overhead, max-autotune, "
            "max-autotune-no-cudagraphs, or None",
        ),
        ({"groups_per_worker": 17}, "groups_per_worker=17: must be a whole number, from 1 to 16"),
        ({"min_healthy_workers": 3}, "min_healthy_workers=3: must be from 0 to 2 (num_workers)"),
        ({"num_agents": 0}, "num_agents=0: must be auto, or a whole number, from 1 to 1024"),
        ({"num_agents": "all"}, "num_agents=all: must be auto, or a whole number, from 1 to 1024"),
        (
            {"ray_address": "ray://head:10001"},
            "ray_address=ray://head:10001: must be auto or HOST:PORT of the cluster's head (Ray Client, ray://, is not "
            "supported), or None",
        ),
        ({"placement": "anywhere"}, "placement=anywhere: must be one of spread, strict_spread, pack"),
        ({"cpus_per_agent": -1}, "cpus_per_agent=-1: must be a number, 0 or more, or None"),
        ({"gpus_per_agent": -1}, "gpus_per_agent=-1: must be a number, 0 or more"),
        ({"object_store_memory_mb": 10}, "object_store_memory_mb=10: must be a whole number, 80 or more, or None"),
        ({"weight_dtype": "float16"}, "weight_dtype=float16: must be one of float32, bfloat16"),
        ({"weight_compression": "gzip"}, "weight_compression=gzip: must be one of none, zstd"),
        (
            {"mode": "ray", "num_agents": 3, "min_healthy_workers": 7},
            "min_healthy_workers=7: must be from 0 to 6 (num_workers x num_agents)",
        ),
        (
            {"mode": "ray", "agent_resources": {"tpu": -1}},
            "agent_resources.tpu=-1: must be a number, 0 or more",
        ),
        (
            {"mode": "ray", "num_agents": 1, "standby_agents": True, "gpus_per_agent": 0.5},
            "standby_agents=True: must be False with gpus_per_agent=0.5 (Ray gives a GPU to one process, for as long "
            "as it lives)",
        ),
        (
            {"mode": "ray", "ray_address": "head:6379", "num_agents": 1, "object_store_memory_mb": 100},
            "object_store_memory_mb=100: must be null with ray_address=head:6379 (whoever starts a cluster sizes its "
            "object stores)",
        ),
    ],
)
def test_an_option_that_cannot_work_is_named_with_its_range(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as info:
        collector_of(**options)
    assert info.value.errors == (fault,)


@pytest.mark.parametrize(
    ("missing", "options", "fault"),
    [
        ("ray", {}, "mode=ray: needs the extra ray: pip install 'keisei-lightning[ray]'"),
        (
            "zstandard",
            {"weight_compression": "zstd"},
            "weight_compression=zstd: needs zstandard, of the extra ray: pip install 'keisei-lightning[ray]'",
        ),
    ],
)
def test_without_the_extra_there_is_one_line(
    missing: str, options: dict[str, Any], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(ConfigError) as info:
        collector_of(mode="ray", num_agents=1, **options)
    assert info.value.errors == (fault,)


def test_a_batch_is_a_rollout_of_every_worker_of_every_agent_and_nothing_is_started_for_it() -> None:
    collector = collector_of(mode="ray", num_agents=3, games_per_worker=4, plies_per_rollout=8)
    assert (collector.num_workers, collector.frames_per_batch) == (6, 6 * 4 * 8)


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({}, {"CPU": 2.0}),
        (
            {"cpus_per_agent": 0.5, "gpus_per_agent": 1, "agent_resources": {"board": 2}},
            {"CPU": 0.5, "GPU": 1.0, "board": 2.0},
        ),
        ({"cpus_per_agent": 0}, {}),
    ],
)
def test_an_agent_reserves_a_cpu_for_each_worker_or_what_it_is_told(
    options: dict[str, Any], needs: dict[str, float]
) -> None:
    assert agent_needs(ClusterOptions(**options), 2) == needs


def test_auto_workers_of_an_agent_are_as_many_as_its_cpus() -> None:
    options = CollectorOptions(mode="ray", num_workers="auto")
    chosen = with_number_of_workers(options, WorkerOptions(), ClusterOptions(cpus_per_agent=3.5), learns_on_cpu=True)
    assert chosen.num_workers == 3


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as info:
        collector_of(num_workers=0, heartbeat_s=-1.0, mode="x")
    assert [line.split("=")[0] for line in info.value.errors] == ["mode", "num_workers", "heartbeat_s"]


def test_more_slots_than_memory_are_refused_with_the_arithmetic() -> None:
    with pytest.raises(
        ConfigError,
        match=r"games_per_worker=65536: must be from 1 to \d+ \(.* GiB of memory are needed and .* are free: slots "
        r".* = 2 workers x 1 slots x 65536 games x 65536 plies x 57 bytes",
    ):
        collector_of(games_per_worker=65_536, plies_per_rollout=65_536)


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
    with pytest.raises(ConfigError, match=r"worker_device=cuda:0: must be cpu \(there is no GPU here\)"):
        collector_of(worker_device="cuda:0")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"worker_device=cuda:2: must be cuda:0 to cuda:1"):
        collector_of(worker_device="cuda:2")


def test_options_may_be_given_as_objects_and_as_keywords_which_count_more() -> None:
    collector = SelfPlayCollector(
        counting_game(),
        ActorCritic(TinyNetwork()),
        CollectorOptions(num_workers=2, games_per_worker=4, plies_per_rollout=8),
        supervision=SupervisionOptions(heartbeat_s=5),
        games_per_worker=6,
        max_restarts=3,
        total_frames=96,
    )
    assert (collector.num_workers, collector.games_per_worker, collector.frames_per_batch) == (2, 6, 96)
    assert collector._collector_spec.supervision == SupervisionOptions(heartbeat_s=5, max_restarts=3)
    assert collector.total_frames == 96


def test_every_option_is_a_keyword_and_no_parameter_of_the_constructor_is_one_of_them() -> None:
    parameters = inspect.signature(SelfPlayCollector).parameters
    assert len(parameters) <= 12
    groups = (CollectorOptions, WorkerOptions, SupervisionOptions, BatchOptions, ClusterOptions)
    defaults = {each.name: each.default for group in groups for each in declared(group)}
    assert len(defaults) == sum(len(declared(group)) for group in groups)  # no name twice
    assert not defaults.keys() & parameters.keys()
    collector_of(**defaults)


def test_a_keyword_that_is_no_option_is_one_line_with_the_nearest_one() -> None:
    with pytest.raises(TypeError, match=r"^SelfPlayCollector has no option 'num_worker' \(did you mean num_workers"):
        collector_of(num_worker=3)


def test_auto_workers_are_as_many_as_the_machine_has_cpus_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keisei_lightning.parallel.options.available_cpus", lambda: 8)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert collector_of(num_workers="auto").num_workers == 8
    assert collector_of(num_workers="auto", mode="serial").num_workers == 1
    assert collector_of(num_workers="auto", mode="central").num_workers == 7
    assert collector_of(num_workers="auto", schedule="async").num_workers == 2
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert collector_of(num_workers="auto", schedule="async").num_workers == 7
