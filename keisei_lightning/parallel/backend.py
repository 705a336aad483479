"""Where rollouts are played: in this process, or in worker processes. The collector sees the same four verbs."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import signal
import sys
import time
import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol

import cloudpickle
import torch
from torch import nn
from typing_extensions import override

from keisei_lightning.games import GameFactory
from keisei_lightning.parallel.messages import Play, ResetGames, RolloutHeader
from keisei_lightning.parallel.opponents import OpponentSetup
from keisei_lightning.parallel.restarts import RestartPolicy, WorkerState
from keisei_lightning.parallel.supervisor import Exited, ProcessHandle, Received, Started, Supervisor, WorkerHealth
from keisei_lightning.parallel.transport import SharedBuffer, SlotLayout
from keisei_lightning.parallel.vital_signs import VitalSigns
from keisei_lightning.parallel.weights import WeightMemory
from keisei_lightning.parallel.worker import PlayerOptions, RolloutWorker, WorkerBoot, run_worker

__all__ = ["Backend", "ProcessBackend", "SerialBackend", "Work", "choose_start_method", "make_backend"]

# Imported once by the fork server, so that a worker starts in a fraction of a second.
_PRELOAD = ("keisei_lightning.parallel.worker", "keisei_lightning.models", "keisei_lightning.games.shogi")


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is played, with what, into where.

    Attributes:
        game: makes the boards.
        policy: the learner's; its structure is copied, its weights come through ``weights``.
        options: how to play.
        slots: memory of the slots.
        slot_layout: where its columns lie.
        weights: published weights.
        opponents: snapshots to play against; None: every game is self-play.
        games_in_flight: of each worker, to go on with (serial only); empty to begin anew.
    """

    game: GameFactory
    policy: nn.Module
    options: PlayerOptions
    slots: SharedBuffer
    slot_layout: SlotLayout
    weights: WeightMemory
    opponents: OpponentSetup | None = None
    games_in_flight: Sequence[Mapping[str, Any]] = ()

    def policy_structure(self) -> nn.Module:
        """The policy without its weights (on the meta device): what a worker fills with adopted ones."""
        return copy.deepcopy(self.policy).to("meta")


class Backend(Protocol):
    """Plays rollouts for the collector."""

    lost_rollouts: int

    def start(self) -> None:
        """Start playing; returns before all workers are ready."""
        ...

    def grant(self, worker_id: int, play: Play) -> None:
        """Let a worker write one rollout into a slot (kept for its replacement if it dies)."""
        ...

    def wait(self, timeout_s: float) -> list[RolloutHeader]:
        """Block until rollouts are announced, at most ``timeout_s``; raise what ended a worker for good."""
        ...

    def reset_games(self, worker_ids: Sequence[int]) -> None:
        """Let workers begin all their games anew before their next rollout."""
        ...

    def games_in_flight(self) -> list[dict[str, Any]]:
        """The games of each worker, between two rollouts; empty where they are not kept."""
        ...

    def health(self) -> list[WorkerHealth]:
        """Every worker's state now."""
        ...

    def shutdown(self, timeout_s: float) -> None:
        """End everything; twice is harmless."""
        ...


def choose_start_method(start_method: str | None = None) -> str:
    """The given start method, or forkserver where there is one (never fork: torch has threads), else spawn."""
    if start_method is not None:
        return start_method
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


class SerialBackend(Backend):
    """All workers' rollouts, one after another, in the learner's process: the same code, the same bits, no process."""

    def __init__(self, work: Work) -> None:
        self.lost_rollouts = 0
        self._work = work
        self._workers: list[RolloutWorker] = []
        self._granted: deque[tuple[int, Play]] = deque()

    @override
    def start(self) -> None:
        work = self._work
        for worker_id in range(work.slot_layout.num_workers):
            self._workers.append(
                RolloutWorker(
                    worker_id=worker_id,
                    incarnation=0,
                    game=work.game,
                    policy=work.policy_structure(),
                    options=work.options,
                    slots=work.slots.array(),
                    slot_layout=work.slot_layout,
                    weights=work.weights,
                    opponents=work.opponents,
                )
            )
        if len(work.games_in_flight) == len(self._workers):
            for worker, state in zip(self._workers, work.games_in_flight, strict=True):
                worker.load_state_dict(state)

    @override
    def grant(self, worker_id: int, play: Play) -> None:
        self._granted.append((worker_id, play))

    @override
    def games_in_flight(self) -> list[dict[str, Any]]:
        states = [worker.state_dict() for worker in self._workers]
        return [] if None in states else [state for state in states if state is not None]

    @override
    def wait(self, timeout_s: float) -> list[RolloutHeader]:
        if not self._granted:
            return []
        worker_id, play = self._granted.popleft()
        threads = torch.get_num_threads()
        torch.set_num_threads(self._work.options.num_threads)  # as in a worker: the sums are split the same way
        try:
            return [self._workers[worker_id].play(play)]
        finally:
            torch.set_num_threads(threads)

    @override
    def reset_games(self, worker_ids: Sequence[int]) -> None:
        for worker_id in worker_ids:
            self._workers[worker_id].reset_games()

    @override
    def health(self) -> list[WorkerHealth]:
        return [
            WorkerHealth(
                worker_id=worker_id,
                state=WorkerState.RUNNING if self._workers else WorkerState.DEAD,
                pid=os.getpid(),
                incarnation=0,
                restarts=0,
                last_sign_of_life_s=0.0,
            )
            for worker_id in range(self._work.slot_layout.num_workers)
        ]

    @override
    def shutdown(self, timeout_s: float) -> None:
        self._workers.clear()
        self._granted.clear()


