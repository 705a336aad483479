"""The parts of a running collector: created together when it starts, closed together when it stops."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameFactory, GameSpec
from keisei_lightning.models.compiling import check_compile_mode
from keisei_lightning.parallel.backend import Backend, WorkerInputs
from keisei_lightning.parallel.central.backend import CentralBackend
from keisei_lightning.parallel.intake import Intake
from keisei_lightning.parallel.memory.demand import check_memory
from keisei_lightning.parallel.memory.slots import SlotLayout, Slots
from keisei_lightning.parallel.memory.weights import WeightLayout, WeightStore
from keisei_lightning.parallel.opponents.league import League
from keisei_lightning.parallel.opponents.players import check_players
from keisei_lightning.parallel.opponents.pool import COUNTED_BY_RANK, SnapshotPool
from keisei_lightning.parallel.options import (
    BatchOptions,
    ClusterOptions,
    CollectorOptions,
    OpponentOptions,
    SupervisionOptions,
    WorkerOptions,
    agent_needs,
    collector_errors,
    with_number_of_workers,
)
from keisei_lightning.parallel.playing.worker import PlayerOptions
from keisei_lightning.parallel.policy.acting import check_policy
from keisei_lightning.parallel.process_backend import ProcessBackend
from keisei_lightning.parallel.serial_backend import SerialBackend
from keisei_lightning.parallel.state.figures import Figure
from keisei_lightning.parallel.state.rank_share import RankShare
from keisei_lightning.parallel.state.resume_state import ResumeState
from keisei_lightning.parallel.supervision.events import WorkerHealth
from keisei_lightning.parallel.supervision.restarts import RestartPolicy, WorkerState
from keisei_lightning.rl import policy_lag
from keisei_lightning.system.devices import device_errors
from keisei_lightning.system.machine import resident_memory, share_of_cpus

__all__ = ["CollectorSpec", "Session"]

_HEALTHY = (WorkerState.STARTING, WorkerState.RUNNING)
_WEIGHTS_ON_THE_WAY = 3  # sets of them in the object store: the latest, one that is fetched, one that is being put
_MIN_OBJECT_STORE_MB = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectorSpec:
    """How a collector collects.

    Attributes:
        game: makes the boards.
        game_spec: the game's description.
        policy: the learner's.
        layout: of the slots, of all workers.
        options: what is played, and how it is delivered; ``num_workers`` is a number.
        cluster: with ``mode="ray"``, where the workers run; ``num_agents`` is a number.
        workers: how workers run the policy.
        threads_per_worker: torch threads of each process that has the policy.
        supervision: time limits and restart budget.
        opponents: of the learner: snapshots alone, or a league; None: every game is self-play.
        zero_copy: batches are views of the slots where possible.
    """

    game: GameFactory
    game_spec: GameSpec
    policy: nn.Module
    layout: SlotLayout
    options: CollectorOptions
    cluster: ClusterOptions
    workers: WorkerOptions
    threads_per_worker: int
    supervision: SupervisionOptions
    opponents: OpponentOptions | League | None
    zero_copy: bool

    @classmethod
    def checked(
        cls,
        game: GameFactory,
        policy: nn.Module,
        options: CollectorOptions,
        workers: WorkerOptions,
        *,
        supervision: SupervisionOptions,
        batches: BatchOptions,
        opponents: OpponentOptions | League | None,
        cluster: ClusterOptions,
    ) -> CollectorSpec:
        """A spec whose options go together, with this machine, this policy and this game: nothing fails in a worker.

        Raises:
            ConfigError: with a line for each error.
        """
        options = with_number_of_workers(options, workers, cluster, learns_on_cpu=not torch.cuda.is_available())
        league = None if opponents is None else League.checked(opponents, policy)
        if errors := [
            *([] if options.mode == "ray" else _device_errors(workers.worker_device)),  # theirs are not this machine's
            *check_compile_mode("compile_mode", workers.compile_mode, policy),
            *collector_errors(options, workers, supervision, None if league is None else league.options, cluster),
        ]:
            raise ConfigError(errors)
        if not (spec := game(1).spec).symmetries and options.augment_symmetry:
            raise ConfigError(f"augment_symmetry=True: must be False ({spec.name} has no symmetry)")
        check_policy(policy, spec)
        if options.mode == "ray":
            cluster = _with_number_of_agents(cluster, int(options.num_workers))
        num_agents = int(cluster.num_agents) if options.mode == "ray" else 1
        layout = SlotLayout.for_game(
            spec,
            num_slots=options.slots_per_worker if options.schedule == "async" else 1,
            num_workers=int(options.num_workers) * num_agents,
            num_games=options.games_per_worker,
            num_plies=options.plies_per_rollout,
            include_next_observation=batches.include_next_observation,
        )
        check_memory(
            layout,
            policy=policy,
            num_snapshots=league.num_buffers if league else 0,
            mode=options.mode,
            start_method=workers.start_method,
        )
        return cls(
            game=game,
            game_spec=spec,
            policy=policy,
            layout=layout,
            options=options,
            cluster=cluster,
            workers=workers,
            threads_per_worker=workers.threads_per_worker or share_of_cpus(_num_sharing(options)),
            supervision=supervision,
            opponents=opponents,
            zero_copy=batches.zero_copy,
        )

    @property
    def num_readers(self) -> int:
        """Processes that play from the weights in this machine's memory."""
        return {"central": 1, "ray": 0}.get(self.options.mode, self.layout.num_workers)

    @property
    def policy_threads(self) -> int:
        """Torch threads of all processes of this machine that hold the weights."""
        return self.num_readers * self.threads_per_worker

    def player_options(self, *, seed: int, start: int, share: RankShare) -> PlayerOptions:
        """How every worker plays.

        Args:
            seed: root seed of every random stream.
            start: plies that all ranks have delivered before this start.
            share: this collector's part of the workers.
        """
        return PlayerOptions(
            device=self.workers.worker_device,
            precision=self.workers.worker_precision,
            num_threads=self.threads_per_worker,
            compile_mode=self.workers.compile_mode,
            stagger_games=self.options.stagger_games,
            augment_symmetry=self.options.augment_symmetry,
            seed=seed,
            start=start,
            first_worker=share.workers(self.layout.num_workers).start,
            plies_per_batch=share.num_ranks * self.layout.plies_per_batch,
        )

    def make_backend(self, inputs: WorkerInputs) -> Backend:
        """The backend of this mode; it starts no process yet."""
        if self.options.mode == "serial":
            return SerialBackend(inputs)
        restart_policy = RestartPolicy(**asdict(self.supervision))
        start_method = self.workers.start_method
        if self.options.mode == "ray":
            return self._cluster_backend(inputs, restart_policy)
        if self.options.mode == "workers":
            return ProcessBackend(inputs, restart_policy=restart_policy, start_method=start_method)
        return CentralBackend(
            inputs,
            restart_policy=restart_policy,
            start_method=start_method,
            num_groups=self.workers.groups_per_worker,
            in_rounds=self.options.schedule == "sync",
        )

    def _cluster_backend(self, inputs: WorkerInputs, restart_policy: RestartPolicy) -> Backend:
        from keisei_lightning.parallel.cluster.backend import ClusterBackend  # only those who ask for it have Ray
        from keisei_lightning.parallel.cluster.ray_cluster import RayCluster

        num_agents = int(self.cluster.num_agents)
        needs = agent_needs(self.cluster, int(self.options.num_workers))
        snapshots = 0 if self.opponents is None else League.of(self.opponents).num_buffers
        num_bytes = self.layout.num_bytes + (_WEIGHTS_ON_THE_WAY + snapshots) * inputs.weights.layout.num_bytes
        megabytes = self.cluster.object_store_memory_mb or max(_MIN_OBJECT_STORE_MB, 2 * num_bytes // 2**20)
        return ClusterBackend(
            inputs,
            cluster=RayCluster(
                self.cluster.ray_address,
                needs=needs,
                num_agents=num_agents,
                object_store_bytes=megabytes * 2**20,
                start_method=self.workers.start_method,
                has_standbys=self.cluster.standby_agents,
            ),
            options=self.cluster,
            num_agents=num_agents,
            needs=needs,
            restart_policy=restart_policy,
            start_method=self.workers.start_method,
            needs_all=self.options.schedule == "sync",
        )


def _num_sharing(options: CollectorOptions) -> int:
    """How many processes share the CPUs of one machine."""
    playing = 1 if options.mode == "central" else int(options.num_workers)
    return playing if options.schedule == "sync" else 2 * playing  # the learner works at the same time


def _with_number_of_agents(cluster: ClusterOptions, num_workers: int) -> ClusterOptions:
    """The same options, with the number of nodes that have room for an agent in the place of "auto"."""
    if cluster.num_agents != "auto":
        return cluster
    from keisei_lightning.parallel.cluster.ray_cluster import count_places  # only those who ask for it have Ray

    number = count_places(cluster.ray_address, agent_needs(cluster, num_workers))
    return replace(cluster, num_agents=number)


def _device_errors(name: str) -> list[str]:
    count = torch.cuda.device_count() if name.startswith("cuda") else None  # it loads the driver: only if it matters
    return device_errors("worker_device", name, num_cuda_devices=count)


class Session:
    """Slots, published weights, snapshots, and the backend that plays. :meth:`open` starts it.

    Args:
        spec: how to collect.
        resume_state: the state to start from.
        seed: root seed of every random stream.
        plies: that all ranks have delivered so far, in earlier sessions too.
        version: of the policy's present weights.
        paused: workers that get no grants at first (see :meth:`Intake.set_paused`).
        share: this collector's part of the workers of all ranks.

    Attributes:
        weights: publishes weights.
        pool: snapshots; None without opponents.
        backend: plays rollouts.
        intake: receives rollouts and makes batches of them.

    Raises:
        ConfigError: the machine has not enough memory, or the snapshots are of another network.
    """

    def __init__(
        self,
        spec: CollectorSpec,
        resume_state: ResumeState,
        *,
        seed: int,
        plies: int,
        version: int,
        paused: Collection[int],
        share: RankShare,
    ) -> None:
        self._num_readers, self._num_workers = spec.num_readers, spec.layout.num_workers
        self._game_spec, self._plays_here = spec.game_spec, spec.options.mode != "ray"
        weights = WeightLayout.of(spec.policy)
        self._slots = Slots.reserve(spec.layout)
        self.weights = WeightStore(weights, spec.num_readers)
        self.weights.publish(spec.policy, version)
        first_worker = share.workers(self._num_workers).start
        self.pool = None if spec.opponents is None else SnapshotPool(spec.opponents, weights, seed, first_worker)
        if self.pool is not None and resume_state.opponents is not None:
            self.pool.load_state_dict(resume_state.opponents)
        inputs = WorkerInputs(
            game=spec.game,
            policy=spec.policy,
            options=spec.player_options(seed=seed, start=plies, share=share),
            slots=self._slots,
            weights=self.weights.memory,
            opponents=None if self.pool is None else self.pool.setup,
            games_in_flight=resume_state.games_in_flight,
        )
        self.backend = spec.make_backend(inputs)
        self.intake = Intake(
            self.backend,
            self._slots,
            schedule=spec.options.schedule,
            max_policy_lag=spec.options.max_policy_lag,
            zero_copy=spec.zero_copy,
            drop_oldest=spec.options.drop_oldest,
            paused=paused,
            undelivered=resume_state.undelivered,
            pool=self.pool,
            scores_at_once=share.num_ranks == 1,
        )

    def open(self) -> None:
        """Start playing; returns before all workers are ready.

        Raises:
            ConfigError: a player of the league cannot be started here, where it would be needed; nothing was started.
        """
        if self.pool is not None and self._plays_here:
            check_players(self.pool.setup.players, self._game_spec)
        self.backend.publish(self.weights.latest, self.weights.latest_version)
        self.backend.start()
        self.intake.open()

    def publish(self, source: Any, version: int) -> None:
        """Publish weights to the workers of this machine and of others; see :meth:`WeightStore.publish`."""
        self.weights.publish(source, version)
        self.backend.publish(self.weights.latest, version)

    def close(self, timeout_s: float) -> None:
        """End all processes and close the memory; twice is harmless."""
        self.backend.shutdown(timeout_s)
        self._slots.close()
        self.weights.close()
        if self.pool is not None:
            self.pool.close()

    def is_healthy(self) -> bool:
        """Whether every worker is starting (within its time limit) or running."""
        return all(worker.state in _HEALTHY for worker in self.backend.health())

    def health(self, latest_version: int) -> list[dict[str, Any]]:
        """One entry for each process; see :meth:`SelfPlayCollector.health`."""
        return [
            asdict(worker)
            | {
                "policy_lag": None
                if worker.policy_version is None
                else policy_lag(latest_version, worker.policy_version),
                "last_batch_age_s": self.intake.last_batch_age_s(worker.worker_id),
                "last_batch_play_s": self.intake.last_play_s(worker.worker_id),
                "last_batch_plies_per_s": self.intake.last_plies_per_s(worker.worker_id),
                "paused": worker.worker_id in self.intake.paused,
            }
            for worker in self._workers()
        ]

    def _workers(self, *, with_memory: bool = True) -> list[WorkerHealth]:
        """The state of every process; what the backend leaves to this machine's memory is filled in."""
        return [
            worker
            if worker.node is not None
            else replace(
                worker,
                policy_version=self.weights.adopted_version(min(worker.worker_id, self._num_readers - 1)),
                rss_bytes=resident_memory(worker.pid) if with_memory else None,
            )
            for worker in self.backend.health()
        ]

    def figures(self, latest_version: int) -> dict[str, Figure]:
        """Metrics of the workers and of the pool."""
        workers = self._workers(with_memory=False)
        versions = [worker.policy_version for worker in workers if worker.policy_version is not None]
        healthy = sum(worker.state in _HEALTHY for worker in workers[: self._num_workers])
        lag = max((policy_lag(latest_version, version) for version in versions), default=0)
        pool = {} if self.pool is None else self.pool.summary()
        return {
            **{name: Figure("sum" if name in COUNTED_BY_RANK else "same", value) for name, value in pool.items()},
            "restarts": Figure("sum", sum(worker.restarts for worker in workers)),
            "healthy_workers": Figure("sum", healthy),
            "adoption_lag_max": Figure("largest", lag),
            "lost_rollouts": Figure("sum", self.backend.lost_rollouts),
        }

    def resume_state(self) -> ResumeState:
        """The state from which a collector could resume."""
        return ResumeState(
            undelivered=self.intake.undelivered,
            games_in_flight=self.backend.games_in_flight(),
            opponents=None if self.pool is None else self.pool.state_dict(),
        )
