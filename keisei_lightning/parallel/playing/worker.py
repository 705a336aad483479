"""A worker process: its start, its loop, its end. It knows no torch: its maker chooses what evaluates positions.

It waits for :class:`Play`, adopts the newest weights, plays one rollout into the granted slot, and announces it. It
consumes grants and waits for nothing else. It ends on :class:`Stop`, after a failure (which it reports), or with its
parent.
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
from keisei_lightning.parallel.playing.streams import RolloutStreams
from keisei_lightning.parallel.policy.inference_requests import PolicyServer
from keisei_lightning.parallel.supervision.heartbeats import IDLE_BEAT_S, HeartbeatBoard
from keisei_lightning.parallel.supervision.messages import (
    BoardView,
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
    "MakeWorker",
    "Player",
    "PlayerOptions",
    "RolloutWorker",
    "Send",
    "WeightSource",
    "Worker",
    "WorkerStoppedError",
    "child_process",
    "make_player",
    "serve",
]

_MAX_MESSAGE_CHARS = 2_000
_MAX_TRACEBACK_CHARS = 20_000

Beat = Callable[[], None]
"""Sends a heartbeat."""

Send = Callable[[Any], None]
"""Sends a message to the learner."""

MakeWorker = Callable[[Beat], "Worker"]
"""Makes a worker, which sends heartbeats by the given function."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayerOptions:
    """How every worker plays.

    Attributes:
        device: of the policy in the worker: a torch device, or "auto" (the CUDA devices in turn, else the CPU).
        precision: of the policy's arithmetic there: "32-true" or "bf16-mixed" (float32 weights), as Lightning's.
        num_threads: of torch in the worker.
        compile_mode: of ``torch.compile`` for its network; None: not compiled.
        seed: root seed of every random stream.
        start: plies delivered before this start (above 0 in a resumed run): makes its random streams new ones.
        first_worker: number of this machine's and this learner's first worker among all: no two workers have the same
            random streams.
        plies_per_batch: of all machines' and learners' workers together; None: there are none but these.
        stagger_games: begin the first games somewhere in their course.
        augment_symmetry: play half of the games mirrored.
    """

    device: str
    precision: str
    num_threads: int
    compile_mode: str | None = None
    seed: int = 0
    start: int = 0
    first_worker: int = 0
    plies_per_batch: int | None = None
    stagger_games: bool
    augment_symmetry: bool


class WorkerStoppedError(Exception):
    """The worker is to end without a further message: the collector is shutting down."""


def make_player(
    game: Game,
    server: PolicyServer,
    *,
    worker_id: int,
    incarnation: int,
    options: PlayerOptions,
    slot_layout: SlotLayout,
    opponents: OpponentBoards | None = None,
    group: int = 0,
) -> RolloutPlayer:
    """Make the player of a worker's games, or of one group of them (see :class:`RolloutPlayer`)."""
    return RolloutPlayer(
        game=game,
        server=server,
        num_plies=slot_layout.num_plies,
        streams=RolloutStreams(
            seed=options.seed,
            worker_id=options.first_worker + worker_id,
            incarnation=incarnation,
            position=options.start,
            stride=options.plies_per_batch or slot_layout.plies_per_batch,
            group=group,
        ),
        stagger_games=options.stagger_games,
        augment_symmetry=options.augment_symmetry,
        opponents=opponents,
    )


class WeightSource(Protocol):
    """A source of the policy's weights. Between two calls of :meth:`adopt` they do not change."""

    def adopt(self) -> int:
        """Let the policy use the latest weights; returns their version."""
        ...

    def verify(self) -> None:
        """Check that they have not been written to since."""
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

    def draw_boards(self, num_boards: int) -> tuple[BoardView, ...]:
        """Draw the first boards, after a rollout."""
        ...

    def reset_games(self) -> None:
        """Begin new games, on all boards, with the next rollout."""
        ...

    def close(self) -> None:
        """End what it holds beside memory, such as opponents' processes; may be repeated."""
        ...


class Worker(Protocol):
    """The interface that a worker process serves."""

    def play(self, grant: Play, *, wait_s: float = 0.0, beat: Beat = ...) -> RolloutHeader:
        """Play one rollout and return its header."""
        ...

    def reset_games(self) -> None:
        """Begin new games, on all boards, with the next rollout."""
        ...

    def close(self) -> None:
        """End what it holds beside memory, such as opponents' processes; may be repeated."""
        ...


