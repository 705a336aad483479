"""Options of the collector, in groups, and what does not go together. Needs no torch and no game."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from keisei_lightning.system.compile_modes import CompileMode
from keisei_lightning.system.devices import DEVICE_NAMES, DEVICE_PATTERN
from keisei_lightning.system.limits import WorkerDemand, most_workers, worker_errors
from keisei_lightning.system.machine import available_cpus
from keisei_lightning.system.options import Options, option
from keisei_lightning.system.start_method import StartMethod

__all__ = [
    "MAX_GROUPS",
    "BatchOptions",
    "ClusterOptions",
    "CollectorOptions",
    "Mode",
    "OpponentOptions",
    "Placement",
    "Schedule",
    "SupervisionOptions",
    "WeightCompression",
    "WeightDtype",
    "WorkerOptions",
    "agent_needs",
    "collector_errors",
    "least_agents",
    "with_number_of_workers",
    "worker_demand",
]

Mode = Literal["serial", "workers", "central", "ray"]
Schedule = Literal["sync", "async"]
Placement = Literal["spread", "strict_spread", "pack"]
WeightDtype = Literal["float32", "bfloat16"]
WeightCompression = Literal["none", "zstd"]

MAX_GROUPS: Final = 16
"""Of a worker's games, each with a random stream of its own."""

_SPARE_BUFFERS: Final = 4
"""Snapshots that have left the ring and that games still need; with more of them, a push is put off."""


@dataclass(frozen=True, kw_only=True)
class CollectorOptions(Options):
    """What is played, by how many workers, and how it is delivered."""

    mode: Mode = option(
        "workers",
        "workers: a policy copy in each worker process; central: workers only play moves, and one process evaluates "
        "positions for all of them (for an accelerator); serial: no process, the same results as workers; ray: the "
        "workers of several machines, each with a node agent, on a Ray cluster (extra: ray).",
    )
    schedule: Schedule = option(
        "sync", "sync: collect, train, publish (on-policy); async: collect while training, with a bounded lag."
    )
    num_workers: int | Literal["auto"] = option(
        1,
        "Worker processes, with ray those of each node agent; auto: one for each CPU that this process may use (with "
        "ray, that an agent has), or fewer where the machine allows fewer. "
        "The inference process, or with async a learner on a GPU, keeps one CPU; with async a learner on the CPU keeps "
        "three of four.",
        low=1,
    )
    games_per_worker: int = option(64, "Games that a worker plays at once.", low=1, high=65_536)
    plies_per_rollout: int = option(32, "Plies of each game in one batch.", low=1, high=65_536)
    max_policy_lag: int = option(
        2, "Rollouts that are more published versions than this behind the latest one are refused.", low=0
    )
    slots_per_worker: int = option(
        2, "Rollouts stored for each worker; with async, a worker plays on while one is free.", low=1, high=64
    )
    drop_oldest: bool = option(
        False,
        "With async: deliver the newest of the waiting rollouts, and drop (and count) the others. Otherwise workers "
        "wait for the learner, and nothing is dropped.",
    )
    stagger_games: bool = option(
        True, "Begin the first games somewhere in their course, so that every batch holds all phases of a game."
    )
    augment_symmetry: bool = option(False, "Play half of the games in the game's mirror image.")


@dataclass(frozen=True, kw_only=True)
class WorkerOptions(Options):
    """How a worker process (with ``mode="central"``, the inference process) runs the policy."""

    start_method: StartMethod | None = option(
        None, "How processes are started; null: forkserver where there is one, spawn elsewhere."
    )
    worker_device: str = option(
        "cpu",
        "Device of the workers' policy, or of the inference process's; auto: CUDA devices in turn, else the CPU.",
        pattern=DEVICE_PATTERN,
        form=DEVICE_NAMES,
    )
    worker_precision: Literal["32-true", "bf16-mixed"] = option(
        "32-true",
        "Precision of the policy's arithmetic there. It should be the learner's: train/first_ratio shows the "
        "difference.",
    )
    compile_mode: CompileMode | None = option(
        None, "Mode of torch.compile for the network there, compiled when a worker starts; null: not compiled."
    )
    threads_per_worker: int | None = option(
        None,
        "Torch threads of a worker, or of the inference process; null: its share of the CPUs (with async, of half of "
        "them), at most OMP_NUM_THREADS.",
        low=1,
        high=1024,
    )
    groups_per_worker: int = option(
        2,
        "With central: a worker plays the moves of one group of its games while the positions of another are "
        "evaluated.",
        low=1,
        high=MAX_GROUPS,
    )


