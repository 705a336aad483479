"""Checks of the collector's arguments: everything that cannot work is named before anything starts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.models.compiling import check_compile_mode
from keisei_lightning.parallel.memory.slots import SlotLayout
from keisei_lightning.parallel.memory.weights import WeightLayout
from keisei_lightning.parallel.options import MAX_GROUPS
from keisei_lightning.system.limits import MemoryDemand, WorkerDemand, memory_errors, worker_errors

__all__ = ["MIN_HEARTBEAT_S", "check_memory", "check_options"]

MIN_HEARTBEAT_S = 0.5
"""Below this, an idle worker, which shows life four times a second, could be taken for a hung one."""

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "mode": ("serial", "workers", "central"),
    "schedule": ("sync", "async"),
    "start_method": (None, "forkserver", "spawn"),
    "worker_precision": ("32-true", "bf16-mixed"),
}
_LOWEST = {
    "num_workers": 1,
    "games_per_worker": 1,
    "plies_per_rollout": 1,
    "max_policy_lag": 0,
    "slots_per_worker": 1,
    "groups_per_worker": 1,
    "max_restarts": 0,
    "min_healthy_workers": 0,
    "total_frames": -1,
    "seed": 0,
}
_DURATIONS = ("heartbeat_s", "start_timeout_s", "shutdown_timeout_s", "restart_window_s", "restart_backoff_s")


def check_options(options: Mapping[str, Any]) -> None:
    """Check the collector's arguments, all of them, and whether this machine can run so many workers.

    Raises:
        ConfigError: with a line for each fault.
    """
    faults = [
        f"{key}={options[key]}: must be one of {', '.join(map(str, choices))}"
        for key, choices in _CHOICES.items()
        if options[key] not in choices
    ]
    faults += [
        f"{key}={options[key]}: must be a whole number, at least {lowest}"
        for key, lowest in _LOWEST.items()
        if not _is_whole(options[key]) or options[key] < lowest
    ]
    faults += [
        f"{key}={options[key]}: must be above 0 seconds, and finite"
        for key in _DURATIONS
        if not _is_number(options[key]) or not 0 < options[key] < math.inf
    ]
    heartbeat, threads = options["heartbeat_s"], options["threads_per_worker"]
    if _is_number(heartbeat) and 0 < heartbeat < MIN_HEARTBEAT_S:
        faults.append(f"heartbeat_s={heartbeat}: must be at least {MIN_HEARTBEAT_S} seconds")
    if threads is not None and (not _is_whole(threads) or threads < 1):
        faults.append(f"threads_per_worker={threads}: must be at least 1, or None")
    if options["drop_oldest"] and options["schedule"] == "sync":
        faults.append("drop_oldest=True: must be False with schedule=sync (no more than one batch ever waits)")
    if _is_whole(options["groups_per_worker"]) and options["groups_per_worker"] > MAX_GROUPS:
        faults.append(f"groups_per_worker={options['groups_per_worker']}: must be at most {MAX_GROUPS}")
    faults += _device_errors(options["worker_device"])
    faults += check_compile_mode("compile_mode", options["compile_mode"], options["policy"])
    if not faults:
        faults += _crew_errors(options)
    if faults:
        raise ConfigError(faults)


def check_memory(
    layout: SlotLayout,
    *,
    policy: nn.Module | None = None,
    num_snapshots: int = 0,
    mode: str = "serial",
    start_method: str | None = None,
) -> None:
    """Check that the slots, the published weights, the snapshots and the worker processes fit into memory.

    Args:
        layout: of the slots.
        policy: its weights are published; None leaves them out.
        num_snapshots: sets of its weights in the opponent pool.
        mode: of the collector; "workers" adds what the processes take.
        start_method: of the processes.

    Raises:
        ConfigError: with the arithmetic.
    """
    faults = memory_errors(
        WorkerDemand(num_workers=layout.num_workers, in_processes=mode != "serial", start_method=start_method),
        MemoryDemand(
            slots_per_worker=layout.num_slots,
            games_per_worker=layout.num_games,
            plies_per_rollout=layout.num_plies,
            bytes_per_ply=layout.bytes_per_ply,
            weight_bytes=0 if policy is None else WeightLayout.of(policy).num_bytes,
            num_snapshots=num_snapshots,
        ),
    )
    if faults:
        raise ConfigError(faults)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _device_errors(device: Any) -> list[str]:
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        return [f"worker_device={device}: must be auto, cpu or cuda:N"]
    count = torch.cuda.device_count() if device.startswith("cuda") else 0
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= count:
        return [f"worker_device={device}: must be {f'cuda:0 to cuda:{count - 1}' if count else 'cpu (no GPU here)'}"]
    return []


def _crew_errors(options: Mapping[str, Any]) -> list[str]:
    workers = options["num_workers"]
    if options["min_healthy_workers"] > workers:
        return [f"min_healthy_workers={options['min_healthy_workers']}: must be at most num_workers={workers}"]
    return worker_errors(
        WorkerDemand(
            num_workers=workers,
            in_processes=options["mode"] != "serial",
            start_method=options["start_method"],
            threads_per_worker=options["threads_per_worker"],
            is_central=options["mode"] == "central",
        )
    )
