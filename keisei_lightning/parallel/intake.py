"""Receives rollouts: grants slots to workers, refuses rollouts that are too old, makes batches of the others."""

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
from keisei_lightning.parallel.supervision.messages import BoardView, Failure, Play, RolloutHeader
from keisei_lightning.rl import StalenessBudget, policy_lag

__all__ = ["NOTHING_UNDELIVERED", "Intake", "to_batch"]

_logger = logging.getLogger("keisei_lightning.collector")
_WAIT_S = 1.0  # how long one wait lasts at most; nothing depends on it
_MAX_REFUSALS = 100  # consecutive ones, before it is an error and not bad luck
_MAX_QUARANTINED_SHARE = 0.01
_MIN_QUARANTINED = 3  # so few are no reason to stop, however short the run has been

Batch = TypeVar("Batch")

NOTHING_UNDELIVERED: Mapping[str, int] = {"refused_batches": 0, "quarantined_batches": 0, "dropped_batches": 0}
"""Counts of complete rollouts that were not delivered, by reason."""


class Intake:
    """The learner's end of all slots.

    Args:
        backend: plays the rollouts.
        slots: where they are written.
        schedule: "sync" (slots are granted when a batch is requested) or "async" (as soon as they are free).
        max_policy_lag: rollouts further behind the latest version are refused.
        zero_copy: lend views of the slots where a batch is contiguous.
        drop_oldest: of more rollouts than a batch takes, deliver the newest and drop the others.
        paused: workers that get no grants; :meth:`set_paused` changes them.
        undelivered: counts to continue: rollouts refused as too old, quarantined as invalid, dropped for newer ones.
        pool: snapshots that games are played against; None: there are none.
        scores_at_once: update the pool's scores with each batch; otherwise its owner does it, with the results of
            other ranks.

    Attributes:
        paused: workers that get no grants now.
        undelivered: the present counts.
        last_headers: the newest header of each worker.
        boards: the newest pictures of each worker's games (:meth:`draw_boards`).
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
        scores_at_once: bool = True,
    ) -> None:
        self._backend, self._slots = backend, slots
        self._schedule, self._staleness, self._zero_copy = schedule, StalenessBudget(max_policy_lag), zero_copy
        self._board = SlotBoard(slots.layout.num_workers, slots.layout.num_slots)
        self._ready: deque[RolloutHeader] = deque()
        self.paused = frozenset(paused)
        self._drop_oldest, self._pool, self._scores_at_once = drop_oldest, pool, scores_at_once
        self._arrived, self._quarantined = 0, 0
        self.undelivered = {**NOTHING_UNDELIVERED, **(undelivered or {})}
        self.last_headers: dict[int, RolloutHeader] = {}
        self._last_arrivals: dict[int, float] = {}
        self.boards: dict[int, tuple[BoardView, ...]] = {}
        self._boards_to_draw: dict[int, int] = {}

    def open(self) -> None:
        """Grant the slots that need no request: every free one, if workers play ahead (``schedule="async"``)."""
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

        If an exception ends the call early (Ctrl-C in a notebook, an error in ``build``), no rollout is lost: the next
        call delivers what has arrived.

        Args:
            latest_version: of the published weights; the lag is counted from it.
            build: makes the batch from columns [W * G, T, ...]. With ``zero_copy`` they may be views, which are valid
                until the next call.

        Returns:
            The batch and the headers of its rollouts, in the order of the games.

        Raises:
            StalePolicyError: too many consecutive rollouts are beyond ``max_policy_lag``.
            QuarantineError: too many rollouts are invalid.
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
        for _ in range(number):  # from here on they count as delivered
            header = self._ready.popleft()
            self._board.move(header.worker_id, header.slot, SlotState.LEASED)
            if not is_lent:
                self._free(header.worker_id, header.slot)
        return batch, headers

    def last_batch_age_s(self, worker_id: int) -> float | None:
        """Seconds since a worker's newest rollout was announced; None before its first."""
        arrival = self._last_arrivals.get(worker_id)
        return None if arrival is None else time.monotonic() - arrival

    def last_play_s(self, worker_id: int) -> float | None:
        """Seconds that a worker played its newest rollout for; None before its first."""
        header = self.last_headers.get(worker_id)
        return None if header is None else header.play_s

    def last_plies_per_s(self, worker_id: int) -> float | None:
        """How fast a worker played its newest rollout; None before its first."""
        header = self.last_headers.get(worker_id)
        return None if header is None or header.play_s <= 0 else header.plies / header.play_s

    def draw_boards(self, num_boards: int) -> None:
        """Have the next rollouts bring pictures of so many boards in all, from as many workers as possible."""
        active = [worker_id for worker_id in range(self._slots.layout.num_workers) if worker_id not in self.paused]
        for number, worker_id in enumerate(active[:num_boards]):
            self._boards_to_draw[worker_id] = num_boards // len(active) + (number < num_boards % len(active))

    def _active_workers(self) -> list[int]:
        active = [worker_id for worker_id in range(self._slots.layout.num_workers) if worker_id not in self.paused]
        if not active:
            raise RuntimeError("all workers are paused: call resume_workers() before requesting a batch")
        return active

    def _wait_for_batch(self, latest_version: int) -> int:
        """Wait until the oldest ready rollouts make a batch; returns how many. They stay in the queue."""
        active = self._active_workers()
        if self._schedule == "sync":
            for worker_id in active:
                if self._board.state(worker_id, 0) is SlotState.FREE:  # not if an interrupted wait left it granted
                    self._grant(worker_id, 0)
        if self._drop_oldest:
            self._drop_all_but_newest(len(active))
        accepted, refused = 0, 0
        while accepted < len(active):
            while accepted == len(self._ready):
                self._receive()
            if latest_version - self._ready[accepted].policy_version > self._staleness.max_policy_lag:
                refused += 1
                self._refuse(self._remove(accepted), latest_version, refused)
            else:
                accepted, refused = accepted + 1, 0
        if self._pool is not None and self._scores_at_once:
            self._pool.update_scores()
        return accepted

    def _remove(self, index: int) -> RolloutHeader:
        header = self._ready[index]
        del self._ready[index]
        return header

    def _drop_all_but_newest(self, number: int) -> None:
        """Drop the oldest of the waiting rollouts, where the newer ones are enough for a batch."""
        self._receive(wait_s=0.0)
        while len(self._ready) > number:
            header = self._remove(0)
            self.undelivered["dropped_batches"] += 1
            self._free(header.worker_id, header.slot)

    def _receive(self, wait_s: float = _WAIT_S) -> None:
        for header in self._backend.wait(wait_s):
            self._board.move(header.worker_id, header.slot, SlotState.READY)
            self._ready.append(header)
            self._arrived += 1
            if self._pool is not None:
                self._pool.note(header)
            if header.failure is None:
                self.last_headers[header.worker_id] = header
                if header.boards:
                    self.boards[header.worker_id] = header.boards
                self._last_arrivals[header.worker_id] = time.monotonic()
        for index in reversed(range(len(self._ready))):  # all are in the queue: an error loses none of the others
            if (failure := self._ready[index].failure) is not None:
                self._quarantine(self._remove(index), failure)

    def _quarantine(self, header: RolloutHeader, failure: Failure) -> None:
        """Count an invalid rollout, and have another one played in its place."""
        self._quarantined += 1
        self.undelivered["quarantined_batches"] += 1
        what = f"worker {header.worker_id} (incarnation {header.incarnation}): {failure.kind}: {failure.message}"
        _logger.warning("a rollout was not delivered, its worker begins new games: %s", what)
        self._play_again(header)
        if self._quarantined > max(_MIN_QUARANTINED, _MAX_QUARANTINED_SHARE * self._arrived):
            raise QuarantineError(
                f"{what}; {self._quarantined} of {self._arrived} rollouts were not fit to be delivered, at most "
                f"{_MAX_QUARANTINED_SHARE:.0%} (and {_MIN_QUARANTINED}) may be"
            ) from RemoteTraceback(failure.traceback)

    def _refuse(self, header: RolloutHeader, latest_version: int, consecutive: int) -> None:
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
        if consecutive >= _MAX_REFUSALS:
            raise StalePolicyError(
                f"{consecutive} consecutive rollouts were refused, the last by worker {header.worker_id} at lag {lag}; "
                f"raise max_policy_lag={self._staleness.max_policy_lag}, or publish less often"
            )

    def _grant(self, worker_id: int, slot: int) -> None:
        self._board.move(worker_id, slot, SlotState.GRANTED)
        opponent = None if self._pool is None else self._pool.draw(worker_id, slot)
        boards_to_draw = self._boards_to_draw.pop(worker_id, 0)
        self._backend.grant(worker_id, Play(slot=slot, opponent=opponent, boards_to_draw=boards_to_draw))

    def _play_again(self, header: RolloutHeader) -> None:
        """Have another rollout played in place of one that is not delivered."""
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
