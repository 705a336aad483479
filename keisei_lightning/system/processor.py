"""Which processor this machine has, and what of it matters to numeric programs."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["processor_features", "processor_name"]

_CPU_INFO = Path("/proc/cpuinfo")


def processor_name(cpu_info: Path = _CPU_INFO) -> str:
    """Its model's name, or its kind.

    Args:
        cpu_info: where the kernel tells it (Linux).
    """
    return _entry(cpu_info, "model name") or platform.processor() or platform.machine()


def processor_features(cpu_info: Path = _CPU_INFO) -> frozenset[str]:
    """Its instruction sets in the kernel's words, such as ``avx2``, ``avx512f``, ``amx_bf16``; empty: not known.

    Args:
        cpu_info: where the kernel tells it (Linux).
    """
    return frozenset((_entry(cpu_info, "flags") or _entry(cpu_info, "Features")).split())


def _entry(file: Path, key: str) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
    except OSError:
        return ""
