"""A worker process: its boot, its loop, its end.

It waits for :class:`Play`, adopts the newest weights, plays one rollout into the slot it was given, and announces it.
It consumes grants; it waits for nothing else; it ends when told to, when it fails (saying why), or with its parent.
"""

from __future__ import annotations

import copy
import faulthandler
import fcntl
import logging
import math
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from keisei_lightning.errors import GameError, RolloutError
from keisei_lightning.games import GameFactory
from keisei_lightning.parallel.acting import acting_policy
from keisei_lightning.parallel.messages import (
    Failure,
    LogRecord,
    Play,
    Ready,
    ResetGames,
    RolloutHeader,
    Stop,
    ToWorker,
)
from keisei_lightning.parallel.opponents import OpponentBoards, OpponentSetup
from keisei_lightning.parallel.rollout import RolloutPlayer, RolloutResult
from keisei_lightning.parallel.transport import SharedBuffer, SlotLayout
from keisei_lightning.parallel.vital_signs import VitalSigns
from keisei_lightning.parallel.weights import WeightMemory, WeightReader

__all__ = ["PlayerOptions", "RolloutWorker", "WorkerBoot", "run_worker"]

_MAX_MESSAGE_CHARS = 2_000
_MAX_TRACEBACK_CHARS = 20_000
_QUICK_PLY_S = 0.05  # a tenth of the shortest heartbeat
_IDLE_BEAT_S = 0.25  # how often an idle worker shows life; also how soon it notices that it may beat


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayerOptions:
    """How every worker plays.

    Attributes:
        device: of the policy in the worker: a torch device, or "auto" (the CUDA devices in turn, else the CPU).
        num_threads: of torch in the worker.
        seed: the run's.
        start: plies delivered before this start (above 0 in a resumed run): keeps its random streams apart.
        stagger_games: begin the first games somewhere in their course.
        augment_symmetry: play half of the games mirrored.
    """

    device: str
    num_threads: int
    seed: int = 0
    start: int = 0
    stagger_games: bool
    augment_symmetry: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerBoot:
    """Everything a worker needs; pickled once for each start.

    Attributes:
        worker_id: which worker.
        incarnation: which life of it.
        game_and_policy: cloudpickled (game factory, policy without weights), so that classes of a script or a notebook
            arrive too.
        options: how to play.
        slots: memory of the slots.
        slot_layout: where its columns lie.
        weights: published weights.
        signs: memory of the workers' signs of life.
        opponents: snapshots to play against; None: every game is self-play.
    """

    worker_id: int
    incarnation: int
    game_and_policy: bytes
    options: PlayerOptions
    slots: SharedBuffer
    slot_layout: SlotLayout
    weights: WeightMemory
    signs: SharedBuffer
    opponents: OpponentSetup | None = None


