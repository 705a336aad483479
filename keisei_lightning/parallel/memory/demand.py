"""Does it fit into memory? Slots, published weights, snapshots and worker processes, before any of them is made."""

from __future__ import annotations

from torch import nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.parallel.memory.slots import SlotLayout
from keisei_lightning.parallel.memory.weights import WeightLayout
from keisei_lightning.system.limits import MemoryDemand, WorkerDemand, memory_errors

__all__ = ["check_memory"]


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
    errors = memory_errors(
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
    if errors:
        raise ConfigError(errors)