class RolloutWorker(Worker):
    """A worker without the process around it.

    Args:
        worker_id: which worker.
        incarnation: of the worker.
        weights: of the policy.
        player: plays the games.
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
    def close(self) -> None:
        self._player.close()

    @override
    def play(self, grant: Play, *, wait_s: float = 0.0, beat: Beat = lambda: None) -> RolloutHeader:
        """Adopt the newest weights, play one rollout into the slot, and return its header, to be sent *after*."""
        version = self._weights.adopt()
        adopted = time.perf_counter()
        result, failure = RolloutResult(), None
        try:
            slot = self._slots.views(grant.slot, self._worker_id)
            result = self._player.play(slot, version, beat, opponent=grant.opponent)
            self._weights.verify()
        except (RolloutError, GameError) as error:
            failure = failure_of(error)
            self._player.reset_games()
        play_s = time.perf_counter() - adopted
        beat()
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
            play_s=play_s,
            wait_s=wait_s,
            opponents_in_use=result.opponents_in_use,
            opponent_results=result.opponent_results,
            opponent_voids=result.opponent_voids,
            boards=self._player.draw_boards(grant.boards_to_draw) if grant.boards_to_draw and not failure else (),
            failure=failure,
        )
        self._sequence += 1
        return header


class _PipeLogHandler(logging.Handler):
    """Sends log records to the learner, which logs those of all workers."""

    def __init__(self, send: Callable[[LogRecord], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)[:_MAX_MESSAGE_CHARS]
        self._send(LogRecord(level=record.levelno, name=record.name, message=message))


def serve(
    make_worker: MakeWorker, *, worker_id: int, heartbeats: SharedBuffer, connection: Connection[Any, ToWorker]
) -> None:
    """Run the loop of a worker process: play granted rollouts until :class:`Stop` comes.

    The process ends with exit status 0 after :class:`Stop`, with 1 after it has sent a :class:`Failure`.

    Args:
        make_worker: makes the worker; a heartbeat takes about a microsecond.
        worker_id: its line of the heartbeat board.
        heartbeats: memory of that board.
        connection: to the learner.
    """
    with child_process(connection) as send:
        board = HeartbeatBoard(heartbeats)

        def beat() -> None:
            board.beat(worker_id)

        worker = make_worker(beat)
        send(Ready(pid=os.getpid()))
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
                    except WorkerStoppedError:
                        worker.close()
                        return
                    send(header)  # payload first, header last
                    idle_since = time.perf_counter()
                case ResetGames():
                    worker.reset_games()
                case Stop():
                    worker.close()
                    return


@contextlib.contextmanager
def child_process(connection: Connection[Any, Any]) -> Iterator[Send]:
    """Context of a child process: it ignores Ctrl-C, ends with the learner, and sends its log and failures there.

    Yields:
        A function that sends a message to the learner, from any thread.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group: only the learner handles it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the learner's handler may have been inherited
    faulthandler.register(signal.SIGUSR1, file=2)  # the supervisor has a hung worker dump its stacks
    _end_with_parent()
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of compiler processes for each worker
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock:
            connection.send(message)

    logging.basicConfig(
        handlers=[_PipeLogHandler(send)], format="%(name)s: %(message)s", level=logging.INFO, force=True
    )
    logging.captureWarnings(True)
    try:
        yield send
    except (BrokenPipeError, ConnectionResetError):
        os._exit(1)  # the learner has ended: nothing reads a failure
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt in a game are failures too
        try:
            send(failure_of(error))
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
    except Exception:  # noqa: BLE001 - a game's exception may do anything; the failure must still be reported
        return "its message cannot be shown"


def _end_with_parent() -> None:
    """End this process as soon as the learner ends, whatever it is doing (a thread waits for that)."""
    parent = parent_process()
    if parent is None:
        return
    if hasattr(fcntl, "F_SETSIG"):
        # On Linux this ends even a worker that is stopped, or whose game holds the interpreter's lock: the sentinel is
        # a pipe of this worker's own, and the kernel sends SIGKILL when its other end closes.
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, fcntl.fcntl(parent.sentinel, fcntl.F_GETFL) | os.O_ASYNC)

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="keisei-parent-watch", daemon=True).start()