@dataclass(frozen=True, kw_only=True)
class SupervisionOptions(Options):
    """How long to wait for workers, and how often to replace one."""

    # An idle worker shows life four times a second: with less it could be taken for a hung one.
    heartbeat_s: float = option(10.0, "Seconds of silence after which a worker is hung, and replaced.", low=0.5)
    start_timeout_s: float = option(120.0, "Seconds in which every worker must become ready.", above=0)
    shutdown_timeout_s: float = option(10.0, "Seconds in which workers may end by themselves, before a kill.", above=0)
    max_restarts: int = option(
        5, "Restarts of one worker within restart_window_s; the next death ends the training.", low=0
    )
    restart_window_s: float = option(300.0, "Seconds of the sliding window of max_restarts.", above=0)
    restart_backoff_s: float = option(
        0.5,
        "Seconds before a restart after a short life; doubled for each further consecutive one, up to 30.",
        above=0,
    )
    min_healthy_workers: int = option(
        0, "With fewer workers alive the training ends; 0: only when a worker's restarts are used up.", low=0
    )


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(Options):
    """With ``mode="ray"``: where the node agents run, and how weights reach them.

    A node agent is a Ray actor that supervises the workers of one machine, as the learner supervises its own.
    """

    num_agents: int | Literal["auto"] = option(
        "auto",
        "With ray: node agents. Where there are fewer nodes the others wait for one to join; auto: one for each node "
        "that has the resources when the collector is made.",
        low=1,
        high=1024,
    )
    ray_address: str | None = option(
        None,
        "With ray: the cluster to use; null: one on this machine, which is started and stopped with the training (or "
        "the one that the program is connected to); auto: the one that RAY_ADDRESS or this machine knows.",
        pattern=r"auto|(?!ray://)[^\s/]+:\d+",
        form="auto or HOST:PORT of the cluster's head (Ray Client, ray://, is not supported)",
    )
    placement: Placement = option(
        "spread",
        "With ray: spread: an agent goes to the node with the fewest; strict_spread: never two to one node; pack: as "
        "many to one node as fit.",
    )
    cpus_per_agent: float | None = option(
        None, "With ray: CPUs that an agent's workers reserve; null: one for each worker.", low=0
    )
    gpus_per_agent: float = option(0.0, "With ray: GPUs that an agent's workers reserve.", low=0)
    agent_resources: dict[str, Any] = option(
        factory=dict, sentence="With ray: amounts of custom resources that an agent reserves, by name."
    )
    standby_agents: bool = option(
        False,
        "With ray: beside each agent another process waits on its node, with everything imported, and takes over at "
        "once when the agent dies; it costs memory (not with gpus_per_agent).",
    )
    object_store_memory_mb: int | None = option(
        None,
        "With ray: MiB of the object store of a cluster that is started here; null: what rollouts and weights in "
        "flight need.",
        low=80,
    )
    weight_dtype: WeightDtype = option(
        "float32",
        "With ray: type of float32 parameters on their way to the nodes; bfloat16 halves the bytes, and the workers "
        "play with rounded weights.",
    )
    weight_compression: WeightCompression = option(
        "none", "With ray: compression of weights on their way to the nodes."
    )


