"""Processor, memory, limits, threads, GPU and disk: what a training may use here, by the code that it asks itself."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import psutil

from keisei_lightning.commands.doctor.findings import Finding, note, ok, problem
from keisei_lightning.system.limits import WorkerDemand, max_workers, most_workers, worker_errors
from keisei_lightning.system.machine import (
    allowed_cpus,
    available_memory,
    descriptor_allowance,
    largest_file,
    task_allowances,
)
from keisei_lightning.system.openmp import SETTINGS, USER_VARIABLES, cpu_time
from keisei_lightning.system.paths import path_errors
from keisei_lightning.system.processor import processor_features, processor_name

__all__ = ["check_disk", "check_gpu", "check_limits", "check_memory", "check_processor", "check_threads"]

Probe = Mapping[str, Mapping[str, Any]]

_SHOWN_FEATURES: Final = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
_IN_BF16: Final = "trainer.precision=bf16-mixed parallel.worker_precision=bf16-mixed"
_MEBI, _GIBI = 2**20, 2**30
_SHARED: Final = Path("/dev/shm")
_LOOK_S: Final = 0.5
_BUSY_SHARE: Final = 0.25  # of the CPUs
_LEAST_DISK = 2 * _GIBI


def check_processor(probe: Probe) -> Iterator[Finding]:
    """Its model, what torch makes of it, how many CPUs may be used, and who else uses them."""
    yield ok("processor", "model", processor_name())
    features = processor_features()
    shown = [name for name in _SHOWN_FEATURES if name in features]
    if features:
        # The one that was measured (docs/results/speed.md); processors with AMX have it too.
        meaning = f"training in bf16 is quicker on it: {_IN_BF16}" if "avx512_bf16" in features else ""
        yield ok("processor", "features", ", ".join(shown) or "none of " + ", ".join(_SHOWN_FEATURES), meaning)
    kernels = probe.get("torch", {}).get("kernels")
    if kernels == "DEFAULT" and "avx2" in features:
        meaning = "torch does not use this processor's vector instructions: learning is far slower than it can be"
        yield note("processor", "torch's kernels", kernels, meaning, "unset ATEN_CPU_CAPABILITY")
    elif kernels:
        yield ok("processor", "torch's kernels", kernels)
    cpus, machine = allowed_cpus(), os.cpu_count() or 1
    if cpus < machine:
        meaning = f"a CPU quota or an affinity mask allows {cpus}; parallel.num_workers=auto starts that many workers"
        mend = "docker run --cpus=N ...  # or: taskset -cp CPUS $$"
        yield note("processor", "CPUs", f"{cpus} of {machine}", meaning, mend)
    else:
        yield ok("processor", "CPUs", str(cpus))
    busy = psutil.cpu_percent(interval=_LOOK_S) / 100 * machine
    load = os.getloadavg()[0]
    value = f"{busy:.1f} CPUs busy just now, load {load:.1f}"
    if max(busy, load) > _BUSY_SHARE * cpus:
        meaning = "other programs use these CPUs: training is slower, and speeds that are measured now say little"
        yield note("processor", "neighbours", value, meaning, "top")
    else:
        yield ok("processor", "neighbours", value)


def check_memory(probe: Probe) -> Iterator[Finding]:
    """Memory, and whether shared memory is limited by /dev/shm (it is not)."""
    free, total = available_memory(), int(psutil.virtual_memory().total)
    value = f"{free / _GIBI:.1f} GiB free of {total / _GIBI:.1f} GiB"
    of_libraries = probe.get("memory", {}).get("bytes", 0)
    needs = f"to import torch and Lightning alone took {of_libraries / _MEBI:.0f} MiB here"
    if free < 1.5 * of_libraries:
        meaning = f"{needs}: the kernel may end a training for want of memory"
        yield problem("memory", "memory", value, meaning, "ps aux --sort=-rss | head")
    elif free < 4 * of_libraries:
        meaning = f"{needs}: a training fits if its games are few (parallel.games_per_worker)"
        yield note("memory", "memory", value, meaning, "ps aux --sort=-rss | head")
    else:
        yield ok("memory", "memory", value)
    if free < int(psutil.virtual_memory().available) - 64 * _MEBI:
        meaning = "a control group has less than the machine; a training that needs more is refused before it starts"
        yield note("memory", "control group", f"{free / _GIBI:.1f} GiB free", meaning, "docker run --memory=N ...")
    if _SHARED.is_dir():
        size = shutil.disk_usage(_SHARED)
        value = f"{size.free / _MEBI:,.0f} MiB free of {size.total / _MEBI:,.0f} MiB"
        if hasattr(os, "memfd_create"):
            meaning = "its size does not matter: workers share memory without a name (memfd); Ray alone uses /dev/shm"
            yield ok("memory", "/dev/shm", value, meaning)
        else:
            yield ok("memory", "/dev/shm", value)


def check_limits() -> Iterator[Finding]:
    """What the shell and control groups allow: workers, files, threads, the size of a file."""
    cpus = allowed_cpus()
    demand = WorkerDemand(num_workers=cpus)
    if errors := worker_errors(demand):
        yield problem("limits", "workers", errors[0], f"not even a worker for each of the {cpus} CPUs can be started")
    else:
        most = most_workers(WorkerDemand(num_workers=max_workers(cpus)))
        yield ok("limits", "workers", f"up to {most} may be started")
    files = descriptor_allowance()
    value = f"{files.free:,} more of {files.limit:,}"
    if files.free < 256:
        mend = f"{files.name} {min(files.ceiling or 4096, 4096)}"
        yield note("limits", "open files", value, "few workers fit, and Ray and browsers need many", mend)
    else:
        yield ok("limits", "open files", value)
    for tasks in task_allowances():
        value = f"{tasks.free:,} more of {tasks.limit:,} ({tasks.name})"
        if tasks.free < 64 * cpus:
            meaning = "threads and processes of workers may not be started"
            yield note("limits", "threads", value, meaning, f"ulimit -u {tasks.ceiling}" if tasks.ceiling else "")
        else:
            yield ok("limits", "threads", value)
    if (size := largest_file()) < 2**62:
        meaning = "shared memory and checkpoints may not be larger than this"
        yield note("limits", "size of a file", f"{size / _MEBI:,.0f} MiB (ulimit -f)", meaning, "ulimit -f unlimited")
    nice = os.nice(0)
    if nice > 0:
        yield note("limits", "niceness", str(nice), "every other program goes first", "renice -n 0 -p $$  # as root")


def check_threads() -> Iterator[Finding]:
    """OpenMP: how many threads, and how they wait for one another."""
    limit, cpus = os.environ.get("OMP_NUM_THREADS", ""), allowed_cpus()
    first = limit.partition(",")[0].strip()
    if first.isdecimal() and 0 < int(first) < cpus:
        meaning = f"torch learns with {first} of {cpus} CPUs"
        yield note("threads", "OMP_NUM_THREADS", limit, meaning, "unset OMP_NUM_THREADS")
    else:
        yield ok("threads", "OMP_NUM_THREADS", limit or "not set")
    environment = {name: os.environ[name] for name in USER_VARIABLES if name in os.environ}
    chosen = {name: text for name, text in environment.items() if text != SETTINGS.get(name)}
    if chosen:
        value = ", ".join(f"{name}={text}" for name, text in chosen.items())
        meaning = "how threads wait is your choice, and stays; threads that spin are slow on a busy machine"
        yield note("threads", "waiting", value, meaning, f"unset {' '.join(chosen)}")
    elif sys.platform == "linux" and cpu_time() is None:
        meaning = "this kernel does not tell how long threads wait for CPUs: on a busy machine they may spin"
        yield note("threads", "waiting", "not governed", meaning, "export OMP_WAIT_POLICY=passive")
    else:
        yield ok("threads", "waiting", "governed: threads spin on an idle machine and sleep on a busy one")


def check_gpu(probe: Probe) -> Iterator[Finding]:
    """NVIDIA's driver, its GPUs, and whether torch's build can use them."""
    torch, driver, found = probe.get("torch", {}), _driver(), _nvidia_smi("name,memory.total")
    if driver is None and not torch.get("devices"):
        if torch.get("cuda"):
            meaning = f"torch is built for CUDA {torch['cuda']}, which takes gigabytes of disk and is of no use here"
            yield ok("GPU", "GPU", "none", meaning)
        else:
            yield ok("GPU", "GPU", "none; training runs on the CPU")
        return
    if driver is not None:
        yield ok("GPU", "driver", driver)
    for name in found or [f"{one['name']}, {one['bytes'] / _GIBI:.0f} GiB" for one in torch.get("devices", [])]:
        yield ok("GPU", "device", name)
    if not torch:
        return
    if not torch.get("cuda"):
        meaning = "torch is the CPU build: trainer=gpu is refused"
        mend = f"{sys.executable} -m pip install --force-reinstall torch  # from pytorch.org's index for your CUDA"
        yield note("GPU", "torch's build", torch["version"], meaning, mend)
    elif error := torch.get("cuda_error") or ("" if torch["devices"] else "torch sees no device"):
        meaning = "the driver is older than torch's CUDA, or this build has no kernels for this GPU: trainer=gpu fails"
        mend = "nvidia-smi  # shows the newest CUDA of the driver; install torch for that, or a newer driver"
        yield problem("GPU", "torch's build", f"CUDA {torch['cuda']}: {error}", meaning, mend)
    else:
        yield ok("GPU", "torch's build", f"CUDA {torch['cuda']}, {len(torch['devices'])} in use by it")


def _driver() -> str | None:
    """Version of NVIDIA's driver; None: there is none."""
    with contextlib.suppress(OSError):
        if found := re.search(r"\d+\.\d+(\.\d+)?", Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")):
            return found[0]
    return next(iter(_nvidia_smi("driver_version")), None)


def _nvidia_smi(query: str) -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
        return [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return []


def check_disk(folder: str) -> Iterator[Finding]:
    """Whether results can be written, and how much of them.

    Args:
        folder: of the results.
    """
    if errors := list(path_errors("folder", folder)):
        yield problem("disk", "results", errors[0], "no training can start", "keisei train results_dir=FOLDER ...")
        return
    place = Path(folder).absolute()
    there = next(parent for parent in (place, *place.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    value = f"{there}: {free / _GIBI:.1f} GiB free"
    if free < _LEAST_DISK:
        meaning = "a training that cannot save a checkpoint goes on without one, or fails"
        yield note("disk", "results", value, meaning, "keisei runs disk")
    else:
        yield ok("disk", "results", value)
