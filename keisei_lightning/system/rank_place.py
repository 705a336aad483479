"""Which of several learner processes (ranks) this one is, as its launcher says: torchrun, SLURM, or our own.

The variables are those of torch's ``env://`` rendezvous and of ``srun``. Nothing is imported for this: a command that
refuses its configuration must know it too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["LAUNCHED_BY_US", "RankPlace", "in_slurm_job", "present_place"]

LAUNCHED_BY_US = "KEISEI_LAUNCHED"
"""The variable that our own launcher sets for its ranks."""

_BY_HAND = ("bash", "interactive")
"""Names of SLURM jobs in which a person types the commands: Lightning takes them for no launcher either."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankPlace:
    """The place of this process among the ranks of one training.

    Attributes:
        launcher: who has started the ranks.
        rank: of this process, from 0.
        world_size: number of ranks on all machines.
        local_rank: of this process on its machine, from 0.
        local_world_size: number of ranks on this machine.
    """

    launcher: Literal["keisei", "torchrun", "SLURM"]
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int

    @property
    def num_nodes(self) -> int:
        """Number of machines, each with as many ranks as this one."""
        return max(1, self.world_size // self.local_world_size)

    @property
    def is_external(self) -> bool:
        """Whether somebody else has started the ranks: each of them has read the command line for itself."""
        return self.launcher != "keisei"

    @property
    def speaks(self) -> bool:
        """Whether this rank tells what all ranks of its machine find out, such as an error of the configuration."""
        return self.local_rank == 0


def present_place(environment: Mapping[str, str] | None = None) -> RankPlace | None:
    """The place of this process; None: no launcher has started it, or as the only task of a SLURM job.

    Args:
        environment: the variables; None: this process's own.
    """
    env = os.environ if environment is None else environment
    if "TORCHELASTIC_RUN_ID" in env:  # also inside a SLURM job
        return RankPlace(
            launcher="keisei" if LAUNCHED_BY_US in env else "torchrun",
            rank=int(env["RANK"]),
            world_size=int(env["WORLD_SIZE"]),
            local_rank=int(env["LOCAL_RANK"]),
            local_world_size=int(env["LOCAL_WORLD_SIZE"]),
        )
    tasks = int(env.get("SLURM_NTASKS", "1"))
    if tasks == 1 or not in_slurm_job(env) or "SLURM_PROCID" not in env:
        return None
    nodes = int(env.get("SLURM_NNODES", "1"))
    return RankPlace(
        launcher="SLURM",
        rank=int(env["SLURM_PROCID"]),
        world_size=tasks,
        local_rank=int(env["SLURM_LOCALID"]),
        local_world_size=int(env.get("SLURM_NTASKS_PER_NODE", tasks // nodes)),
    )


def in_slurm_job(environment: Mapping[str, str] | None = None) -> bool:
    """Whether ``srun`` has started this process, or a process above it.

    Args:
        environment: the variables; None: this process's own.
    """
    env = os.environ if environment is None else environment
    return "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in _BY_HAND