@dataclass(frozen=True, kw_only=True)
class OpponentOptions(Options):
    """Games against frozen snapshots of the policy, and other members of a league.

    Raises:
        ConfigError: with a line for each value that is not legal.
    """

    share: float = option(
        0.5, "Share of the games that are against opponents; the others are self-play.", above=0, high=1
    )
    max_snapshots: int = option(12, "Size of the ring of snapshots; the oldest one leaves it first.", low=1, high=1024)
    # Prioritised: in proportion to (1 - score) ** 2, where the score is the learner's points per game against a
    # snapshot (Vinyals et al. 2019, "Grandmaster level in StarCraft II", prioritised fictitious self-play, f_hard with
    # p = 2); where every score is 1, uniform, as in that paper's pseudocode.
    choice: Literal["uniform", "prioritised"] = option(
        "uniform", "uniform: any opponent; prioritised: more often one that the learner does badly against."
    )
    player_share: float | None = option(
        None,
        "With a league: share of the games against opponents that are against its players; null: each member counts "
        "alike.",
        low=0,
        high=1,
    )
    turn_timeout_s: float = option(
        300.0,
        "With a league: seconds that a player may take for its moves on all boards; then its worker is hung, and "
        "replaced. (An engine has a shorter limit of its own, which costs only a game.)",
        above=0,
    )

    @property
    def num_buffers(self) -> int:
        """Sets of weights in shared memory."""
        return self.max_snapshots + _SPARE_BUFFERS


@dataclass(frozen=True, kw_only=True)
class BatchOptions(Options):
    """How much the collector's iterator delivers, and in which form."""

    total_frames: int = option(-1, "Stop after this many plies; -1: never.", low=-1)
    zero_copy: bool = option(
        False,
        "A batch is a view of shared memory where it can be, valid until the next batch is asked for; otherwise it is "
        "a copy.",
    )
    unpack_action_mask: bool = option(False, "Deliver action_mask as bool [W * G, T, A], not bit-packed.")
    include_next_observation: bool = option(False, 'Store ("next", "observation") too.')


def agent_needs(cluster: ClusterOptions, num_workers: int) -> dict[str, float]:
    """What a node agent reserves of its node, by Ray's names of the resources.

    Args:
        cluster: of node agents.
        num_workers: of each.
    """
    cpus = num_workers if cluster.cpus_per_agent is None else cluster.cpus_per_agent
    needs = {"CPU": cpus, "GPU": cluster.gpus_per_agent, **cluster.agent_resources}
    return {name: float(amount) for name, amount in needs.items() if amount}


def least_agents(options: CollectorOptions, cluster: ClusterOptions) -> int:
    """How many supervisors of workers there are, at least: 1 without a cluster; with "auto" agents, as yet unknown.

    Args:
        options: of the collector.
        cluster: of its node agents.
    """
    return cluster.num_agents if options.mode == "ray" and cluster.num_agents != "auto" else 1


def worker_demand(options: CollectorOptions, workers: WorkerOptions, num_workers: int) -> WorkerDemand:
    """What so many workers ask of the machine.

    Args:
        options: of the collector.
        workers: how they run.
        num_workers: their number.
    """
    return WorkerDemand(
        num_workers=num_workers,
        in_processes=options.mode != "serial",
        start_method=workers.start_method,
        threads_per_worker=workers.threads_per_worker,
        is_central=options.mode == "central",
    )


