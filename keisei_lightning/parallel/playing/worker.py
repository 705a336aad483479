"""A worker process: its boot, its loop, its end. It knows no torch: who judges positions is the business of its maker.

It waits for :class:`Play`, adopts the newest weights, plays one rollout into the slot it was given, and announces it.
It consumes grants; it waits for nothing else; it ends when told to, when it fails (saying why), or with its parent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from numpy.typing import NDArray
from typing_extensions import override

from keisei_lightning.errors import GameError, RolloutError
from keisei_lightning.games import Game
from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer
from keisei_lightning.parallel.memory.slots import ColumnKey, SlotLayout, Slots
from keisei_lightning.parallel.opponents.boards import OpponentBoards
from keisei_lightning.parallel.playing.rollout import RolloutPlayer, RolloutResult
from keisei_lightning.parallel.policy.inference_requests import PolicyServer
from keisei_lightning.parallel.supervision.heartbeats import IDLE_BEAT_S, HeartbeatBoard
from keisei_lightning.parallel.supervision.messages import (
    Failure,
    LogRecord,
    Opponent,
    Play,
    Ready,
    ResetGames,
    RolloutHeader,
    Stop,
    ToWorker,
)

__all__ = [
    "Beat",
    "LeaveError",
    "MakeWorker",
    "Player",
    "PlayerOptions",
    "Post",
    "RolloutWorker",
    "WeightSource",
    "Worker",
    "as_child",
    "make_player",
    "serve",
]

_MAX_MESSAGE_CHARS = 2_000
_MAX_TRACEBACK_CHARS = 20_000

Beat = Callable[[], None]
"""Shows life."""

Post = Callable[[Any], None]
"""Sends a message to the learner."""

MakeWorker = Callable[[Beat], "Worker"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayerOptions:
    """How every worker plays.

    Attributes:
        device: of the policy in the worker: a torch device, or "auto" (the CUDA devices in turn, else the CPU).
        precision: of the policy's arithmetic there: "32-true" or "bf16-mixed" (float32 weights), as Lightning's.
        num_threads: of torch in the worker.
        compile_mode: of ``torch.compile`` for its network; None: not compiled.
        seed: the run's.
        start: plies delivered before this start (above 0 in a resumed run): keeps its random streams apart.
        stagger_games: begin the first games somewhere in their course.
        augment_symmetry: play half of the games mirrored.
    """

    device: str
    precision: str
    num_threads: int
    compile_mode: str | None = None
    seed: int = 0
    start: int = 0
    stagger_games: bool
    augment_symmetry: bool


class LeaveError(Exception):
    """The worker is to leave without another word."""


def make_player(
    game: Game,
    moves: PolicyServer,
    *,
    worker_id: int,
    incarnation: int,
    options: PlayerOptions,
    slot_layout: SlotLayout,
    opponents: OpponentBoards | None = None,
    group: int = 0,
) -> RolloutPlayer:
    """A player of a worker's games, or of one group of them (see :class:`RolloutPlayer`)."""
    return RolloutPlayer(
        game=game,
        moves=moves,
        num_plies=slot_layout.num_plies,
        worker_id=worker_id,
        incarnation=incarnation,
        seed=options.seed,
        start=options.start,
        stride=slot_layout.plies_per_batch,
        stagger_games=options.stagger_games,
        augment_symmetry=options.augment_symmetry,
        opponents=opponents,
        group=group,
    )


class WeightSource(Protocol):
    """Where the policy's weights come from: between two calls of :meth:`adopt` they do not change."""

    def adopt(self) -> int:
        """Let the policy hold the latest weights; their version."""
        ...

    def verify(self) -> None:
        """Check that nobody wrote to them since."""
        ...


class Player(Protocol):
    """Plays the games of one worker (:class:`RolloutPlayer`, or several as one)."""

    def play(
        self,
        slot: Mapping[ColumnKey, NDArray[Any]],
        policy_version: int,
        beat: Beat = ...,
        *,
        opponent: Opponent | None = None,
    ) -> RolloutResult:
        """Play one rollout into a slot's columns [G, T, ...]."""
        ...

    def reset_games(self) -> None:
        """Let all games begin anew with the next rollout."""
        ...


class Worker(Protocol):
    """What a worker process serves with."""

    def play(self, grant: Play, *, wait_s: float = 0.0, beat: Beat = ...) -> RolloutHeader:
        """Play one rollout and return its header."""
        ...

    def reset_games(self) -> None:
        """Let all games begin anew with the next rollout."""
        ...


