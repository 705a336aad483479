"""Books of every rollout of the counting game: what was begun, granted, delivered and lost, whatever happens.

Three counts are kept that know nothing of each other: the workers' own (each writes how many steps it has made into a
file of its own), the learner's grants, and the headers of delivered rollouts. They must add up.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fakes import CountingGame, VersionNetwork
from numpy.typing import NDArray
from rollout_checks import assert_whole, incarnations, worker_rows
from tensordict import TensorDictBase

from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.parallel.supervision.messages import RolloutHeader

__all__ = ["Arrival", "PacedGame", "RolloutAccounts", "rollouts_begun", "set_clock_wrong"]


@dataclass(frozen=True, slots=True)
class PacedGame:
    """A factory of counting games that a worker plays at a steady pace, as if it had a machine to itself.

    Args:
        folder: where each worker counts its steps.
        step_s: seconds that each step of all boards takes beside its own work: workers sleep, so that those of several
            simulated nodes do not compete for this machine's processors.
        clock_offset_s: each process's clock of the day is wrong by up to so much, either way, and runs at another pace.
    """

    folder: Path
    step_s: float = 0.0
    clock_offset_s: float = 0.0

    def __call__(self, num_games: int) -> CountingGame:
        if self.clock_offset_s:
            set_clock_wrong(self.clock_offset_s)
        return CountingGame(num_games, before_step=_Steps(self.folder, self.step_s))


class _Steps:
    """Counts this process's steps in a file, and takes its time."""

    def __init__(self, folder: Path, step_s: float) -> None:
        self._folder, self._step_s = folder, step_s
        self._count: NDArray[np.int64] | None = None

    def __call__(self, step: int) -> None:
        if self._count is None:
            with open(self._folder / f"{os.getpid()}.steps", "ab") as file:
                file.truncate(8)
            self._count = np.memmap(file.name, np.int64, mode="r+", shape=(1,))
        self._count[0] += 1
        if self._step_s:
            time.sleep(self._step_s)


def set_clock_wrong(offset_s: float = 86400.0) -> None:
    """Let this process's ``time.time`` be wrong, by up to so much either way, and run at another pace."""
    drawn = np.random.default_rng(os.getpid()).uniform(-1, 1)
    true_time, start = time.time, time.time()
    time.time = lambda: true_time() + drawn * offset_s + (true_time() - start) * drawn  # type: ignore[assignment]


