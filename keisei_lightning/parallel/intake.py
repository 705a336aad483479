"""Taking rollouts in: which worker may write where, what has arrived, what is too old, what makes a batch."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from keisei_lightning.errors import QuarantineError, RemoteTraceback, StalePolicyError
from keisei_lightning.parallel.backend import Backend
from keisei_lightning.parallel.memory.slots import ColumnKey, SlotBoard, Slots, SlotState
from keisei_lightning.parallel.opponents.pool import SnapshotPool
from keisei_lightning.parallel.options import Schedule
from keisei_lightning.parallel.supervision.messages import Failure, Play, RolloutHeader
from keisei_lightning.rl import StalenessBudget, policy_lag

__all__ = ["NOTHING_UNDELIVERED", "Intake", "to_batch"]

_logger = logging.getLogger("keisei_lightning.collector")
_WAIT_S = 1.0  # how long one wait lasts at most; nothing depends on it
_MAX_REFUSALS = 100  # in a row, before it is an error and not bad luck
_MAX_QUARANTINED_SHARE = 0.01
_QUARANTINED_ANYWAY = 3  # a few are no reason to stop, however short the run has been

Batch = TypeVar("Batch")

NOTHING_UNDELIVERED: Mapping[str, int] = {"refused_batches": 0, "quarantined_batches": 0, "dropped_batches": 0}
"""MemoryDemand that were played whole and not delivered, by the reason."""


class Intake:
    """The learner's end of all slots.

    Args:
        backend: plays the rollouts.
        slots: where they are written.
        schedule: "sync" (slots are granted when a batch is asked for) or "async" (as soon as they are free).
        max_policy_lag: what is further behind than this is refused.
        zero_copy: lend views of the slots where a batch lies in one piece.
        drop_oldest: of more rollouts than a batch takes, deliver the newest and drop the others.
        paused: workers that get no grants; :meth:`set_paused` changes them.
        undelivered: counts to go on from: rollouts refused as too old, quarantined as not fit to be delivered, dropped
            for newer ones.
        pool: snapshots that games are played against; None: there are none.

    Attributes:
        paused: workers that get no grants now.
        undelivered: the same counts, now.
        last_headers: the newest header of each worker.
    """

    def __init__(
        self,
        backend: Backend,
        slots: Slots,
        *,
        schedule: Schedule,
        max_policy_lag: int,
        zero_copy: bool,
        drop_oldest: bool = False,
        paused: Collection[int] = (),
        undelivered: Mapping[str, int] | None = None,
        pool: SnapshotPool | None = None,
    ) -> None:
        self._backend, self._slots = backend, slots
        self._schedule, self._staleness, self._zero_copy = schedule, StalenessBudget(max_policy_lag), zero_copy
        self._board = SlotBoard(slots.layout.num_workers, slots.layout.num_slots)
        self._ready: deque[RolloutHeader] = deque()
        self.paused = frozenset(paused)
        self._drop_oldest, self._pool = drop_oldest, pool
        self._arrived, self._quarantined = 0, 0
        self.undelivered = {**NOTHING_UNDELIVERED, **(undelivered or {})}
        self.last_headers: dict[int, RolloutHeader] = {}
        self._last_arrivals: dict[int, float] = {}

    def open(self) -> None:
        """Grant what may be granted without being asked for: every free slot, if workers play ahead."""
        if self._schedule == "async":
            for worker_id in range(self._slots.layout.num_workers):
                self._grant_free_slots(worker_id)

    def set_paused(self, worker_ids: Collection[int]) -> None:
        """Give no grants to these workers, and to all others again."""
        resumed = self.paused.difference(worker_ids)
        self.paused = frozenset(worker_ids)
        if resumed:
            self.open()

    def take(
        self, latest_version: int, build: Callable[[dict[ColumnKey, Tensor]], Batch]
    ) -> tuple[Batch, list[RolloutHeader]]:
        """Wait for the next batch: a rollout from each worker that is not paused (sync), or as many from any (async).

        Whatever ends the call early (Ctrl-C in a notebook, an error in ``build``), no rollout is lost by it: what has
        arrived is delivered by the next call.

        Args:
            latest_version: of the published weights, which the lag is counted from.
            build: makes the batch from columns [W * G, T, ...]. With ``zero_copy`` they may be views, which are handed
                back with the next call.

        Returns:
            The batch and the headers of its rollouts, in the order of the games.

        Raises:
            StalePolicyError: nothing but rollouts beyond ``max_policy_lag`` arrives.
            QuarantineError: too many rollouts are not fit to be delivered.
        """
        for worker_id, slot in self._board.slots_in(SlotState.LEASED):  # of the batch before
            self._free(worker_id, slot)
        number = self._wait_for_batch(latest_version)
        headers = sorted(
            (self._ready[index] for index in range(number)),
            key=lambda header: (header.worker_id, header.incarnation, header.sequence),
        )
        columns, is_lent = self._assemble(headers)
        batch = build(columns)
        for _ in range(number):  # from here on they are delivered
            header = self._ready.popleft()
            self._board.move(header.worker_id, header.slot, SlotState.LEASED)
            if not is_lent:
                self._free(header.worker_id, header.slot)
        return batch, headers

    def last_batch_age_s(self, worker_id: int) -> float | None:
        """Seconds since a worker's newest rollout was heard of; None before its first."""
        arrival = self._last_arrivals.get(worker_id)
        return None if arrival is None else time.monotonic() - arrival

    def _active_workers(self) -> list[int]:
        active = [worker_id for worker_id in range(self._slots.layout.num_workers) if worker_id not in self.paused]
        if not active:
            raise RuntimeError("all workers are paused: resume_workers() before asking for a batch")
        return active

    def _wait_for_batch(self, latest_version: int) -> int:
        """Wait until the oldest rollouts that are ready make a batch; they stay ready. Returns how many."""
        active = self._active_workers()
        if self._schedule == "sync":
            for worker_id in active:
                if self._board.state(worker_id, 0) is SlotState.FREE:  # not if an interrupted wait left it granted
                    self._grant(worker_id, 0)
        if self._drop_oldest:
            self._drop_all_but_the_newest(len(active))
        accepted, refused = 0, 0
        while accepted < len(active):
            while accepted == len(self._ready):
                self._hear()
            if latest_version - self._ready[accepted].policy_version > self._staleness.max_policy_lag:
                refused += 1
                self._refuse(self._remove(accepted), latest_version, refused)
            else:
                accepted, refused = accepted + 1, 0
        if self._pool is not None:
            self._pool.update_scores()
        return accepted

    def _remove(self, index: int) -> RolloutHeader:
        header = self._ready[index]
        del self._ready[index]
        return header

    def _drop_all_but_the_newest(self, number: int) -> None:
        """Let go of old rollouts that are waiting, where there are newer ones enough for a batch."""
        self._hear(wait_s=0.0)
        while len(self._ready) > number:
            header = self._remove(0)
            self.undelivered["dropped_batches"] += 1
            self._free(header.worker_id, header.slot)

    def _hear(self, wait_s: float = _WAIT_S) -> None:
        for header in self._backend.wait(wait_s):
            self._board.move(header.worker_id, header.slot, SlotState.READY)
            self._ready.append(header)
            self._arrived += 1
            if self._pool is not None:
                self._pool.note(header)
            if header.fault is None:
                self.last_headers[header.worker_id] = header
                self._last_arrivals[header.worker_id] = time.monotonic()
        for index in reversed(range(len(self._ready))):  # all have been heard: an error loses none of the others
            if (fault := self._ready[index].fault) is not None:
                self._quarantine(self._remove(index), fault)

    def _quarantine(self, header: RolloutHeader, fault: Failure) -> None:
        """Count a rollout that may not be delivered, and have another one played in its place."""
        self._quarantined += 1
        self.undelivered["quarantined_batches"] += 1
        what = f"worker {header.worker_id} (incarnation {header.incarnation}): {fault.kind}: {fault.message}"
        _logger.warning("a rollout was not delivered, the games begin anew: %s", what)
        self._play_again(header)
        if self._quarantined > max(_QUARANTINED_ANYWAY, _MAX_QUARANTINED_SHARE * self._arrived):
            raise QuarantineError(
                f"{what}; {self._quarantined} of {self._arrived} rollouts were not fit to be delivered, at most "
                f"{_MAX_QUARANTINED_SHARE:.0%} (and {_QUARANTINED_ANYWAY}) may be"
            ) from RemoteTraceback(fault.traceback)

    def _refuse(self, header: RolloutHeader, latest_version: int, in_a_row: int) -> None:
        self.undelivered["refused_batches"] += 1
        lag = policy_lag(latest_version, header.policy_version)
        _logger.warning(
            "refused a rollout of worker %d: version %d is %d behind, max_policy_lag=%d",
            header.worker_id,
            header.policy_version,
            lag,
            self._staleness.max_policy_lag,
        )
        self._play_again(header)
        if in_a_row >= _MAX_REFUSALS:
            raise StalePolicyError(
                f"{in_a_row} rollouts in a row were refused, the last by worker {header.worker_id} at lag {lag}; raise "
                f"max_policy_lag={self._staleness.max_policy_lag}, or publish less often"
            )

    def _grant(self, worker_id: int, slot: int) -> None:
        self._board.move(worker_id, slot, SlotState.GRANTED)
        opponent = None if self._pool is None else self._pool.draw(worker_id, slot)
        self._backend.grant(worker_id, Play(slot=slot, opponent=opponent))

    def _play_again(self, header: RolloutHeader) -> None:
        """Have another rollout played in the place of one that is not delivered."""
        self._free(header.worker_id, header.slot)
        if self._schedule == "sync" and header.worker_id not in self.paused:
            self._grant(header.worker_id, header.slot)

    def _free(self, worker_id: int, slot: int) -> None:
        self._board.move(worker_id, slot, SlotState.FREE)
        if self._schedule == "async":
            self._grant_free_slots(worker_id)

    def _grant_free_slots(self, worker_id: int) -> None:
        if worker_id not in self.paused:
            for _, slot in self._board.slots_in(SlotState.FREE, worker_id):
                self._grant(worker_id, slot)

    def _assemble(self, headers: Sequence[RolloutHeader]) -> tuple[dict[ColumnKey, Tensor], bool]:
        """The columns of a batch, and whether they are views of its slots."""
        slots = {header.slot for header in headers}
        workers = [header.worker_id for header in headers]
        if len(slots) > 1 or workers != list(range(self._slots.layout.num_workers)):
            return self._gather(headers), False
        columns = _as_tensors(self._slots.views(slots.pop()))
        if self._zero_copy:
            return columns, True
        return {key: column.clone() for key, column in columns.items()}, False

    def _gather(self, headers: Sequence[RolloutHeader]) -> dict[ColumnKey, Tensor]:
        parts: list[Mapping[ColumnKey, Tensor]] = [
            _as_tensors(self._slots.views(header.slot, header.worker_id)) for header in headers
        ]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _as_tensors(views: Mapping[ColumnKey, NDArray[Any]]) -> dict[ColumnKey, Tensor]:
    """Tensors that share the arrays' memory."""
    return {key: torch.from_numpy(view) for key, view in views.items()}


def to_batch(columns: Mapping[ColumnKey, Tensor]) -> TensorDictBase:
    """Columns [B, T, ...] as a TensorDict of batch size [B, T] (names ``(None, "time")``) that shares their memory."""
    batch = TensorDict({}, batch_size=columns["action"].shape, names=[None, "time"])
    for key, column in columns.items():
        batch.set(key, column)
    return batch
