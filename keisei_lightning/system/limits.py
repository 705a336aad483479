"""Does it fit this machine? Workers against CPUs, file descriptors and threads; rollouts and weights against memory.

Everything is computed before anything is started, by the command line's validation and by the collector alike, and each
fault shows its arithmetic. The figures of one worker are measured ones (``tests/process/test_limits.py`` holds them).
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass

from keisei_lightning.system.machine import (
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
    "MAX_WORKERS",
    "WORKERS_PER_CPU",
    "MemoryDemand",
    "WorkerDemand",
    "max_workers",
    "memory_errors",
    "most_workers",
    "worker_errors",
]

WORKERS_PER_CPU = 64
"""More worker processes than this for each CPU are taken for a mistake."""

MAX_WORKERS = 1024
"""More worker processes than this are a mistake on any machine."""

DESCRIPTORS_PER_WORKER = 3
"""Of the learner, while a worker lives: its pipe, its sentinel, and the pipe by which it sees the learner's end."""

_DESCRIPTORS_OF_CENTRAL = 2
"""Of the learner, for each worker of ``mode=central``: both ends of the pipe of its answers."""

_MAX_CENTRAL_WORKERS = 200
"""The inference process is handed a descriptor for each, and the fork server passes 256 at most."""

DESCRIPTORS_BESIDES = 32
"""Of the learner beside its workers': at the peak of the start 13 were seen (shared memory, fork server, the worker
that is being started); the rest is for logs, checkpoints and libraries."""

_THREADS_PER_WORKER = 2
"""Of a worker without torch's own: the one that plays, and the one that waits for the learner's end."""

_THREADS_BESIDES = 2
"""Multiprocessing's fork server and resource tracker."""

_PROCESS_BYTES = {"forkserver": 10 * 2**20, "spawn": 220 * 2**20}
"""Memory that a worker has to itself, at the least: a forked one shares the libraries with the fork server."""

_UNIT = 2**20


def max_workers(cpus: int) -> int:
    """The most worker processes that are allowed on this many CPUs."""
    return min(MAX_WORKERS, WORKERS_PER_CPU * cpus)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerDemand:
    """The workers that are asked for.

    Attributes:
        num_workers: W.
        in_processes: whether each is a process (``mode=workers``); else they take turns in the learner.
        start_method: "forkserver", "spawn" or None for the best there is.
        threads_per_worker: torch threads of each; None: the CPUs divided by the workers.
        is_central: another process judges positions for all of them.
    """

    num_workers: int
    in_processes: bool = True
    start_method: str | None = None
    threads_per_worker: int | None = None
    is_central: bool = False

    @property
    def descriptors(self) -> int:
        """Of the learner, for each worker."""
        return DESCRIPTORS_PER_WORKER + (_DESCRIPTORS_OF_CENTRAL if self.is_central else 0)

    @property
    def method(self) -> str:
        """The start method that will be used."""
        # One that is refused elsewhere must not fail here: all errors of a configuration are told together.
        return choose_start_method(self.start_method if self.start_method in START_METHODS else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryDemand:
    """What lies in shared memory.

    Attributes:
        slots_per_worker: rollouts that are stored for each worker.
        games_per_worker: G.
        plies_per_rollout: T.
        bytes_per_ply: of one ply in a slot.
        weight_bytes: of one set of the policy's weights; 0 where that is not known yet.
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
        prefix: of the key in the message, such as ``"parallel."``.

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


def _worker_limits(demand: WorkerDemand) -> list[tuple[int, str]]:
    """Each limit: the most workers that it allows, and why."""
    workers, cpus = demand.num_workers, available_cpus()
    if not demand.in_processes:
        return [(MAX_WORKERS, f"at most {MAX_WORKERS}")]
    limits = [
        (
            max_workers(cpus),
            f"{WORKERS_PER_CPU} for each of the {cpus} CPUs that this process may use, at most {MAX_WORKERS}",
        )
    ]
    if demand.is_central:
        limits.append((_MAX_CENTRAL_WORKERS, f"at most {_MAX_CENTRAL_WORKERS} with one inference process"))
    files = descriptor_allowance()
    needed = demand.descriptors * workers + DESCRIPTORS_BESIDES
    wanted = files.used + needed
    remedy = f"`ulimit -n {wanted}` allows it" if wanted <= files.ceiling else f"the hard limit is {files.ceiling}"
    limits.append(
        (
            (files.free - DESCRIPTORS_BESIDES) // demand.descriptors,
            f"{needed} file descriptors are needed, {demand.descriptors} x {workers} workers + "
            f"{DESCRIPTORS_BESIDES}, and {files.free} are free: {files.name} is {files.limit}, {files.used} are in use"
            f"; {remedy}",
        )
    )
    threads = _threads_of_one(demand, cpus)
    needed = threads * workers + _THREADS_BESIDES + cpus
    for tasks in task_allowances():
        wanted = tasks.used + needed
        remedy = f"; `{tasks.name} {wanted}` allows it" if tasks.limit < wanted <= tasks.ceiling else ""
        limits.append(
            (
                (tasks.free - _THREADS_BESIDES - cpus) // threads,
                f"{needed} threads are needed, {threads} x {workers} workers + {_THREADS_BESIDES + cpus}, and "
                f"{tasks.free} are free: {tasks.name} is {tasks.limit}, {tasks.used} are in use{remedy}",
            )
        )
    return limits


def _threads_of_one(demand: WorkerDemand, cpus: int) -> int:
    torch_threads = demand.threads_per_worker or max(1, cpus // demand.num_workers)
    # A spawned worker imports NumPy anew, whose linear algebra starts a thread for each further CPU.
    return _THREADS_PER_WORKER + torch_threads - 1 + (cpus - 1 if demand.method == "spawn" else 0)


def memory_errors(demand: WorkerDemand, rollouts: MemoryDemand, *, prefix: str = "") -> list[str]:
    """Whether the rollouts, the published weights and the worker processes fit into memory.

    Args:
        demand: the workers that are asked for.
        rollouts: what lies in shared memory.
        prefix: of the key in the message, such as ``"parallel."``.

    Returns:
        No line, or one with the arithmetic.
    """
    workers = demand.num_workers
    per_game = workers * rollouts.slots_per_worker * rollouts.plies_per_rollout * rollouts.bytes_per_ply
    slots = per_game * rollouts.games_per_worker
    sets = workers + 2 + rollouts.num_snapshots
    weights = sets * rollouts.weight_bytes
    processes = workers * _PROCESS_BYTES[demand.method] if demand.in_processes else 0
    needed, available, largest = slots + weights + processes, available_memory(), largest_file()
    most, why = (available - weights - processes) // per_game, f"{_size(available)} are free"
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
    if processes:
        parts.append(f"processes {_size(processes)} = {workers} workers x {_size(_PROCESS_BYTES[demand.method])}")
    fits = most >= 1 and weights <= largest
    allowed = f"must be from 1 to {most}" if fits else f"nothing fits with {prefix}num_workers={workers}"
    return [
        f"{prefix}games_per_worker={rollouts.games_per_worker}: {allowed} ({_size(needed)} of memory are needed and "
        f"{why}: {', '.join(parts)})"
    ]


def _size(num_bytes: int) -> str:
    if num_bytes < _UNIT:
        return f"{num_bytes / 2**10:.1f} KiB"
    return f"{num_bytes / _UNIT:.1f} MiB" if num_bytes < 10 * 2**30 else f"{num_bytes / 2**30:.1f} GiB"