class RolloutWorker(Worker):
    """The work of one worker, without the process around it.

    Args:
        worker_id: which worker.
        incarnation: which life of it.
        weights: what the policy plays with.
        player: of the games.
        slots: where rollouts are written.
    """

    def __init__(
        self,
        *,
        worker_id: int,
        incarnation: int,
        weights: WeightSource,
        player: Player,
        slots: Slots,
    ) -> None:
        self._worker_id, self._incarnation, self._sequence = worker_id, incarnation, 0
        self._slots, self._weights, self._player = slots, weights, player

    @override
    def reset_games(self) -> None:
        self._player.reset_games()

    @override
    def play(self, grant: Play, *, wait_s: float = 0.0, beat: Beat = lambda: None) -> RolloutHeader:
        """Adopt the newest weights, play one rollout into the slot, and return its header (for sending *after*)."""
        version = self._weights.adopt()
        adopted = time.perf_counter()
        result, fault = RolloutResult(), None
        try:
            slot = self._slots.views(grant.slot, self._worker_id)
            result = self._player.play(slot, version, beat, opponent=grant.opponent)
            self._weights.verify()
        except (RolloutError, GameError) as error:
            fault = failure_of(error)
            self._player.reset_games()
        header = RolloutHeader(
            worker_id=self._worker_id,
            incarnation=self._incarnation,
            sequence=self._sequence,
            slot=grant.slot,
            policy_version=version,
            plies=self._slots.layout.num_games * self._slots.layout.num_plies,
            games=result.games,
            game_plies=result.game_plies,
            results=dict(result.results),
            outcomes=dict(result.outcomes),
            play_s=time.perf_counter() - adopted,
            wait_s=wait_s,
            opponents_in_use=result.opponents_in_use,
            opponent_results=result.opponent_results,
            fault=fault,
        )
        self._sequence += 1
        return header


class _PipeLogHandler(logging.Handler):
    """Sends log records to the learner, which prints them in one place."""

    def __init__(self, send: Callable[[LogRecord], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)[:_MAX_MESSAGE_CHARS]
        self._send(LogRecord(level=record.levelno, name=record.name, message=message))


def serve(
    make_worker: MakeWorker, *, worker_id: int, signs: SharedBuffer, connection: Connection[Any, ToWorker]
) -> None:
    """Be a worker process: play what is granted until told to stop.

    Ends with exit status 0 when told to stop, 1 after it has sent a :class:`Failure`.

    Args:
        make_worker: from its sign of life, which takes about a microsecond.
        worker_id: which line of the board of signs is its own.
        signs: memory of that board.
        connection: to the learner.
    """
    with as_child(connection) as post:
        board = HeartbeatBoard(signs)

        def beat() -> None:
            board.beat(worker_id)

        worker = make_worker(beat)
        post(Ready(pid=os.getpid()))
        idle_since = time.perf_counter()
        while True:
            beat()
            if not connection.poll(IDLE_BEAT_S):
                continue
            match connection.recv():
                case Play() as grant:
                    board.begin_rollout(worker_id)
                    try:
                        header = worker.play(grant, wait_s=time.perf_counter() - idle_since, beat=beat)
                    except LeaveError:
                        return
                    post(header)  # payload first, header last
                    idle_since = time.perf_counter()
                case ResetGames():
                    worker.reset_games()
                case Stop():
                    return


@contextlib.contextmanager
def as_child(connection: Connection[Any, Any]) -> Iterator[Post]:
    """Behave as a child of the learner: deaf to Ctrl-C, gone when it is, its log and its failures sent there.

    Yields:
        What sends a message, from any thread.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the learner alone answers it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the learner's handler may have been inherited
    faulthandler.register(signal.SIGUSR1, file=2)  # the supervisor asks a hung worker where it hangs
    _end_with_parent()
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of compilers beside each worker
    lock = threading.Lock()

    def post(message: Any) -> None:
        with lock:
            connection.send(message)

    logging.basicConfig(
        handlers=[_PipeLogHandler(post)], format="%(name)s: %(message)s", level=logging.INFO, force=True
    )
    logging.captureWarnings(True)
    try:
        yield post
    except (BrokenPipeError, ConnectionResetError):
        os._exit(1)  # the learner is gone: there is nobody to tell
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt in a game are failures too
        try:
            post(failure_of(error))
        finally:
            connection.close()
            os._exit(1)  # not sys.exit: a game's atexit hooks and threads must not keep a failed worker alive


def failure_of(error: BaseException) -> Failure:
    """An exception that is being handled, as text of bounded length."""
    return Failure(
        kind=type(error).__name__,
        message=_text(error)[:_MAX_MESSAGE_CHARS],
        traceback=traceback.format_exc()[-_MAX_TRACEBACK_CHARS:],
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a game's exception may do anything; what ends the worker must still be told
        return "its message cannot be shown"


def _end_with_parent() -> None:
    """Leave at once when the learner is gone, whatever this process is doing (a thread waits for it)."""
    parent = parent_process()
    if parent is None:
        return
    if hasattr(fcntl, "F_SETSIG"):
        # Linux ends even a worker that is stopped, or whose game holds the interpreter's lock: the sentinel is a pipe
        # of this worker's own, and the kernel sends SIGKILL when its other end closes.
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, fcntl.fcntl(parent.sentinel, fcntl.F_GETFL) | os.O_ASYNC)

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="keisei-parent-watch", daemon=True).start()
