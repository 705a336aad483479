"""Messages between learner and workers: everything small goes through one pipe per worker, as one of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "BeginRound",
    "BoardView",
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
    """A frozen policy, or a player.

    Attributes:
        version: its policy version; below -1: which player.
        buffer: which buffer of the snapshot memory holds its weights; None: it is a player.
    """

    version: int
    buffer: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Play:
    """Learner to worker: play one rollout with the newest weights, into this slot.

    Attributes:
        slot: which slot to write to.
        opponent: of games that begin during this rollout and are not self-play; None: all are self-play.
        boards_to_draw: how many of its boards the worker draws after the rollout, for people.
    """

    slot: int
    opponent: Opponent | None = None
    boards_to_draw: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ResetGames:
    """Learner to worker: begin new games, on all boards, with the next rollout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Learner to worker: finish the present rollout, then end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """Worker to learner: game, policy and memory are ready."""

    pid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Worker to learner: an exception as text (it need not be picklable); alone, it is the worker's last message."""

    kind: str
    message: str
    traceback: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LogRecord:
    """Worker to learner: a log record."""

    level: int
    name: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BoardView:
    """A game in progress, drawn for people.

    Attributes:
        board: which of the worker's boards.
        ply: how many plies of its game have been played, without random opening plies.
        mover: the seat to move, 0 or 1.
        svg: the picture, as the game draws it.
    """

    board: int
    ply: int
    mover: int
    svg: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutHeader:
    """Worker to learner: the slot now holds a complete rollout. It is sent after the payload was written.

    A message is flat: the fields are independent, and grouping them would only make it slower to pickle.

    Attributes:
        worker_id: which worker played.
        incarnation: of the worker.
        sequence: 0, 1, 2, ... in each incarnation.
        slot: which slot holds the rollout.
        policy_version: the one version that played all of it.
        plies: how many it holds (G * T).
        games: finished games.
        game_plies: sum of their lengths.
        results: finished games by the winner's seat: "first", "second" or "draw".
        outcomes: finished games by how they ended.
        play_s: seconds spent playing.
        wait_s: seconds spent waiting for the slot before.
        opponents_in_use: buffers of the snapshots that games in flight meet.
        opponent_results: the learner's wins, draws and losses in finished games, by its opponent's version.
        opponent_voids: games that ended without a result, because the opponent had no move, likewise.
        lost_rollouts: rollouts begun before this one and aborted, because the inference process was replaced.
        boards: those that were to be drawn (:attr:`Play.boards_to_draw`), as far as the game can.
        failure: why the rollout is invalid and must not be delivered; the worker continues with new games.
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
    opponent_voids: Mapping[int, int] = field(default_factory=dict)
    lost_rollouts: int = 0
    boards: tuple[BoardView, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BeginRound:
    """Learner to inference process: these workers will request to begin a rollout; let none begin before all have."""

    workers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerGone:
    """Learner to inference process: this incarnation of a worker has ended; do not wait for it."""

    worker_id: int
    incarnation: int


ToWorker = Play | ResetGames | Stop | BeginRound | WorkerGone
ToLearner = Ready | Failure | LogRecord | RolloutHeader