def with_number_of_workers(
    options: CollectorOptions,
    workers: WorkerOptions,
    cluster: ClusterOptions | None = None,
    *,
    learns_on_cpu: bool,
    num_learners: int = 1,
) -> CollectorOptions:
    """The same options, with a number in the place of ``num_workers="auto"`` (whose sentence says which).

    A learner on the CPU that works at the same time keeps three of four CPUs: it has several times the work of the
    workers.

    Args:
        options: of the collector.
        workers: how they run.
        cluster: with ``mode="ray"``, where they run; None: on this machine.
        learns_on_cpu: the learner's device is a CPU.
        num_learners: that will share the CPUs of this process, each with workers of its own.
    """
    if options.num_workers != "auto":
        return options
    cpus, is_async = max(1, available_cpus() // num_learners), options.schedule == "async"
    if options.mode == "serial":
        wished = 1
    elif options.mode == "ray" and cluster is not None and cluster.cpus_per_agent:
        wished = max(1, int(cluster.cpus_per_agent))
    elif is_async and learns_on_cpu:
        wished = max(1, cpus // 4)
    else:
        wished = max(1, cpus - (1 if is_async or options.mode == "central" else 0))
    return replace(options, num_workers=most_workers(worker_demand(options, workers, wished)))


def collector_errors(
    options: CollectorOptions,
    workers: WorkerOptions,
    supervision: SupervisionOptions,
    opponents: OpponentOptions | None = None,
    cluster: ClusterOptions | None = None,
    *,
    prefix: str = "",
) -> Iterator[str]:
    """What does not go together, or not with this machine.

    Args:
        options: of the collector, with a number of workers.
        workers: how they run.
        supervision: of them.
        opponents: that are met; None: self-play only.
        cluster: of node agents; None: its defaults.
        prefix: of the keys in the messages, such as "parallel."; empty: they are a constructor's.

    Yields:
        A line for each error.
    """
    number, games = options.num_workers, options.games_per_worker
    yes, no = ("true", "false") if prefix else ("True", "False")  # as a configuration, or as Python writes it
    assert not isinstance(number, str)
    if options.mode == "serial" and options.schedule == "async":
        yield f"{prefix}schedule=async: must be sync with {prefix}mode=serial (one process cannot do both at once)"
    if options.drop_oldest and options.schedule == "sync":
        yield (
            f"{prefix}drop_oldest={yes}: must be {no} with {prefix}schedule=sync (no more than one batch ever waits)"
        )
    yield from worker_errors(worker_demand(options, workers, number), prefix=prefix)
    cluster = cluster or ClusterOptions()
    total = number * least_agents(options, cluster)
    if supervision.min_healthy_workers > total and not (options.mode == "ray" and cluster.num_agents == "auto"):
        factor = f" x {prefix}num_agents" if options.mode == "ray" else ""
        yield (
            f"{prefix}min_healthy_workers={supervision.min_healthy_workers}: must be from 0 to {total} "
            f"({prefix}num_workers{factor})"
        )
    if options.mode == "ray":
        yield from _cluster_errors(cluster, prefix)
    if opponents is not None and round(opponents.share * games) < 1:
        yield (
            f"opponents.share={opponents.share:g}: must be at least {1 / games:g}, one of {prefix}games_per_worker="
            f"{games} games"
        )


def _cluster_errors(cluster: ClusterOptions, prefix: str) -> Iterator[str]:
    """What a cluster lacks on this machine, or what of its options does not go together."""
    yes, no = ("true", "false") if prefix else ("True", "False")
    if importlib.util.find_spec("ray") is None:
        yield f"{prefix}mode=ray: needs the extra ray: pip install 'keisei-lightning[ray]'"
    elif cluster.weight_compression == "zstd" and importlib.util.find_spec("zstandard") is None:
        yield f"{prefix}weight_compression=zstd: needs zstandard, of the extra ray: pip install 'keisei-lightning[ray]'"
    for name, amount in cluster.agent_resources.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < float("inf"):
            yield f"{prefix}agent_resources.{name}={amount}: must be a number, 0 or more"
    if cluster.standby_agents and cluster.gpus_per_agent:
        yield (
            f"{prefix}standby_agents={yes}: must be {no} with {prefix}gpus_per_agent={cluster.gpus_per_agent:g} (Ray "
            "gives a GPU to one process, for as long as it lives)"
        )
    if cluster.ray_address is not None and cluster.object_store_memory_mb is not None:
        yield (
            f"{prefix}object_store_memory_mb={cluster.object_store_memory_mb}: must be null with "
            f"{prefix}ray_address={cluster.ray_address} (whoever starts a cluster sizes its object stores)"
        )
