"""What a running collector consists of: made together when it starts, given up together when it stops."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import nn

from keisei_lightning.games import GameFactory
from keisei_lightning.parallel.backend import Backend, WorkerInputs
from keisei_lightning.parallel.central.backend import CentralBackend
from keisei_lightning.parallel.intake import NOTHING_UNDELIVERED, Intake
from keisei_lightning.parallel.memory.slots import SlotLayout, Slots
from keisei_lightning.parallel.memory.weights import WeightLayout, WeightStore
from keisei_lightning.parallel.opponents.pool import OpponentSetup, SnapshotPool
from keisei_lightning.parallel.options import OpponentOptions
from keisei_lightning.parallel.playing.worker import PlayerOptions
from keisei_lightning.parallel.process_backend import ProcessBackend
from keisei_lightning.parallel.serial_backend import SerialBackend
from keisei_lightning.parallel.supervision.restarts import RestartPolicy, WorkerState
from keisei_lightning.rl import policy_lag
from keisei_lightning.system.machine import resident_memory

__all__ = ["CollectorSpec", "ResumeState", "Session"]

_HEALTHY = (WorkerState.STARTING, WorkerState.RUNNING)


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectorSpec:
    """How a collector collects.

    Attributes:
        game: makes the boards.
        policy: the learner's.
        mode: "serial", "workers" or "central".
        schedule: "sync" or "async".
        layout: of the slots.
        player_options: how every worker plays; seed and start are those of the :class:`ResumeState`.
        restart_policy: timeouts and budget.
        start_method: of processes; None: the best there is.
        opponents: the snapshots that are played against; None: every game is self-play.
        max_policy_lag: what is further behind is refused.
        zero_copy: batches are views where they can be.
        drop_oldest: of more rollouts than a batch takes, the newest are delivered.
        groups_per_worker: of games, in mode "central".
    """

    game: GameFactory
    policy: nn.Module
    mode: Literal["serial", "workers", "central"]
    schedule: Literal["sync", "async"]
    layout: SlotLayout
    player_options: PlayerOptions
    restart_policy: RestartPolicy
    start_method: Literal["forkserver", "spawn"] | None
    opponents: OpponentOptions | None
    max_policy_lag: int
    zero_copy: bool
    drop_oldest: bool
    groups_per_worker: int = 1

    @property
    def num_readers(self) -> int:
        """Processes that hold the weights."""
        return 1 if self.mode == "central" else self.layout.num_workers

    def make_backend(self, work: WorkerInputs) -> Backend:
        """What plays; it starts nothing yet."""
        if self.mode == "serial":
            return SerialBackend(work)
        if self.mode == "workers":
            return ProcessBackend(work, restart_policy=self.restart_policy, start_method=self.start_method)
        return CentralBackend(
            work,
            restart_policy=self.restart_policy,
            start_method=self.start_method,
            num_groups=self.groups_per_worker,
            together=self.schedule == "sync",
        )


@dataclass(kw_only=True, slots=True)
class ResumeState:
    """Where a collector begins: anew, or where a checkpoint stopped.

    Attributes:
        undelivered: rollouts that were played whole and not delivered, by the reason.
        games_in_flight: of each worker (serial only); empty to begin anew.
        opponents: the pool's state; None: it is empty.
    """

    undelivered: Mapping[str, int]
    games_in_flight: Sequence[Mapping[str, Any]] = ()
    opponents: Mapping[str, Any] | None = None

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> ResumeState:
        """From :meth:`Session.state_dict` (or what an earlier version wrote)."""
        return cls(
            undelivered={name: int(state.get(name, 0)) for name in NOTHING_UNDELIVERED},
            games_in_flight=state.get("games_in_flight", ()),
            opponents=state.get("opponents"),
        )

    def state_dict(self) -> dict[str, Any]:
        """The same as plain numbers, text and tensors."""
        return {
            **self.undelivered,
            "games_in_flight": list(self.games_in_flight),
            "opponents": self.opponents,
        }


class Session:
    """Slots, published weights, snapshots, and the backend that plays; it starts with :meth:`open`.

    Args:
        plan: how to collect.
        origin: where to begin.
        seed: root seed of every random stream.
        plies: delivered so far, in earlier sessions too.
        version: of the policy's present weights.
        paused: workers that get no grants until the owner tells the intake otherwise.

    Attributes:
        weights: published weights.
        pool: snapshots; None without opponents.
        backend: plays.
        intake: takes rollouts in.

    Raises:
        ConfigError: the machine has not so much memory, or the snapshots are of another network.
    """

    def __init__(
        self, plan: CollectorSpec, origin: ResumeState, *, seed: int, plies: int, version: int, paused: Collection[int]
    ) -> None:
        self._num_readers, self._num_workers = plan.num_readers, plan.layout.num_workers
        weights = WeightLayout.of(plan.policy)
        self._slots = Slots.reserve(plan.layout)
        self.weights = WeightStore(weights, plan.num_readers)
        self.weights.publish(plan.policy, version)
        self.pool = None if plan.opponents is None else SnapshotPool(plan.opponents, weights, seed)
        if self.pool is not None and origin.opponents is not None:
            self.pool.load_state_dict(origin.opponents)
        work = WorkerInputs(
            game=plan.game,
            policy=plan.policy,
            options=replace(plan.player_options, seed=seed, start=plies),
            slots=self._slots,
            weights=self.weights.memory,
            opponents=self._opponent_setup(plan),
            games_in_flight=origin.games_in_flight,
        )
        self.backend = plan.make_backend(work)
        self.intake = Intake(
            self.backend,
            self._slots,
            schedule=plan.schedule,
            max_policy_lag=plan.max_policy_lag,
            zero_copy=plan.zero_copy,
            drop_oldest=plan.drop_oldest,
            paused=paused,
            undelivered=origin.undelivered,
            pool=self.pool,
        )

    def _opponent_setup(self, plan: CollectorSpec) -> OpponentSetup | None:
        if self.pool is None or plan.opponents is None:
            return None
        return OpponentSetup(memory=self.pool.memory, share=plan.opponents.share)

    def open(self) -> None:
        """Start playing; returns before all workers are ready."""
        self.backend.start()
        self.intake.open()

    def close(self, timeout_s: float) -> None:
        """End all processes and give up the memory; twice is harmless."""
        self.backend.shutdown(timeout_s)
        self._slots.close()
        self.weights.close()
        if self.pool is not None:
            self.pool.close()

    def is_healthy(self) -> bool:
        """Every worker is starting (within its time) or running."""
        return all(worker.state in _HEALTHY for worker in self.backend.health())

    def health(self, latest_version: int) -> list[dict[str, Any]]:
        """One entry for each process; see :meth:`SelfPlayCollector.health`."""
        return [
            asdict(worker)
            | self._adoption(worker.worker_id, latest_version)
            | {
                "last_batch_age_s": self.intake.last_batch_age_s(worker.worker_id),
                "rss_bytes": resident_memory(worker.pid),
                "paused": worker.worker_id in self.intake.paused,
            }
            for worker in self.backend.health()
        ]

    def _adoption(self, worker_id: int, latest_version: int) -> dict[str, int | None]:
        version = self.weights.adopted_version(min(worker_id, self._num_readers - 1))
        lag = None if version is None else policy_lag(latest_version, version)
        return {"policy_version": version, "policy_lag": lag}

    def summary(self, latest_version: int) -> dict[str, float]:
        """Numbers for loggers: of the workers, and of the pool."""
        workers = self.backend.health()
        lags = [self._adoption(worker.worker_id, latest_version)["policy_lag"] for worker in workers]
        return {
            **({} if self.pool is None else self.pool.summary()),
            "restarts": sum(worker.restarts for worker in workers),
            "healthy_workers": sum(worker.state in _HEALTHY for worker in workers[: self._num_workers]),
            "adoption_lag_max": max((lag for lag in lags if lag is not None), default=0),
            "lost_rollouts": self.backend.lost_rollouts,
        }

    def origin(self) -> ResumeState:
        """Where a collector would go on from here."""
        return ResumeState(
            undelivered=self.intake.undelivered,
            games_in_flight=self.backend.games_in_flight(),
            opponents=None if self.pool is None else self.pool.state_dict(),
        )
