"""What is left of the machine is computed from the limits that hold here, and what does not fit is refused by sums."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import psutil
import pytest

from keisei_lightning.system import limits, machine
from keisei_lightning.system.limits import (
    MemoryDemand,
    WorkerDemand,
    max_workers,
    memory_errors,
    most_workers,
    worker_errors,
)
from keisei_lightning.system.machine import (
    Allowance,
    available_cpus,
    available_memory,
    descriptor_allowance,
    share_of_cpus,
    task_allowances,
)

GIB = 2**30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Control groups of version 2 in which this process is two folders deep, as in a SLURM job."""
    own = tmp_path / "own"
    own.write_text("0::/job_7/step_0\n")
    monkeypatch.setattr(machine, "OWN_GROUPS", own)
    root = tmp_path / "cgroup"
    (root / "job_7" / "step_0").mkdir(parents=True)
    return root


class TestCpus:
    @pytest.mark.parametrize(("quota", "expected"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 4)])
    def test_a_containers_quota_limits_the_cpus(
        self, quota: str, expected: int, groups: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
        (groups / "cpu.max").write_text(quota)
        assert available_cpus(groups) == expected

    def test_the_tightest_group_on_the_way_to_the_root_counts(
        self, groups: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
        (groups / "cpu.max").write_text("800000 100000")
        (groups / "job_7" / "cpu.max").write_text("300000 100000")
        (groups / "job_7" / "step_0" / "cpu.max").write_text("max 100000")
        assert available_cpus(groups) == 3

    def test_groups_of_version_1_count_too(self, groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "own").write_text("4:cpu,cpuacct:/box\n")
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
        (groups / "cpu" / "box").mkdir(parents=True)
        (groups / "cpu" / "box" / "cpu.cfs_quota_us").write_text("200000")
        (groups / "cpu" / "box" / "cpu.cfs_period_us").write_text("100000")
        assert available_cpus(groups) == 2

    @pytest.mark.parametrize(("learners", "expected"), [("2", 3), ("4", 1), ("99", 1), ("", 6), ("many", 6), ("0", 6)])
    def test_learners_of_one_launcher_share_the_cpus(
        self, learners: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", learners)
        assert available_cpus(tmp_path) == expected

    def test_without_control_groups_the_affinity_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7})
        assert available_cpus(tmp_path) == 3

    @pytest.mark.parametrize(
        ("limit", "num_workers", "expected"),
        [
            (None, 2, 4),
            ("3", 2, 3),
            ("3", 8, 1),
            ("3,2", 1, 3),
            ("16", 1, 8),
            ("many", 2, 4),
            ("0", 2, 4),
            (None, 99, 1),
        ],
    )
    def test_workers_share_the_cpus_within_the_limit_for_openmp(
        self, limit: str | None, num_workers: int, expected: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine, "available_cpus", lambda: 8)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if limit is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", limit)
        assert share_of_cpus(num_workers) == expected


class TestMemory:
    def test_a_groups_limit_counts_without_files_that_the_kernel_would_give_up(self, groups: Path) -> None:
        job = groups / "job_7"
        (job / "memory.max").write_text(str(3 * 2**20))
        (job / "memory.current").write_text(str(2**20 + 2**19))
        (job / "memory.stat").write_text(f"anon 5\ninactive_file {2**19}\nactive_file 7\n")
        assert available_memory(groups) == 2 * 2**20

    def test_more_used_than_allowed_is_none_left(self, groups: Path) -> None:
        (groups / "memory.max").write_text("1000")
        (groups / "memory.current").write_text("2000")
        assert available_memory(groups) == 0

    def test_without_a_limit_the_machines_own_free_memory_counts(self, groups: Path) -> None:
        (groups / "memory.max").write_text("max")
        (groups / "memory.current").write_text("1000")
        assert available_memory(groups) == pytest.approx(psutil.virtual_memory().available, rel=0.2)


class TestAllowances:
    def test_descriptors_in_use_are_counted(self) -> None:
        before = descriptor_allowance()
        assert before.limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        with open(os.devnull) as _, open(os.devnull) as _:
            assert descriptor_allowance().used == before.used + 2
            assert descriptor_allowance().free == before.free - 2

    def test_threads_are_limited_by_each_group_that_has_a_limit(self, groups: Path) -> None:
        (groups / "pids.max").write_text("max")
        (groups / "pids.current").write_text("12")
        (groups / "job_7" / "pids.max").write_text("100")
        (groups / "job_7" / "pids.current").write_text("40")
        (found,) = [tasks for tasks in task_allowances(groups) if "pids.max" in tasks.name]
        assert found == Allowance(limit=100, used=40, name=f"{groups / 'job_7'}/pids.max")
        assert found.free == 60

    def test_ulimit_u_counts_the_threads_of_all_processes_of_the_user(
        self, groups: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uid = os.getuid()
        monkeypatch.setattr(resource, "getrlimit", lambda which: (5000, 6000))
        monkeypatch.setattr(os, "getuid", lambda: 0)
        assert task_allowances(groups) == []  # root may exceed it
        monkeypatch.setattr(os, "getuid", lambda: uid or 65533)
        (found,) = task_allowances(groups)
        assert (found.limit, found.ceiling, found.name) == (5000, 6000, "ulimit -u")
        threads = psutil.Process().num_threads()
        assert found.used >= threads if uid else found.used == 0  # nobody is that user here


def demand(num_workers: int, **changes: object) -> WorkerDemand:
    return WorkerDemand(num_workers=num_workers, **{"start_method": "forkserver", "threads_per_worker": 1, **changes})  # type: ignore[arg-type]


@pytest.fixture
def big(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine of 64 CPUs with room for everything; tests take away what they are about."""
    monkeypatch.setattr(limits, "available_cpus", lambda: 64)
    monkeypatch.setattr(limits, "available_memory", lambda: 1000 * GIB)
    monkeypatch.setattr(limits, "largest_file", lambda: 2**62)
    monkeypatch.setattr(limits, "descriptor_allowance", lambda: allowed(10**6))
    monkeypatch.setattr(limits, "task_allowances", lambda: [])
    return monkeypatch


def allowed(limit: int, *, used: int = 0, name: str = "ulimit -n", ceiling: int | None = None) -> Allowance:
    return Allowance(limit=limit, used=used, name=name, ceiling=ceiling)


class TestWorkers:
    def test_the_cpus_bound_the_workers(self, big: pytest.MonkeyPatch) -> None:
        assert (max_workers(1), max_workers(2), max_workers(64)) == (64, 128, 1024)
        assert worker_errors(demand(1000)) == []
        big.setattr(limits, "available_cpus", lambda: 2)
        assert worker_errors(demand(8)) == []
        assert worker_errors(demand(1000), prefix="parallel.") == [
            "parallel.num_workers=1000: must be from 1 to 128 "
            "(64 for each of the 2 CPUs that this process may use, at most 1024)"
        ]

    def test_too_few_descriptors_show_the_sum_and_the_command_that_helps(self, big: pytest.MonkeyPatch) -> None:
        big.setattr(limits, "descriptor_allowance", lambda: allowed(256, used=10, ceiling=4096))
        assert worker_errors(demand(1000)) == [
            "num_workers=1000: must be from 1 to 71 (3032 file descriptors are needed, 3 x 1000 workers + 32, and 246 "
            "are free: ulimit -n is 256, 10 are in use; `ulimit -n 3042` allows it)"
        ]
        assert worker_errors(demand(71)) == []
        assert len(worker_errors(demand(72))) == 1

    def test_a_hard_limit_that_is_too_low_is_named(self, big: pytest.MonkeyPatch) -> None:
        big.setattr(limits, "descriptor_allowance", lambda: allowed(256, ceiling=300))
        assert worker_errors(demand(1000))[0].endswith("0 are in use; the hard limit is 300)")

    def test_where_not_even_one_worker_fits_the_range_says_so(self, big: pytest.MonkeyPatch) -> None:
        big.setattr(limits, "descriptor_allowance", lambda: allowed(40, used=20))
        assert worker_errors(demand(1))[0].startswith("num_workers=1: not even one worker can be started (35 file")
        assert most_workers(demand(8)) == 1

    def test_too_few_threads_show_the_sum(self, big: pytest.MonkeyPatch) -> None:
        big.setattr(limits, "available_cpus", lambda: 8)
        big.setattr(limits, "task_allowances", lambda: [allowed(50, used=20, name="/cg/pids.max")])
        assert worker_errors(demand(16, threads_per_worker=2)) == [
            "num_workers=16: must be from 1 to 6 (58 threads are needed, 3 x 16 workers + 10, and 30 are free: "
            "/cg/pids.max is 50, 20 are in use)"
        ]
        (spawned,) = worker_errors(demand(16, threads_per_worker=2, start_method="spawn"))
        assert "170 threads are needed, 10 x 16 workers + 10" in spawned  # NumPy's threads come with each

    @pytest.mark.parametrize(
        ("ceiling", "remedy"),
        [(None, ""), (100, "; the hard limit is 100"), (1003, "; `ulimit -u 1003` allows it")],
    )
    def test_a_limit_names_its_remedy(self, ceiling: int | None, remedy: str, big: pytest.MonkeyPatch) -> None:
        big.setattr(limits, "available_cpus", lambda: 1)
        big.setattr(limits, "task_allowances", lambda: [allowed(100, name="ulimit -u", ceiling=ceiling)])
        (error,) = worker_errors(demand(500))
        assert error.endswith(f"ulimit -u is 100, 0 are in use{remedy})")

    def test_all_limits_that_are_exceeded_are_shown_and_the_tightest_is_the_range(
        self, big: pytest.MonkeyPatch
    ) -> None:
        big.setattr(limits, "available_cpus", lambda: 1)
        big.setattr(limits, "descriptor_allowance", lambda: allowed(64, ceiling=64))
        big.setattr(limits, "task_allowances", lambda: [allowed(100, name="ulimit -u", ceiling=10**6)])
        (error,) = worker_errors(demand(500))
        assert error.startswith("num_workers=500: must be from 1 to 10 (64 for each of the 1 CPUs")
        assert "1532 file descriptors are needed" in error
        assert error.endswith("ulimit -u is 100, 0 are in use; `ulimit -u 1003` allows it)")

    def test_serial_needs_no_process(self, big: pytest.MonkeyPatch) -> None:
        big.setattr(limits, "descriptor_allowance", lambda: allowed(0))
        assert worker_errors(demand(200, in_processes=False)) == []
        assert worker_errors(demand(2000, in_processes=False)) == [
            "num_workers=2000: must be from 1 to 1024 (at most 1024)"
        ]

    def test_the_most_workers_that_fit_are_no_error(self, big: pytest.MonkeyPatch) -> None:
        big.setattr(limits, "descriptor_allowance", lambda: allowed(200, used=17))
        most = most_workers(demand(1000))
        assert most == 50
        assert worker_errors(demand(most)) == []
        assert worker_errors(demand(most + 1))


class TestRollouts:
    ROLLOUTS = MemoryDemand(
        slots_per_worker=2, games_per_worker=64, plies_per_rollout=32, bytes_per_ply=500, weight_bytes=100 * 2**20
    )

    def test_what_fits_is_no_error(self, big: pytest.MonkeyPatch) -> None:
        assert memory_errors(demand(8), self.ROLLOUTS) == []

    def test_what_does_not_fit_shows_the_sum_of_slots_weights_and_processes(self, big: pytest.MonkeyPatch) -> None:
        big.setattr(limits, "available_memory", lambda: 1090 * 2**20)
        assert memory_errors(demand(8), self.ROLLOUTS, prefix="parallel.") == [
            "parallel.games_per_worker=64: must be from 1 to 40 (1095.6 MiB of memory are needed and 1090.0 MiB are "
            "free: slots 15.6 MiB = 8 workers x 2 slots x 64 games x 32 plies x 500 bytes, "
            "weights 1000.0 MiB = (8 workers + 2) x 100.0 MiB, processes 80.0 MiB = 8 workers x 10.0 MiB)"
        ]

    def test_weights_alone_may_be_too_much(self, big: pytest.MonkeyPatch) -> None:
        big.setattr(limits, "available_memory", lambda: 500 * 2**20)
        (error,) = memory_errors(demand(8, in_processes=False), self.ROLLOUTS)
        assert error.startswith("games_per_worker=64: nothing fits with num_workers=8 (1015.6 MiB of memory are needed")
        assert "processes" not in error

    def test_a_limit_on_files_is_one_on_shared_memory(self, big: pytest.MonkeyPatch) -> None:
        big.setattr(limits, "largest_file", lambda: 8 * 2**20)
        rollouts = MemoryDemand(slots_per_worker=2, games_per_worker=64, plies_per_rollout=32, bytes_per_ply=500)
        (error,) = memory_errors(demand(8), rollouts)
        assert error.startswith("games_per_worker=64: must be from 1 to 32 (")
        assert "and a file may have 8.0 MiB (ulimit -f)" in error