def rollouts_begun(folder: Path, plies_per_rollout: int) -> int:
    """Rollouts that all workers there ever were have made at least one step of."""
    steps = (int(np.fromfile(file, np.int64)[0]) for file in folder.glob("*.steps"))
    return sum(math.ceil(count / plies_per_rollout) for count in steps)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A rollout was delivered: when (of this process's monotonic clock), by whom, and how many plies."""

    at_s: float
    worker_id: int
    incarnation: int
    plies: int


@dataclass(slots=True)
class RolloutAccounts:
    """Takes in every batch of a collector that has been started.

    Attributes:
        arrivals: of every delivered rollout.
        torn: why batches were not whole, or not of the version that they name.
        duplicates: rollouts that came twice, by name or by content.
        gaps: rollouts that never came although a later one of the same life of their worker did.
        grants: given by the learner.
    """

    collector: SelfPlayCollector
    folder: Path
    arrivals: list[Arrival] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    duplicates: int = 0
    gaps: int = 0
    grants: int = 0
    _names: set[tuple[int, int, int]] = field(default_factory=set)
    _contents: set[bytes] = field(default_factory=set)
    _last: dict[tuple[int, int], int] = field(default_factory=dict)
    _headers: Sequence[RolloutHeader] = ()

    @classmethod
    def of(
        cls, folder: Path, make: Callable[..., SelfPlayCollector] = SelfPlayCollector, **options: Any
    ) -> RolloutAccounts:
        """Start a collector of paced counting games, with a policy whose values tell its version, and open its books.

        Args:
            folder: where the workers count.
            make: makes the collector.
            **options: of it, and ``step_s`` and ``clock_offset_s`` of :class:`PacedGame`.
        """
        pace = {name: options.pop(name) for name in ("step_s", "clock_offset_s") if name in options}
        policy = ActorCritic(VersionNetwork())
        collector = make(PacedGame(folder, **pace), policy, **{"stagger_games": False, "seed": 5, **options})
        accounts = cls(collector, folder)
        collector.start()
        accounts._open()
        return accounts

    def _open(self) -> None:
        session = self.collector._session
        assert session is not None
        take, grant = session.intake.take, session.backend.grant

        def take_and_note(*args: Any, **kwargs: Any) -> Any:
            batch, self._headers = take(*args, **kwargs)
            return batch, self._headers

        def note_and_grant(*args: Any, **kwargs: Any) -> None:
            self.grants += 1
            grant(*args, **kwargs)

        session.intake.take = take_and_note  # type: ignore[method-assign]
        session.backend.grant = note_and_grant  # type: ignore[method-assign]
        self.grants = self._slots_in_use()  # granted by start()

    def step(self) -> None:
        """Collect a batch, audit it, and publish the next version, as a learner does."""
        batch = self.collector.next()
        assert batch is not None
        self.take(batch, self._headers)
        policy = self.collector.policy
        policy.network.version.data += 1  # type: ignore[operator, union-attr]
        self.collector.update_policy_weights_()

    def take(self, batch: TensorDictBase, headers: Sequence[RolloutHeader]) -> None:
        """Audit a batch, whose rollouts have these headers."""
        games, now = self.collector.games_per_worker, time.monotonic()
        try:
            assert_whole(batch, games_per_worker=games)
            versions = batch["collector", "policy_version"].float()
            assert (batch["state_value"][..., 0] == versions).all(), "a ply was not played by the version that it names"
        except AssertionError as error:
            self.torn.append(str(error))
        for number, header in enumerate(headers):
            rows = batch[number * games : (number + 1) * games]
            if set(incarnations(worker_rows(rows, header.worker_id)).unique().tolist()) != {
                header.incarnation & 0xFFFF
            }:
                self.torn.append(f"a rollout is not of the worker that its header names: {header}")
            self._note(header, hashlib.sha256(_bytes_of(rows)).digest())
            self.arrivals.append(Arrival(now, header.worker_id, header.incarnation, header.plies))

    def _note(self, header: RolloutHeader, content: bytes) -> None:
        life = (header.worker_id, header.incarnation)
        if (name := (*life, header.sequence)) in self._names or content in self._contents:
            self.duplicates += 1
        self._names.add(name)
        self._contents.add(content)
        self.gaps += max(0, header.sequence - self._last.get(life, -1) - 1)
        self._last[life] = max(header.sequence, self._last.get(life, -1))

    # ---- the books

    @property
    def delivered(self) -> int:
        """Rollouts."""
        return len(self.arrivals)

    def _slots_in_use(self) -> int:
        """Slots that hold a rollout that was not delivered, or are to get one."""
        from keisei_lightning.parallel.memory.slots import SlotState

        board = self.collector._session.intake._board  # type: ignore[union-attr]
        return sum(1 for state in (SlotState.GRANTED, SlotState.READY) for _ in board.slots_in(state))

    def summary(self) -> dict[str, float]:
        """What was counted so far; call it before the collector is shut down.

        ``unaccounted_grants``: grants that led neither to a delivered rollout nor to one that was counted out, and are
        not in use. ``in_flight``: rollouts that have been granted and not delivered.
        """
        stats, in_flight = self.collector.stats(), self._slots_in_use()
        counted_out = sum(int(stats[f"{why}_batches"]) for why in ("refused", "quarantined", "dropped"))
        return {
            "delivered": self.delivered,
            "torn": len(self.torn),
            "duplicated": self.duplicates,
            "gaps": self.gaps,
            "grants": self.grants,
            "in_flight": in_flight,
            "counted_out": counted_out,
            "unaccounted_grants": self.grants - self.delivered - counted_out - in_flight,
            "lost_rollouts": int(stats["lost_rollouts"]),
            "restarts": int(stats["restarts"]),
        }

    def lost_by_the_workers_count(self) -> int:
        """Rollouts begun and never delivered, counted after the collector was shut down."""
        return rollouts_begun(self.folder, self.collector.plies_per_rollout) - self.delivered

    def assert_right(self) -> dict[str, float]:
        """Shut the collector down and hold the books to the promise; returns their summary.

        What workers began and nobody got must have been counted as lost, but for what was being played at the end.
        """
        summary = self.summary()
        self.collector.shutdown()
        lost = self.lost_by_the_workers_count()
        assert (summary["torn"], summary["duplicated"]) == (0, 0), self.torn[:1]
        assert summary["gaps"] <= summary["counted_out"]
        assert summary["unaccounted_grants"] == 0
        assert lost <= summary["lost_rollouts"] + summary["counted_out"] + summary["in_flight"], (lost, summary)
        return {**summary, "lost_by_the_workers_count": lost}

    def lives(self) -> Counter[tuple[int, int]]:
        """Rollouts delivered by each (worker, incarnation)."""
        return Counter((arrival.worker_id, arrival.incarnation) for arrival in self.arrivals)


def _bytes_of(rows: TensorDictBase) -> bytes:
    """All columns of a rollout."""
    return b"".join(rows[key].contiguous().numpy().tobytes() for key in sorted(rows.keys(True, True), key=str))
