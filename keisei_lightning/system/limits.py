"""Does it fit this machine? Workers against CPUs, file descriptors and threads; rollouts and weights against memory.

Everything is computed before anything is started, and each error shows its arithmetic. The figures of one worker are
measured (``tests/process/test_limits.py`` holds them).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass

from keisei_lightning.system.machine import (
    Allowance,
    available_cpus,
    available_memory,
    descriptor_allowance,
    largest_file,
    task_allowances,
)
from keisei_lightning.system.start_method import START_METHODS, choose_start_method

__all__ = [
    "DESCRIPTORS_BESIDES",
    "DESCRIPTORS_PER_WORKER",
    "MemoryDemand",
    "WorkerDemand",
    "max_workers",
    "memory_errors",
    "most_workers",
    "worker_errors",
]

_WORKERS_PER_CPU = 64  # more worker processes than this for each CPU are taken for a mistake
_MAX_WORKERS = 1024  # more than this are a mistake on any machine
_MAX_CENTRAL_WORKERS = 200  # each is a descriptor of the inference process, and the fork server passes 256 at most

DESCRIPTORS_PER_WORKER = 3
"""Descriptors of the learner for each worker: a pipe, a sentinel, and the pipe that tells the worker of its end."""

_DESCRIPTORS_OF_CENTRAL = 2  # more, for each worker of ``mode=central``: both ends of the pipe of its answers

DESCRIPTORS_BESIDES = 32
"""Descriptors of the learner beside its workers': 13 were seen at the peak of the start (shared memory, fork server,
the worker that is being started); the rest is for logs, checkpoints and libraries."""

_THREADS_PER_WORKER = 2  # beside torch's own: the one that plays, and the one that waits for the learner's end
_THREADS_BESIDES = 2  # of multiprocessing's fork server and resource tracker
_PROCESS_BYTES = {"forkserver": 10 * 2**20, "spawn": 220 * 2**20}  # a worker's own; a forked one shares the libraries


def max_workers(cpus: int) -> int:
    """The most worker processes that are allowed on this many CPUs."""
    return min(_MAX_WORKERS, _WORKERS_PER_CPU * cpus)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerDemand:
    """The workers that are asked for.

    Attributes:
        num_workers: W.
        in_processes: whether each is a process (``mode=workers``); else they take turns in the learner.
        start_method: "forkserver", "spawn" or None for the best there is.
        threads_per_worker: torch threads of each; None: the CPUs divided by the workers.
        is_central: another process evaluates positions for all of them.
    """

    num_workers: int
    in_processes: bool = True
    start_method: str | None = None
    threads_per_worker: int | None = None
    is_central: bool = False

    @property
    def method(self) -> str:
        """The start method that will be used."""
        # One that is refused elsewhere must not fail here: all errors of a configuration are reported together.
        return choose_start_method(self.start_method if self.start_method in START_METHODS else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryDemand:
    """The shared memory that is asked for.

    Attributes:
        slots_per_worker: rollouts that are stored for each worker.
        games_per_worker: G.
        plies_per_rollout: T.
        bytes_per_ply: bytes of one ply in a slot.
        weight_bytes: bytes of one set of the policy's weights; 0 where that is not known yet.
        num_snapshots: sets of weights in the opponent pool.
    """

    slots_per_worker: int
    games_per_worker: int
    plies_per_rollout: int
    bytes_per_ply: int
    weight_bytes: int = 0
    num_snapshots: int = 0


def worker_errors(demand: WorkerDemand, *, prefix: str = "") -> list[str]:
    """Whether so many workers can run here.

    Args:
        demand: the workers that are asked for.
        prefix: text before the option's name in the message, such as ``"parallel."``.

    Returns:
        No line, or one with the tightest limit and the arithmetic of each limit that is exceeded.
    """
    if demand.in_processes and multiprocessing.current_process().daemon:
        return [
            f"{prefix}mode={'central' if demand.is_central else 'workers'}: must be serial here: a daemonic process, "
            "such as a worker of multiprocessing.Pool, may not start processes (one of ProcessPoolExecutor may)"
        ]
    exceeded = [(most, why) for most, why in _worker_limits(demand) if demand.num_workers > most]
    if not exceeded:
        return []
    most = min(most for most, _ in exceeded)
    allowed = f"must be from 1 to {most}" if most > 0 else "not even one worker can be started"
    return [f"{prefix}num_workers={demand.num_workers}: {allowed} ({'; '.join(why for _, why in exceeded)})"]


def most_workers(demand: WorkerDemand) -> int:
    """The most workers that can run here, at least 1 (which :func:`worker_errors` may still refuse).

    Args:
        demand: the workers that would be asked for.
    """
    return max(1, min([demand.num_workers, *(most for most, _ in _worker_limits(demand))]))


def _worker_limits(demand: WorkerDemand) -> Iterator[tuple[int, str]]:
    """Each limit: the most workers that it allows, and why."""
    if not demand.in_processes:
        yield _MAX_WORKERS, f"at most {_MAX_WORKERS}"
        return
    cpus = available_cpus()
    why = f"{_WORKERS_PER_CPU} for each of the {cpus} CPUs that this process may use, at most {_MAX_WORKERS}"
    yield max_workers(cpus), why
    if demand.is_central:
        yield _MAX_CENTRAL_WORKERS, f"at most {_MAX_CENTRAL_WORKERS} with one inference process"
    descriptors = DESCRIPTORS_PER_WORKER + (_DESCRIPTORS_OF_CENTRAL if demand.is_central else 0)
    yield _counted_limit(demand, "file descriptors", descriptors, DESCRIPTORS_BESIDES, descriptor_allowance())
    threads = _THREADS_PER_WORKER + (demand.threads_per_worker or max(1, cpus // demand.num_workers)) - 1
    if demand.method == "spawn":
        threads += cpus - 1  # a spawned worker imports NumPy anew, whose linear algebra has a thread for each CPU
    for allowance in task_allowances():
        yield _counted_limit(demand, "threads", threads, _THREADS_BESIDES + cpus, allowance)


def _counted_limit(demand: WorkerDemand, what: str, each: int, besides: int, allowance: Allowance) -> tuple[int, str]:
    """The most workers that an allowance suffices for, and the sum; each takes ``each``, all others ``besides``."""
    workers, free = demand.num_workers, allowance.free
    needed = each * workers + besides
    return (free - besides) // each, (
        f"{needed} {what} are needed, {each} x {workers} workers + {besides}, and {free} are free: "
        f"{allowance.name} is {allowance.limit}, {allowance.used} are in use{allowance.remedy(needed)}"
    )


def memory_errors(demand: WorkerDemand, rollouts: MemoryDemand, *, prefix: str = "") -> list[str]:
    """Whether the rollouts, the published weights and the worker processes fit into memory.

    Args:
        demand: the workers that are asked for.
        rollouts: the shared memory that is asked for.
        prefix: text before the option's name in the message, such as ``"parallel."``.

    Returns:
        No line, or one with the arithmetic.
    """
    workers = demand.num_workers
    per_game = workers * rollouts.slots_per_worker * rollouts.plies_per_rollout * rollouts.bytes_per_ply
    slots = per_game * rollouts.games_per_worker
    weights = (workers + 2 + rollouts.num_snapshots) * rollouts.weight_bytes
    process = _PROCESS_BYTES[demand.method] if demand.in_processes else 0
    needed, available, largest = slots + weights + workers * process, available_memory(), largest_file()
    most, why = (available - weights - workers * process) // per_game, f"{_size(available)} are free"
    if largest < max(slots, weights):
        most, why = min(most, largest // per_game), f"{why}, and a file may have {_size(largest)} (ulimit -f)"
    elif needed <= available:
        return []
    parts = [
        f"slots {_size(slots)} = {workers} workers x {rollouts.slots_per_worker} slots x {rollouts.games_per_worker} "
        f"games x {rollouts.plies_per_rollout} plies x {rollouts.bytes_per_ply} bytes"
    ]
    if weights:
        snapshots = f" + {rollouts.num_snapshots} snapshots" if rollouts.num_snapshots else ""
        parts.append(f"weights {_size(weights)} = ({workers} workers + 2{snapshots}) x {_size(rollouts.weight_bytes)}")
    if process:
        parts.append(f"processes {_size(workers * process)} = {workers} workers x {_size(process)}")
    fits = most >= 1 and weights <= largest
    allowed = f"must be from 1 to {most}" if fits else f"nothing fits with {prefix}num_workers={workers}"
    return [
        f"{prefix}games_per_worker={rollouts.games_per_worker}: {allowed} ({_size(needed)} of memory are needed and "
        f"{why}: {', '.join(parts)})"
    ]


def _size(num_bytes: int) -> str:
    if num_bytes < 2**20:
        return f"{num_bytes / 2**10:.1f} KiB"
    return f"{num_bytes / 2**20:.1f} MiB" if num_bytes < 10 * 2**30 else f"{num_bytes / 2**30:.1f} GiB"
