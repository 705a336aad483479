"""What learner and workers say to each other: everything small goes through one pipe per worker, in these words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "BeginRound",
    "Failure",
    "LogRecord",
    "Opponent",
    "Play",
    "Ready",
    "ResetGames",
    "RolloutHeader",
    "Stop",
    "ToLearner",
    "ToWorker",
    "WorkerGone",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Opponent:
    """A frozen snapshot of the policy.

    Attributes:
        version: the policy version that it is.
        buffer: where its weights lie.
    """

    version: int
    buffer: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Play:
    """Learner to worker: play one rollout with the newest weights, into this slot.

    Attributes:
        slot: where to.
        opponent: whom the games meet that begin during this rollout and are not self-play; None: all are self-play.
    """

    slot: int
    opponent: Opponent | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ResetGames:
    """Learner to worker: begin all games anew before the next rollout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Learner to worker: finish what you are playing and leave."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """Worker to learner: game, policy and memory are there."""

    pid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Worker to learner: an exception as text (it need not be picklable); alone, it is the worker's last word."""

    kind: str
    message: str
    traceback: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LogRecord:
    """Worker to learner: a line for the log."""

    level: int
    name: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutHeader:
    """Worker to learner: the slot now holds a whole rollout (sent after the payload: what is not announced is none).

    Attributes:
        worker_id: who played.
        incarnation: which life of that worker.
        sequence: 0, 1, 2, ... in each incarnation.
        slot: where it lies.
        policy_version: the one version that played all of it.
        plies: how many it holds (G * T).
        games: finished games.
        game_plies: sum of their lengths.
        results: finished games by the winner's seat: "first", "second" or "draw".
        outcomes: finished games by how they ended.
        play_s: seconds spent playing.
        wait_s: seconds spent waiting for the slot before.
        opponents_in_use: buffers of the snapshots that games in flight are played against.
        opponent_results: the learner's wins, draws and losses in finished games, by its opponent's version.
        lost: rollouts that were begun before this one and broken off, because the inference process was replaced.
        fault: why the slot holds nothing that may be delivered; the worker goes on with new games.
    """

    worker_id: int
    incarnation: int
    sequence: int
    slot: int
    policy_version: int
    plies: int
    games: int = 0
    game_plies: int = 0
    results: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    play_s: float = 0.0
    wait_s: float = 0.0
    opponents_in_use: tuple[int, ...] = ()
    opponent_results: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    lost: int = 0
    fault: Failure | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BeginRound:
    """Learner to inference process: these workers will begin a rollout; begin none before all have asked."""

    workers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerGone:
    """Learner to inference process: this life of a worker has ended; wait for it no longer."""

    worker_id: int
    incarnation: int


ToWorker = Play | ResetGames | Stop | BeginRound | WorkerGone
ToLearner = Ready | Failure | LogRecord | RolloutHeader
