"""What the learner and the node agents tell each other. Needs no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from keisei_lightning.parallel.cluster.weight_codec import WeightCodec
from keisei_lightning.parallel.memory.slots import ColumnKey, SlotLayout
from keisei_lightning.parallel.opponents.players import PlayerMember
from keisei_lightning.parallel.playing.worker import PlayerOptions
from keisei_lightning.parallel.supervision.events import WorkerHealth
from keisei_lightning.parallel.supervision.messages import Failure, LogRecord, Play, RolloutHeader
from keisei_lightning.parallel.supervision.restarts import RestartPolicy

__all__ = ["AgentBoot", "Grant", "Parcel", "Report", "Rollout", "SnapshotBoot"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotBoot:
    """The opponents that an agent's workers may meet.

    Attributes:
        num_buffers: how many sets of weights an agent stores, in the same buffers as the learner.
        share: of the boards that meet an opponent.
        players: opponents that are no frozen policies.
        patience_s: how long they may take for one turn.
    """

    num_buffers: int
    share: float
    players: tuple[PlayerMember, ...] = ()
    patience_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentBoot:
    """Everything that an agent needs.

    Attributes:
        agent_id: which agent.
        incarnation: of the agent.
        first_incarnations: of each of its workers: number of the first incarnation that this agent starts.
        game_and_policy: cloudpickled (game factory, policy without weights).
        options: how its workers play; ``first_worker`` is the number of its first one among all.
        slots: layout of its own workers' slots.
        codec: of weights and snapshots.
        snapshots: that games are played against; None: every game is self-play.
        restart_policy: of its workers.
        start_method: of their processes.
        beat_s: the longest time between two answers to a poll.
    """

    agent_id: int
    incarnation: int
    first_incarnations: tuple[int, ...]
    game_and_policy: bytes
    options: PlayerOptions
    slots: SlotLayout
    codec: WeightCodec
    snapshots: SnapshotBoot | None
    restart_policy: RestartPolicy
    start_method: str | None
    beat_s: float

    @property
    def name(self) -> str:
        """The agent, for a person."""
        return f"agent {self.agent_id}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """Learner to agent: let one of your workers play a rollout.

    Attributes:
        number: 1, 2, 3, ... of all grants; one that may have been lost on the way is sent again with its number.
        worker: which of the agent's own workers.
        play: the grant.
        version: of the oldest weights that it may be played with.
    """

    number: int
    worker: int
    play: Play
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """Learner to agent: weights.

    Attributes:
        version: of them.
        data: reference to the encoded bytes in the object store, or those bytes (tests).
        within_s: how long the agent tries to fetch them.
        is_last_try: an agent that cannot fetch them ends.
        buffer: of the snapshots, if they are one; None: they are the policy's.
    """

    version: int
    data: Any
    within_s: float
    is_last_try: bool = False
    buffer: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """A rollout of an agent's worker.

    Attributes:
        sequence: 1, 2, 3, ... of each incarnation of the agent.
        header: as its worker announced it; ``worker_id`` is the agent's own.
        columns: [G, T, ...] by name. The agent sends views of its slot.
    """

    sequence: int
    header: RolloutHeader
    columns: Mapping[ColumnKey, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Agent to learner: the answer to a poll.

    Attributes:
        pid: of the agent.
        rollouts: all that the learner has not accepted yet.
        workers: the present state of each of the agent's workers.
        lost_rollouts: rollouts that its workers began and never announced.
        version: of the weights that it holds; -1: none yet.
        rss_bytes: memory of the agent.
        logs: records of its log since the last report.
        failure: why it ends; None: it does not.
    """

    pid: int
    rollouts: tuple[Rollout, ...]
    workers: tuple[WorkerHealth, ...]
    lost_rollouts: int
    version: int
    rss_bytes: int | None
    logs: tuple[LogRecord, ...] = ()
    failure: Failure | None = None
