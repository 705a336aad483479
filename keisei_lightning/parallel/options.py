"""Checks of the collector's arguments: everything that cannot work is named before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keisei_lightning.errors import ConfigError
from keisei_lightning.machine import available_memory
from keisei_lightning.parallel.transport import SlotLayout

__all__ = ["MIN_HEARTBEAT_S", "check_memory", "check_options"]

MIN_HEARTBEAT_S = 0.5
"""Below this, an idle worker, which shows life four times a second, could be taken for a hung one."""


def check_options(options: Mapping[str, Any]) -> None:
    """Check the collector's arguments, all of them.

    Raises:
        ConfigError: with a line for each fault.
    """
    faults = []
    for key, choices in {
        "mode": ("serial", "workers"),
        "schedule": ("sync", "async"),
        "start_method": (None, "forkserver", "spawn"),
    }.items():
        if options[key] not in choices:
            faults.append(f"{key}={options[key]}: must be one of {', '.join(map(str, choices))}")
    for key, lowest in {
        "num_workers": 1,
        "games_per_worker": 1,
        "plies_per_rollout": 1,
        "max_policy_lag": 0,
        "slots_per_worker": 1,
        "max_restarts": 0,
        "min_healthy_workers": 0,
        "total_frames": -1,
        "seed": 0,
    }.items():
        if not isinstance(options[key], int) or options[key] < lowest:
            faults.append(f"{key}={options[key]}: must be a whole number, at least {lowest}")
    durations = ("heartbeat_s", "start_timeout_s", "shutdown_timeout_s", "restart_window_s", "restart_backoff_s")
    faults += [f"{key}={options[key]}: must be above 0 seconds" for key in durations if not options[key] > 0]
    if 0 < options["heartbeat_s"] < MIN_HEARTBEAT_S:
        faults.append(f"heartbeat_s={options['heartbeat_s']}: must be at least {MIN_HEARTBEAT_S} seconds")
    if options["threads_per_worker"] is not None and options["threads_per_worker"] < 1:
        faults.append(f"threads_per_worker={options['threads_per_worker']}: must be at least 1, or None")
    if not faults and options["min_healthy_workers"] > options["num_workers"]:
        faults.append(
            f"min_healthy_workers={options['min_healthy_workers']}: "
            f"must be at most num_workers={options['num_workers']}"
        )
    if faults:
        raise ConfigError(faults)


def check_memory(layout: SlotLayout) -> None:
    """Check that the slots fit into memory.

    Raises:
        ConfigError: with the arithmetic.
    """
    available = available_memory()
    if layout.num_bytes > available:
        raise ConfigError(
            f"slots need {layout.num_bytes / 2**20:.0f} MiB = num_workers {layout.num_workers} x slots_per_worker "
            f"{layout.num_slots} x games_per_worker {layout.num_games} x plies_per_rollout {layout.num_plies} x "
            f"{layout.bytes_per_ply} bytes a ply, but {available / 2**20:.0f} MiB are available"
        )
