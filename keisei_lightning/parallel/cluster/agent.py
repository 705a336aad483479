"""A node agent: supervises the workers of one machine, and tells the learner of them. It does not know Ray.

Four threads at most are in it at once, and none waits for another: the pump (which owns the supervisor), a poll, a
transfer of weights, an order. Orders go to the pump through a queue; a byte in a pipe wakes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError
from keisei_lightning.parallel.backend import Backend, WorkerInputs
from keisei_lightning.parallel.cluster.messages import AgentBoot, Grant, Parcel, Report, Rollout
from keisei_lightning.parallel.memory.slots import Slots
from keisei_lightning.parallel.memory.weights import WeightStore
from keisei_lightning.parallel.opponents.memory import OpponentSetup, SnapshotMemory
from keisei_lightning.parallel.playing.worker import failure_of
from keisei_lightning.parallel.process_backend import ProcessBackend
from keisei_lightning.parallel.supervision.events import WorkerHealth
from keisei_lightning.parallel.supervision.messages import Failure, LogRecord, RolloutHeader
from keisei_lightning.system.machine import resident_memory

__all__ = ["Fetch", "MakeBackend", "NodeAgent"]

_MAX_LOGS = 200  # records between two reports; the oldest go first
_MEMORY_EVERY_S = 1.0  # how often processes' memory is measured
_END_S = 1.0  # more than the backend's own limit, for the pump to end

Fetch = Callable[[Any, float], NDArray[np.uint8]]
"""Gets the data of a parcel within so many seconds, or raises TimeoutError."""


class MakeBackend(Protocol):
    """Makes what plays on this machine."""

    def __call__(self, inputs: WorkerInputs, boot: AgentBoot, wake_by: int) -> Backend:
        """Make it; ``wake_by`` is the descriptor that ends a wait."""
        ...


def _process_backend(inputs: WorkerInputs, boot: AgentBoot, wake_by: int) -> Backend:
    return ProcessBackend(
        inputs,
        restart_policy=boot.restart_policy,
        start_method=boot.start_method,
        first_incarnations=boot.first_incarnations,
        wake_by=wake_by,
    )


class NodeAgent:
    """Plays rollouts on its machine, for the learner's collector on another. It starts at once.

    Args:
        boot: what to play, and how.
        fetch: gets the data of a parcel.
        make_backend: makes what plays; replaced by tests.

    Raises:
        ConfigError: the game or the policy cannot be loaded here, or this machine has not enough memory.
    """

    def __init__(self, boot: AgentBoot, *, fetch: Fetch, make_backend: MakeBackend = _process_backend) -> None:
        self._boot, self._fetch = boot, fetch
        game, policy = _loaded(boot)
        self._slots = Slots.reserve(boot.slots)
        self._weights = WeightStore(boot.codec.layout, boot.slots.num_workers)
        snapshots = boot.snapshots
        self._snapshots = (
            None if snapshots is None else SnapshotMemory.reserve(boot.codec.layout, snapshots.num_buffers)
        )
        if self._snapshots is not None:
            self._snapshots.versions.array()[:] = -1
        self._wake_by, self._wake_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        inputs = WorkerInputs(
            game=game,
            policy=policy,
            options=boot.options,
            slots=self._slots,
            weights=self._weights.memory,
            opponents=None
            if snapshots is None or self._snapshots is None
            else OpponentSetup(
                memory=self._snapshots,
                share=snapshots.share,
                players=snapshots.players,
                patience_s=snapshots.patience_s,
            ),
        )
        self._backend = make_backend(inputs, boot, self._wake_by)
        self._orders: deque[Callable[[], None]] = deque()
        self._grants: list[Grant] = []  # that wait for weights
        self._numbers: dict[tuple[int, int], int] = {}  # of the newest grant, by worker and slot
        self._news = threading.Condition()
        self._rollouts: list[Rollout] = []  # that the learner has not accepted
        self._workers: tuple[WorkerHealth, ...] = ()
        self._sequence, self._beats, self._lost = 0, 0, 0
        self._failure: Failure | None = None
        self._has_ended = False
        self._stop_within_s: float | None = None
        self._memory: dict[int | None, int | None] = {}
        self._memory_due = 0.0
        self._logs: deque[LogRecord] = deque(maxlen=_MAX_LOGS)
        self._pump = threading.Thread(target=self._run, name="keisei-agent", daemon=True)
        self._pump.start()

    # ---- what the learner calls, each in a thread of its own

    def poll(self, accepted: int) -> Report:
        """Wait for rollouts, at most until the pump's next beat: a pump that hangs answers no poll.

        Args:
            accepted: sequence of the last rollout that the learner has: it and those before are forgotten.

        Returns:
            All rollouts that the learner does not have, also those of an answer that was lost on the way. Their slots
            stay as they are until the learner grants them again, which it does when it has them.
        """
        with self._news:
            self._rollouts = [rollout for rollout in self._rollouts if rollout.sequence > accepted]
            beats = self._beats
            self._news.wait_for(lambda: self._rollouts or self._beats > beats or self._has_ended)
            logs = tuple(self._logs)
            self._logs.clear()
            return Report(
                pid=os.getpid(),
                rollouts=tuple(self._rollouts),
                workers=self._workers,
                lost_rollouts=self._lost,
                version=self._weights.latest_version,
                rss_bytes=self._memory.get(os.getpid()),
                logs=logs,
                failure=self._failure,
            )

    def grant(self, grant: Grant) -> None:
        """Let a worker play a rollout, as soon as the weights and the snapshot are here; twice is harmless."""
        self._order(lambda: self._take(grant))

    def _take(self, grant: Grant) -> None:
        if grant.number > self._numbers.get((grant.worker, grant.play.slot), 0):
            self._numbers[grant.worker, grant.play.slot] = grant.number
            self._grants.append(grant)

    def reset_games(self, workers: tuple[int, ...]) -> None:
        """Let workers begin new games with their next rollout."""
        self._order(lambda: self._backend.reset_games(workers))

    def receive(self, parcel: Parcel) -> bool:
        """Fetch weights, and publish them to the workers of this machine.

        Returns:
            Whether they are here; if not, the learner sends them again.

        Raises:
            WeightsError: they do not fit.
            TimeoutError: they could not be fetched, and this was the last try.
        """
        if self._has(parcel):  # it was sent again
            return True
        try:
            data = self._fetch(parcel.data, parcel.within_s)
        except TimeoutError:
            if parcel.is_last_try:
                raise
            return False
        flat = self._boot.codec.decode(data)
        tensors = self._boot.codec.layout.views(flat)
        if parcel.buffer is None:
            self._weights.publish(tensors, parcel.version)
        else:
            assert self._snapshots is not None
            self._snapshots.write(parcel.buffer, tensors, parcel.version)
        self._wake()
        return True

    def _has(self, parcel: Parcel) -> bool:
        if parcel.buffer is None:
            return parcel.version <= self._weights.latest_version
        assert self._snapshots is not None
        return int(self._snapshots.versions.array()[parcel.buffer]) == parcel.version

    def stop(self, timeout_s: float) -> None:
        """End all workers; returns when they have ended, within ``timeout_s`` + 2 s; twice is harmless."""
        with self._news:
            if self._stop_within_s is None:
                self._stop_within_s = timeout_s
        self._wake()
        self._pump.join(timeout_s + 2 * _END_S)

    # ---- the pump

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        self._wake()

    def _wake(self) -> None:
        with self._news, contextlib.suppress(BlockingIOError):  # the pipe is full: it will wake
            if not self._has_ended:
                os.write(self._wake_fd, b"\0")

    def _run(self) -> None:
        """Own the backend, from its start to its end."""
        handler = _Recorder(self._logs)
        logger = logging.getLogger("keisei_lightning")
        logger.addHandler(handler)
        logger.propagate = False  # Ray would print them too
        try:
            self._backend.start()
            while self._stop_within_s is None:
                while self._orders:
                    self._orders.popleft()()
                self._pass_on_grants()
                self._tell(self._backend.wait(self._boot.beat_s))
        except BaseException as error:  # noqa: BLE001 - a third party's SystemExit too; the learner raises it
            failure = failure_of(error)
            with self._news:
                self._failure = failure
        finally:
            self._close()
            logger.removeHandler(handler)

    def _pass_on_grants(self) -> None:
        waiting, self._grants = self._grants, []
        for grant in waiting:
            if self._may_play(grant):
                self._backend.grant(grant.worker, grant.play)
            else:
                self._grants.append(grant)

    def _may_play(self, grant: Grant) -> bool:
        if self._weights.latest_version < grant.version:
            return False
        opponent = grant.play.opponent
        if opponent is None or opponent.buffer is None:
            return True
        assert self._snapshots is not None
        return int(self._snapshots.versions.array()[opponent.buffer]) == opponent.version

    def _tell(self, headers: list[RolloutHeader]) -> None:
        now = time.monotonic()
        if now >= self._memory_due:
            self._memory_due = now + _MEMORY_EVERY_S
            self._memory = {worker.pid: resident_memory(worker.pid) for worker in self._backend.health()}
            self._memory[os.getpid()] = resident_memory(os.getpid())
        workers = tuple(
            dataclasses.replace(
                worker,
                policy_version=self._weights.adopted_version(worker.worker_id),
                rss_bytes=self._memory.get(worker.pid),
            )
            for worker in self._backend.health()
        )
        with self._news:
            for header in headers:
                self._sequence += 1
                columns = self._slots.views(header.slot, header.worker_id)
                self._rollouts.append(Rollout(sequence=self._sequence, header=header, columns=columns))
            self._workers, self._lost = workers, self._backend.lost_rollouts
            self._beats += 1
            self._news.notify_all()

    def _close(self) -> None:
        timeout_s = self._boot.beat_s if self._stop_within_s is None else self._stop_within_s
        self._backend.shutdown(timeout_s)
        self._slots.close()
        self._weights.close()
        if self._snapshots is not None:
            self._snapshots.shared.close()
        with self._news:
            self._has_ended = True
            os.close(self._wake_by)
            os.close(self._wake_fd)
            self._news.notify_all()


class _Recorder(logging.Handler):
    """Keeps log records for the next report."""

    def __init__(self, records: deque[LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(LogRecord(level=record.levelno, name=record.name, message=record.getMessage()))


def _loaded(boot: AgentBoot) -> Any:
    """The game's factory and the policy's structure.

    Raises:
        ConfigError: this machine lacks a module that they are made of.
    """
    try:
        return cloudpickle.loads(boot.game_and_policy)
    except Exception as error:  # whatever importing a third party's module raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            f"{boot.name}: the game or the policy cannot be loaded on this node ({reason}); install there what is "
            "installed here"
        ) from error
