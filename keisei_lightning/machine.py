"""What this process may use of the machine: CPUs and memory."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil

__all__ = ["available_cpus", "available_memory", "resident_memory"]

CGROUP_ROOT = Path("/sys/fs/cgroup")


def available_cpus(cgroup_root: Path = CGROUP_ROOT) -> int:
    """Count the CPUs that this process may use: its affinity mask, cut by the container's CPU quota.

    ``os.cpu_count()`` is the machine's, which in a container with a quota of two cores may well be 64.

    Args:
        cgroup_root: where the control groups are mounted (version 2, or version 1 with its ``cpu`` controller).

    Returns:
        At least 1.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(cgroup_root)
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def available_memory(cgroup_root: Path = CGROUP_ROOT) -> int:
    """Count the bytes that can still be allocated: free memory of the machine, cut by the container's limit.

    Args:
        cgroup_root: where the control groups are mounted.

    Returns:
        Bytes, not negative.
    """
    available = int(psutil.virtual_memory().available)
    for limit_file, usage_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        limit, usage = _read(cgroup_root / limit_file), _read(cgroup_root / usage_file)
        if limit.isdigit() and usage.isdigit():
            return max(0, min(available, int(limit) - int(usage)))
    return available


def resident_memory(pid: int | None) -> int | None:
    """Bytes of memory that a process holds; None where there is no such process."""
    if pid is None:
        return None
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def _cpu_quota(root: Path) -> float | None:
    """CPUs' worth of time that the control group grants, or None where there is no limit."""
    version_2 = _read(root / "cpu.max").split()
    if len(version_2) == 2 and version_2[0].isdigit():
        return int(version_2[0]) / int(version_2[1])
    quota, period = _read(root / "cpu/cpu.cfs_quota_us"), _read(root / "cpu/cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit():  # "-1" means no limit
        return int(quota) / int(period)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
