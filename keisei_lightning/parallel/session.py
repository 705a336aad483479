"""The parts of a running collector: created together when it starts, closed together when it stops."""

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
from keisei_lightning.parallel.opponents.pool import OpponentOptions, OpponentSetup, SnapshotPool
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
        start_method: of processes; None: the best that this system offers.
        opponents: options of the games against snapshots; None: every game is self-play.
        max_policy_lag: rollouts further behind the latest version are refused.
        zero_copy: batches are views of the slots where possible.
        drop_oldest: of more rollouts than a batch takes, the newest are delivered.
        groups_per_worker: groups of games, in mode "central".
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

    def make_backend(self, inputs: WorkerInputs) -> Backend:
        """The backend of this mode; it starts no process yet."""
        if self.mode == "serial":
            return SerialBackend(inputs)
        if self.mode == "workers":
            return ProcessBackend(inputs, restart_policy=self.restart_policy, start_method=self.start_method)
        return CentralBackend(
            inputs,
            restart_policy=self.restart_policy,
            start_method=self.start_method,
            num_groups=self.groups_per_worker,
            in_rounds=self.schedule == "sync",
        )


@dataclass(kw_only=True, slots=True)
class ResumeState:
    """The state that a collector starts from: an empty one, or that of a checkpoint.

    Attributes:
        undelivered: counts of complete rollouts that were not delivered, by reason.
        games_in_flight: state of each worker's games (serial only); empty: all games are new.
        opponents: the snapshot pool's state; None: the pool is empty.
    """

    undelivered: Mapping[str, int]
    games_in_flight: Sequence[Mapping[str, Any]] = ()
    opponents: Mapping[str, Any] | None = None

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> ResumeState:
        """From a :meth:`state_dict`, also of an earlier version."""
        return cls(
            undelivered={name: int(state.get(name, 0)) for name in NOTHING_UNDELIVERED},
            games_in_flight=state.get("games_in_flight", ()),
            opponents=state.get("opponents"),
        )

    def state_dict(self) -> dict[str, Any]:
        """This state as plain numbers, text and tensors."""
        return {
            **self.undelivered,
            "games_in_flight": list(self.games_in_flight),
            "opponents": self.opponents,
        }


class Session:
    """Slots, published weights, snapshots, and the backend that plays. :meth:`open` starts it.

    Args:
        spec: how to collect.
        resume_state: the state to start from.
        seed: root seed of every random stream.
        frames: plies delivered before.
        version: of the policy's present weights.
        paused: workers that get no grants at first (see :meth:`Intake.set_paused`).

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
        frames: int,
        version: int,
        paused: Collection[int],
    ) -> None:
        self._num_readers, self._num_workers = spec.num_readers, spec.layout.num_workers
        weights = WeightLayout.of(spec.policy)
        self._slots = Slots.reserve(spec.layout)
        self.weights = WeightStore(weights, spec.num_readers)
        self.weights.publish(spec.policy, version)
        self.pool = None if spec.opponents is None else SnapshotPool(spec.opponents, weights, seed)
        if self.pool is not None and resume_state.opponents is not None:
            self.pool.load_state_dict(resume_state.opponents)
        inputs = WorkerInputs(
            game=spec.game,
            policy=spec.policy,
            options=replace(spec.player_options, seed=seed, start=frames),
            slots=self._slots,
            weights=self.weights.memory,
            opponents=self._opponent_setup(spec),
            games_in_flight=resume_state.games_in_flight,
        )
        self.backend = spec.make_backend(inputs)
        self.intake = Intake(
            self.backend,
            self._slots,
            schedule=spec.schedule,
            max_policy_lag=spec.max_policy_lag,
            zero_copy=spec.zero_copy,
            drop_oldest=spec.drop_oldest,
            paused=paused,
            undelivered=resume_state.undelivered,
            pool=self.pool,
        )

    def _opponent_setup(self, spec: CollectorSpec) -> OpponentSetup | None:
        if self.pool is None or spec.opponents is None:
            return None
        return OpponentSetup(memory=self.pool.memory, share=spec.opponents.share)

    def open(self) -> None:
        """Start playing; returns before all workers are ready."""
        self.backend.start()
        self.intake.open()

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
        """Metrics of the workers and of the pool."""
        workers = self.backend.health()
        lags = [self._adoption(worker.worker_id, latest_version)["policy_lag"] for worker in workers]
        return {
            **({} if self.pool is None else self.pool.summary()),
            "restarts": sum(worker.restarts for worker in workers),
            "healthy_workers": sum(worker.state in _HEALTHY for worker in workers[: self._num_workers]),
            "adoption_lag_max": max((lag for lag in lags if lag is not None), default=0),
            "lost_rollouts": self.backend.lost_rollouts,
        }

    def resume_state(self) -> ResumeState:
        """The state from which a collector could resume."""
        return ResumeState(
            undelivered=self.intake.undelivered,
            games_in_flight=self.backend.games_in_flight(),
            opponents=None if self.pool is None else self.pool.state_dict(),
        )