class RolloutWorker:
    """The work of one worker, without the process around it (``mode="serial"`` runs it in the learner).

    Args:
        worker_id: which worker.
        incarnation: which life of it.
        game: makes its boards.
        policy: the structure; its parameters and buffers are replaced by views of adopted weights.
        options: how to play.
        slots: memory of the slots, uint8 [slot_layout.num_bytes].
        slot_layout: where its columns lie.
        weights: published weights.
        opponents: snapshots to play against; None: every game is self-play.
    """

    def __init__(
        self,
        *,
        worker_id: int,
        incarnation: int,
        game: GameFactory,
        policy: nn.Module,
        options: PlayerOptions,
        slots: NDArray[np.uint8],
        slot_layout: SlotLayout,
        weights: WeightMemory,
        opponents: OpponentSetup | None = None,
    ) -> None:
        self._worker_id, self._incarnation, self._sequence = worker_id, incarnation, 0
        self._slots, self._slot_layout = slots, slot_layout
        device = _resolve_device(options.device, worker_id)
        structure = None if opponents is None else copy.deepcopy(policy)
        self._reader = WeightReader(weights, reader_id=worker_id, module=policy, device=device)
        policy.eval()
        boards = game(slot_layout.num_games)
        self._player = RolloutPlayer(
            game=boards,
            policy=acting_policy(policy, num_actions=boards.spec.num_actions),
            num_plies=slot_layout.num_plies,
            worker_id=worker_id,
            incarnation=incarnation,
            seed=options.seed,
            start=options.start,
            stride=slot_layout.num_workers * slot_layout.num_games * slot_layout.num_plies,
            device=device,
            stagger_games=options.stagger_games,
            augment_symmetry=options.augment_symmetry,
            opponents=None
            if opponents is None or structure is None
            else OpponentBoards(
                opponents,
                structure=structure,
                num_games=slot_layout.num_games,
                num_actions=boards.spec.num_actions,
                device=device,
            ),
        )

    def reset_games(self) -> None:
        """Let all games begin anew with the next rollout."""
        self._player.reset_games()

    def state_dict(self) -> dict[str, Any] | None:
        """The games in flight (see :meth:`RolloutPlayer.state_dict`)."""
        return self._player.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with games in flight; before the first rollout."""
        self._player.load_state_dict(state)

    def play(self, grant: Play, *, wait_s: float = 0.0, beat: Callable[[], None] = lambda: None) -> RolloutHeader:
        """Adopt the newest weights, play one rollout into the slot, and return its header (for sending *after*)."""
        start = time.perf_counter()
        version = self._reader.adopt()
        adopted = time.perf_counter()
        result, fault = RolloutResult(), None
        try:
            slot = self._slot_layout.views(self._slots, grant.slot, self._worker_id)
            result = self._player.play(slot, version, beat, opponent=grant.opponent)
            self._reader.verify()
        except (RolloutError, GameError) as error:
            fault = failure_of(error)
            self._player.reset_games()
        header = RolloutHeader(
            worker_id=self._worker_id,
            incarnation=self._incarnation,
            sequence=self._sequence,
            slot=grant.slot,
            policy_version=version,
            plies=self._slot_layout.num_games * self._slot_layout.num_plies,
            games=result.games,
            game_plies=result.game_plies,
            results=dict(result.results),
            outcomes=dict(result.outcomes),
            play_s=time.perf_counter() - adopted,
            wait_s=wait_s,
            adopt_s=adopted - start,
            opponents_in_use=result.opponents_in_use,
            opponent_results=result.opponent_results,
            fault=fault,
        )
        self._sequence += 1
        return header


def _resolve_device(device: str, worker_id: int) -> torch.device:
    if device != "auto":
        return torch.device(device)
    count = torch.cuda.device_count()
    return torch.device(f"cuda:{worker_id % count}" if count else "cpu")


class _PipeLogHandler(logging.Handler):
    """Sends log records to the learner, which prints them in one place."""

    def __init__(self, send: Callable[[LogRecord], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)[:_MAX_MESSAGE_CHARS]
        self._send(LogRecord(level=record.levelno, name=record.name, message=message))


def run_worker(boot: WorkerBoot, connection: Connection[Any, Any]) -> None:
    """Target of a worker process.

    Ends with exit status 0 when told to stop, 1 after it has sent a :class:`Failure`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the learner alone answers it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the learner's handler may have been inherited
    faulthandler.register(signal.SIGUSR1, file=2)  # the supervisor asks a hung worker where it hangs
    _end_with_parent()
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock:
            connection.send(message)

    logging.basicConfig(
        handlers=[_PipeLogHandler(send)], format="%(name)s: %(message)s", level=logging.INFO, force=True
    )
    logging.captureWarnings(True)
    try:
        worker = _boot(boot)
        send(Ready(pid=os.getpid()))
        _serve(worker, boot, connection, send)
    except (BrokenPipeError, ConnectionResetError):
        os._exit(1)  # the learner is gone: there is nobody to tell
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
    except Exception:  # noqa: BLE001 - a game's exception may do anything; what ends the worker must still be told
        return "its message cannot be shown"


def _boot(boot: WorkerBoot) -> RolloutWorker:
    torch.set_num_threads(boot.options.num_threads)
    game, policy = cloudpickle.loads(boot.game_and_policy)
    return RolloutWorker(
        worker_id=boot.worker_id,
        incarnation=boot.incarnation,
        game=game,
        policy=policy,
        options=boot.options,
        slots=boot.slots.array(),
        slot_layout=boot.slot_layout,
        weights=boot.weights,
        opponents=boot.opponents,
    )


def _serve(
    worker: RolloutWorker, boot: WorkerBoot, connection: Connection[Any, ToWorker], send: Callable[[Any], None]
) -> None:
    signs = VitalSigns(boot.signs)

    def beat() -> None:
        signs.beat(boot.worker_id)

    layers = _LayerBeats(beat)
    idle_since = time.perf_counter()
    while True:
        beat()
        if not connection.poll(_IDLE_BEAT_S):
            continue
        match connection.recv():
            case Play() as grant:
                signs.begin_rollout(boot.worker_id)
                header = worker.play(grant, wait_s=time.perf_counter() - idle_since, beat=beat)
                send(header)  # payload first, header last
                layers.adapt(header.play_s / boot.slot_layout.num_plies)
                idle_since = time.perf_counter()
            case ResetGames():
                worker.reset_games()
            case Stop():
                return


class _LayerBeats:
    """Makes every layer of a forward pass a sign of life, where a pass is slow.

    In a network of a few small layers the hook would take a sixth of the time, and a ply is sign enough there.
    """

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._hook: RemovableHandle | None = None
        self.adapt(math.inf)  # until the first rollout has shown how long a ply takes

    def adapt(self, ply_s: float) -> None:
        """Decide anew, by how long a ply has taken."""
        if ply_s < _QUICK_PLY_S and self._hook is not None:
            self._hook.remove()
            self._hook = None
        elif ply_s >= _QUICK_PLY_S and self._hook is None:
            self._hook = register_module_forward_pre_hook(lambda module, args: self._beat())


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