class ProcessBackend(Backend):
    """Workers as processes under a :class:`Supervisor`.

    Args:
        work: what they play.
        restart_policy: timeouts and budget.
        start_method: "forkserver", "spawn" or None for the best there is.
    """

    def __init__(self, work: Work, *, restart_policy: RestartPolicy, start_method: str | None = None) -> None:
        self.lost_rollouts = 0
        self._work = work
        num_workers = work.slot_layout.num_workers
        self._signs = VitalSigns.reserve(num_workers)
        self._context = multiprocessing.get_context(choose_start_method(start_method))
        if self._context.get_start_method() == "forkserver":
            self._context.set_forkserver_preload(list(_PRELOAD))
        self._game_and_policy = cloudpickle.dumps((work.game, work.policy_structure()))
        self._outstanding: list[list[Play]] = [[] for _ in range(num_workers)]
        self._sequences: dict[tuple[int, int], int] = {}
        self._ended = [0] * num_workers  # rollouts that were announced or lost
        self._supervisor = Supervisor(
            self._spawn,
            num_workers=num_workers,
            policy=restart_policy,
            last_beat=self._signs.last_beat,
            resident_bytes=self._signs.resident_bytes,
        )

    def _spawn(self, worker_id: int, incarnation: int) -> tuple[ProcessHandle, Connection[Any, Any]]:
        self._signs.forget(worker_id)
        ours, theirs = self._context.Pipe()
        boot = WorkerBoot(
            worker_id=worker_id,
            incarnation=incarnation,
            game_and_policy=self._game_and_policy,
            options=self._work.options,
            slots=self._work.slots,
            slot_layout=self._work.slot_layout,
            weights=self._work.weights,
            signs=self._signs.buffer,
            opponents=self._work.opponents,
        )
        process = self._context.Process(  # type: ignore[attr-defined]
            target=run_worker, args=(boot, theirs), name=f"keisei-worker-{worker_id}.{incarnation}", daemon=True
        )
        with _without_main_module(), _deaf_to_ctrl_c():
            process.start()
        theirs.close()  # else the pipe would not end with the worker
        return process, ours

    @override
    def start(self) -> None:
        self._supervisor.start()

    @override
    def grant(self, worker_id: int, play: Play) -> None:
        self._outstanding[worker_id].append(play)
        self._supervisor.send(worker_id, play)  # not running: sent again when it is

    @override
    def wait(self, timeout_s: float) -> list[RolloutHeader]:
        deadline = time.monotonic() + timeout_s
        headers: list[RolloutHeader] = []
        while True:
            for event in self._supervisor.wait(max(0.0, deadline - time.monotonic())):
                match event:
                    case Started(worker_id=worker_id):
                        for play in self._outstanding[worker_id]:
                            self._supervisor.send(worker_id, play)
                    case Received(message=RolloutHeader() as header):
                        self._accept(header, event.incarnation)
                        headers.append(header)
                    case Exited(exit=exit):
                        self._count_lost(exit.worker_id)
            if headers or time.monotonic() >= deadline:
                return headers

    def _count_lost(self, worker_id: int) -> None:
        """Count what a worker had begun and not announced when it died: at most one rollout."""
        lost = self._signs.rollouts_begun(worker_id) - self._ended[worker_id]
        self._ended[worker_id] += lost
        self.lost_rollouts += lost

    def _accept(self, header: RolloutHeader, incarnation: int) -> None:
        life = (header.worker_id, header.incarnation)
        expected = self._sequences.get(life, 0)
        if header.incarnation != incarnation or header.sequence != expected:
            raise RuntimeError(
                f"rollout {header.sequence} of worker {header.worker_id}.{header.incarnation} is out of order "
                f"(expected {expected} of incarnation {incarnation})"
            )
        self._sequences[life] = expected + 1
        self._ended[header.worker_id] += 1
        plays = self._outstanding[header.worker_id]
        plays.remove(next(play for play in plays if play.slot == header.slot))

    @override
    def reset_games(self, worker_ids: Sequence[int]) -> None:
        for worker_id in worker_ids:
            self._supervisor.send(worker_id, ResetGames())  # not running: its games begin anew anyway

    @override
    def games_in_flight(self) -> list[dict[str, Any]]:
        return []  # a worker may be in the middle of a rollout that will never be delivered

    @override
    def health(self) -> list[WorkerHealth]:
        return self._supervisor.health()

    @override
    def shutdown(self, timeout_s: float) -> None:
        self._supervisor.shutdown(timeout_s)
        self._signs.buffer.close()


def make_backend(
    mode: Literal["serial", "workers"], work: Work, *, restart_policy: RestartPolicy, start_method: str | None
) -> Backend:
    """The backend of a mode; it starts nothing yet."""
    if mode == "serial":
        return SerialBackend(work)
    return ProcessBackend(work, restart_policy=restart_policy, start_method=start_method)


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Start a child that SIGINT does not reach, not even before it can say so: the learner alone answers Ctrl-C.

    A signal mask is inherited. Without it the fork server, which first imports torch for seconds, would show a
    traceback. For this process a Ctrl-C is only put off.
    """
    resource_tracker.ensure_running()  # it would unblock SIGINT as it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Start a child that does not import the user's script again.

    multiprocessing imports the main module anew in every child, so that functions of a script can be unpickled. Here
    they travel by cloudpickle, and importing a script (with Lightning and Hydra at its top, or without an
    ``if __name__ == "__main__"``) would cost seconds for each worker, or start the training again in each.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
