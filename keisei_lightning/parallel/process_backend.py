"""``mode="workers"``: a process for each worker, with a copy of the policy."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from multiprocessing.connection import Connection
from typing import Any

from typing_extensions import override

from keisei_lightning.errors import WorkerBootError
from keisei_lightning.parallel.backend import Backend, WorkerInputs
from keisei_lightning.parallel.playing.policy_worker import WorkerBoot, run_worker
from keisei_lightning.parallel.supervision.events import Exited, Received, Started, Woken, WorkerHealth
from keisei_lightning.parallel.supervision.fork_server import start_context, starting_workers
from keisei_lightning.parallel.supervision.heartbeats import HeartbeatBoard
from keisei_lightning.parallel.supervision.messages import Play, ResetGames, RolloutHeader
from keisei_lightning.parallel.supervision.processes import ProcessHandle
from keisei_lightning.parallel.supervision.restarts import RestartPolicy, WorkerExit
from keisei_lightning.parallel.supervision.supervisor import Supervisor

__all__ = ["ProcessBackend"]

_START_ATTEMPTS = 3
_START_AGAIN_S = 0.2  # a fork server that is being killed is not gone at once


class ProcessBackend(Backend):
    """Worker processes under a :class:`Supervisor`.

    Args:
        inputs: what the workers receive.
        restart_policy: timeouts and budget.
        start_method: "forkserver", "spawn" or None for the best that this system offers.
        helpers: names of processes beside the workers.
        first_incarnations: see :class:`Supervisor`.
        wake_by: likewise; :meth:`wait` then returns.
    """

    def __init__(
        self,
        inputs: WorkerInputs,
        *,
        restart_policy: RestartPolicy,
        start_method: str | None = None,
        helpers: Sequence[str] = (),
        first_incarnations: Sequence[int] = (),
        wake_by: int | None = None,
    ) -> None:
        self.lost_rollouts = 0
        self._inputs = inputs
        num_workers = inputs.slots.layout.num_workers
        self._names = [*(f"worker {worker_id}" for worker_id in range(num_workers)), *helpers]
        self._heartbeats = HeartbeatBoard.reserve(len(self._names))
        self._context = start_context(start_method)
        self._outstanding: list[list[Play]] = [[] for _ in range(num_workers)]
        self._sequences: dict[tuple[int, int], int] = {}
        self._ended = [0] * num_workers  # rollouts that were announced or lost
        self._supervisor = Supervisor(
            self._spawn,
            num_workers=num_workers,
            policy=restart_policy,
            helpers=helpers,
            last_heartbeat=self._heartbeats.last_beat,
            resident_bytes=self._heartbeats.resident_bytes,
            abandon=_abandon,
            first_incarnations=first_incarnations,
            wake_by=wake_by,
        )

    @cached_property
    def _game_and_policy(self) -> bytes:
        return self._inputs.pickled(self._inputs.game, self._inputs.policy_structure())

    def _boot(self, worker_id: int, incarnation: int) -> tuple[Callable[..., None], Any]:
        """The target of a process, and its argument."""
        return run_worker, WorkerBoot(
            worker_id=worker_id,
            incarnation=incarnation,
            game_and_policy=self._game_and_policy,
            options=self._inputs.options,
            slots=self._inputs.slots,
            weights=self._inputs.weights,
            heartbeats=self._heartbeats.buffer,
            opponents=self._inputs.opponents,
        )

    def _spawn(self, worker_id: int, incarnation: int) -> tuple[ProcessHandle, Connection[Any, Any]]:
        self._heartbeats.clear(worker_id)
        target, boot = self._boot(worker_id, incarnation)
        name = f"keisei-worker-{worker_id}.{incarnation}"
        for attempt in itertools.count(1):
            # A pipe for each attempt: should a failed one have started a process after all, nothing reads its messages.
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=target, args=(boot, theirs), name=name, daemon=True)  # type: ignore[attr-defined]
            try:
                with starting_workers():
                    process.start()
                break
            except (EOFError, ConnectionError) as error:  # the fork server is dead: the next attempt starts another one
                ours.close()
                if attempt == _START_ATTEMPTS:
                    raise WorkerBootError(
                        f"{self._names[worker_id]} (incarnation {incarnation}) could not be started: the fork server, "
                        f"which starts it, was ended {attempt} times (likely out of memory, if nobody killed it)"
                    ) from error
                time.sleep(_START_AGAIN_S)
            finally:
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
        is_woken = False
        while True:
            for event in self._supervisor.wait(max(0.0, deadline - time.monotonic())):
                match event:
                    case Started(worker_id=worker_id):
                        self._on_started(worker_id)
                    case Received(message=RolloutHeader() as header):
                        self._accept(header, event.incarnation)
                        headers.append(header)
                    case Exited(exit=exit):
                        self._on_exited(exit)
                    case Woken():
                        is_woken = True
            if headers or is_woken or time.monotonic() >= deadline:
                return headers

    def _on_started(self, worker_id: int) -> None:
        for play in self._outstanding[worker_id]:
            self._supervisor.send(worker_id, play)

    def _on_exited(self, exit: WorkerExit) -> None:
        self._count_lost(exit.worker_id)

    def _count_lost(self, worker_id: int) -> None:
        """Count the rollout, if any, that a worker had begun and not announced when it died."""
        lost = self._heartbeats.rollouts_begun(worker_id) - self._ended[worker_id]
        self._ended[worker_id] += lost
        self.lost_rollouts += lost

    def _accept(self, header: RolloutHeader, incarnation: int) -> None:
        worker = (header.worker_id, header.incarnation)
        expected = self._sequences.get(worker, 0)
        if header.incarnation != incarnation or header.sequence != expected:
            raise RuntimeError(
                f"rollout {header.sequence} of worker {header.worker_id}.{header.incarnation} is out of order "
                f"(expected {expected} of incarnation {incarnation})"
            )
        self._sequences[worker] = expected + 1
        self._ended[header.worker_id] += 1 + header.lost_rollouts
        self.lost_rollouts += header.lost_rollouts
        plays = self._outstanding[header.worker_id]
        plays.remove(next(play for play in plays if play.slot == header.slot))

    @override
    def reset_games(self, worker_ids: Sequence[int]) -> None:
        for worker_id in worker_ids:
            self._supervisor.send(worker_id, ResetGames())  # not running: its games will be new anyway

    @override
    def games_in_flight(self) -> list[dict[str, Any]]:
        return []  # a worker may be within a rollout that will never be delivered

    @override
    def health(self) -> list[WorkerHealth]:
        return self._supervisor.health()

    @override
    def shutdown(self, timeout_s: float) -> None:
        self._supervisor.shutdown(timeout_s)
        self._heartbeats.buffer.close()


def _abandon(process: ProcessHandle) -> None:
    """Forget a child that does not end: otherwise multiprocessing waits for it, without limit, at exit."""
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
