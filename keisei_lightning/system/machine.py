"""What this process may use of the machine: CPUs, memory, file descriptors, threads.

Each number is the machine's, reduced by the limits of the shell (``ulimit``) and of every control group that this
process is in (a container, a SLURM job, a systemd slice).
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = [
    "Allowance",
    "allowed_cpus",
    "available_cpus",
    "available_memory",
    "descriptor_allowance",
    "largest_file",
    "resident_memory",
    "share_of_cpus",
    "task_allowances",
]

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowance:
    """How many more of something may be opened or started.

    Attributes:
        limit: the most there may be.
        used: how many there are now.
        name: the limit's name, as a user would search for it.
        ceiling: the hard limit, up to which the user may raise ``limit``; None where only root may raise it.
    """

    limit: int
    used: int
    name: str
    ceiling: int | None = None

    @property
    def free(self) -> int:
        """How many more there may be, not negative."""
        return max(0, self.limit - self.used)

    def remedy(self, further: int) -> str:
        """What the user can do about this limit, as the end of a sentence.

        Args:
            further: how many more are needed.
        """
        wanted = self.used + further
        if self.ceiling is None or wanted <= self.limit:
            return ""
        return (
            f"; `{self.name} {wanted}` allows it" if wanted <= self.ceiling else f"; the hard limit is {self.ceiling}"
        )


def available_cpus(cgroup_root: Path = CGROUP_ROOT) -> int:
    """Count the CPUs that this process may use: its share of :func:`allowed_cpus`.

    Where a launcher has started several learners on this machine (``LOCAL_WORLD_SIZE``, as torchrun says it), each has
    an equal share.

    Args:
        cgroup_root: where the control groups are mounted (version 2, or version 1 with its ``cpu`` controller).

    Returns:
        At least 1.
    """
    return max(1, allowed_cpus(cgroup_root) // _learners_here())


def allowed_cpus(cgroup_root: Path = CGROUP_ROOT) -> int:
    """Count the CPUs that this process and its peers may use: the affinity mask, reduced by the container's CPU quota.

    ``os.cpu_count()`` counts the machine's, which may be 64 in a container with a quota of two.

    Args:
        cgroup_root: where the control groups are mounted (version 2, or version 1 with its ``cpu`` controller).

    Returns:
        At least 1.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for group in _own_groups(cgroup_root, "cpu") if (quota := _cpu_quota(group)) is not None]
    return max(1, min([cpus, *(math.ceil(quota) for quota in quotas)]))


def _learners_here() -> int:
    """Learners of one training on this machine, as their launcher says."""
    number = os.environ.get("LOCAL_WORLD_SIZE", "")
    return int(number) if number.isdecimal() and int(number) else 1


def share_of_cpus(num_workers: int) -> int:
    """Threads of each worker process: the CPUs divided by the workers, at most ``OMP_NUM_THREADS`` where that is set.

    Threads without a CPU of their own do not wait for one but spin: two busy processes with two threads each, on two
    CPUs, are several times slower than with one thread each.

    Args:
        num_workers: at least 1.

    Returns:
        At least 1.
    """
    share = max(1, available_cpus() // num_workers)
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list: an entry for each nesting level
    return min(share, int(limit)) if limit.isdecimal() and int(limit) else share


def available_memory(cgroup_root: Path = CGROUP_ROOT) -> int:
    """Count the bytes that can still be allocated: the machine's free memory, reduced by the container's limit.

    Args:
        cgroup_root: where the control groups are mounted.

    Returns:
        Bytes, not negative.
    """
    available = [int(psutil.virtual_memory().available)]
    for group in _own_groups(cgroup_root, "memory"):
        for limit_file, usage_file, cache_key in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, usage = _read_number(group / limit_file), _read_number(group / usage_file)
            if limit is not None and usage is not None:
                # The page cache counts as used, but the kernel frees it on demand.
                available.append(limit - usage + _statistic(group / "memory.stat", cache_key))
    return max(0, min(available))


def resident_memory(pid: int | None) -> int | None:
    """Bytes of memory that a process holds; None if there is no such process."""
    if pid is None:
        return None
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def descriptor_allowance() -> Allowance:
    """How many more file descriptors this process may open."""
    soft, hard = (_finite(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    return Allowance(limit=soft, used=int(psutil.Process().num_fds()), name="ulimit -n", ceiling=hard)


def task_allowances(cgroup_root: Path = CGROUP_ROOT) -> list[Allowance]:
    """How many more threads (a process has at least one) may be started: an entry for each limit.

    Args:
        cgroup_root: where the control groups are mounted.
    """
    found = []
    soft, hard = (_finite(limit) for limit in resource.getrlimit(resource.RLIMIT_NPROC))
    if os.getuid() != 0 and soft < _finite(resource.RLIM_INFINITY):  # the kernel lets root exceed it
        found.append(Allowance(limit=soft, used=_tasks_of_user(os.getuid()), name="ulimit -u", ceiling=hard))
    for group in _own_groups(cgroup_root, "pids"):
        limit, used = _read_number(group / "pids.max"), _read_number(group / "pids.current")
        if limit is not None and used is not None:
            found.append(Allowance(limit=limit, used=used, name=f"{group}/pids.max"))
    return found


def largest_file() -> int:
    """Bytes that a file of this process may have (``ulimit -f``); the kernel treats shared memory as a file."""
    return _finite(resource.getrlimit(resource.RLIMIT_FSIZE)[0])


def _finite(limit: int) -> int:
    return 2**63 - 1 if limit == resource.RLIM_INFINITY else limit


def _tasks_of_user(uid: int) -> int:
    count = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        uids, threads = process.info["uids"], process.info["num_threads"]
        if uids is not None and uids.real == uid:
            count += threads or 1
    return count


def _own_groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups that this process is in, from the innermost outwards.

    In a container the innermost one usually is the root; a SLURM job or a systemd slice is a folder further in.
    """
    yield from dict.fromkeys(_group_folders(root, controller))  # each once


def _group_folders(root: Path, controller: str) -> Iterator[Path]:
    for line in _read(OWN_GROUPS).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":  # version 2: one tree for all controllers
            base = root
        elif controller in controllers.split(","):
            base = root / controller
        else:
            continue
        inside = base / path.lstrip("/")
        yield from (group for group in (inside, *inside.parents) if group.is_relative_to(base))
    yield from (root, root / controller)  # the file may name folders of the host that a container does not see


def _cpu_quota(group: Path) -> float | None:
    """CPUs' worth of time that a control group grants, or None where there is no limit."""
    version_2 = _read(group / "cpu.max").split()
    if len(version_2) == 2 and version_2[0].isdigit():
        return int(version_2[0]) / int(version_2[1])
    quota, period = _read_number(group / "cpu.cfs_quota_us"), _read_number(group / "cpu.cfs_period_us")
    if quota is not None and period:  # "-1" means no limit
        return quota / period
    return None


def _statistic(path: Path, key: str) -> int:
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0


def _read_number(path: Path) -> int | None:
    """The number in a file; None where there is none ("max", "-1", no such file)."""
    text = _read(path)
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
