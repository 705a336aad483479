"""Which rollouts make a batch, with a fake backend."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from keisei_lightning.errors import QuarantineError, RemoteTraceback, StalePolicyError
from keisei_lightning.games import GameSpec
from keisei_lightning.parallel.intake import Intake
from keisei_lightning.parallel.memory.slots import SlotLayout, Slots
from keisei_lightning.parallel.supervision.events import WorkerHealth
from keisei_lightning.parallel.supervision.messages import BoardView, Failure, Play, RolloutHeader

NUM_WORKERS, NUM_GAMES, NUM_PLIES = 3, 2, 4


class FakeBackend:
    """Workers play as soon as they are asked to, in the order of their speed; each rollout's actions are its number."""

    lost_rollouts = 0

    def __init__(self, num_slots: int) -> None:
        spec = GameSpec(name="small", num_actions=3, observation_shape=(1,), max_plies=9)
        layout = SlotLayout.for_game(
            spec, num_slots=num_slots, num_workers=NUM_WORKERS, num_games=NUM_GAMES, num_plies=NUM_PLIES
        )
        self.slots = Slots.reserve(layout)
        self.granted: deque[tuple[int, int]] = deque()
        self.sequences = [0] * NUM_WORKERS
        self.version_of = [0] * NUM_WORKERS
        self.slow: set[int] = set()
        self.failure_of: dict[int, Failure] = {}
        self.boards_to_draw: list[tuple[int, int]] = []

    def start(self) -> None: ...
    def games_in_flight(self) -> list[dict[str, Any]]:
        return []

    def shutdown(self, timeout_s: float) -> None: ...
    def reset_games(self, worker_ids: Sequence[int]) -> None: ...
    def health(self) -> list[WorkerHealth]:
        return []

    def grant(self, worker_id: int, play: Play) -> None:
        self.granted.append((worker_id, play.slot))
        if play.boards_to_draw:
            self.boards_to_draw.append((worker_id, play.boards_to_draw))

    def wait(self, timeout_s: float) -> list[RolloutHeader]:
        if not self.granted:
            return []
        quick = [grant for grant in self.granted if grant[0] not in self.slow]
        worker_id, slot = quick[0] if quick else self.granted[0]
        self.granted.remove((worker_id, slot))
        sequence = self.sequences[worker_id]
        self.sequences[worker_id] += 1
        self.slots.views(slot, worker_id)["action"][:] = 100 * worker_id + sequence
        return [
            RolloutHeader(
                worker_id=worker_id,
                incarnation=0,
                sequence=sequence,
                slot=slot,
                policy_version=self.version_of[worker_id],
                plies=NUM_GAMES * NUM_PLIES,
                boards=tuple(
                    BoardView(board=board, ply=sequence, mover=0, svg="<svg/>")
                    for asked, number in self.boards_to_draw
                    for board in range(number)
                    if asked == worker_id
                ),
                failure=self.failure_of.get(worker_id),
            )
        ]


def intake_of(
    schedule: Literal["sync", "async"],
    *,
    num_slots: int = 1,
    max_policy_lag: int = 1,
    zero_copy: bool = False,
    drop_oldest: bool = False,
    paused: Collection[int] = (),
) -> tuple[Intake, FakeBackend]:
    backend = FakeBackend(num_slots)
    intake = Intake(
        backend,
        backend.slots,
        schedule=schedule,
        max_policy_lag=max_policy_lag,
        zero_copy=zero_copy,
        drop_oldest=drop_oldest,
        paused=paused,
    )
    intake.open()
    return intake, backend


def rollouts(intake: Intake, version: int = 0) -> list[int]:
    columns, headers = intake.take(version, dict)
    action = columns["action"]
    assert action.shape == (NUM_GAMES * len(headers), NUM_PLIES)
    blocks = action.view(len(headers), NUM_GAMES * NUM_PLIES)
    assert (blocks == blocks[:, :1]).all()
    assert blocks[:, 0].tolist() == [100 * header.worker_id + header.sequence for header in headers]
    return blocks[:, 0].tolist()


def test_sync_grants_when_a_batch_is_asked_for_and_orders_it_by_worker() -> None:
    intake, backend = intake_of("sync")
    backend.slow = {0}
    assert not backend.granted
    assert rollouts(intake) == [0, 100, 200]
    assert not backend.granted
    assert rollouts(intake) == [1, 101, 201]


def test_async_grants_every_free_slot_and_takes_what_comes_first() -> None:
    intake, backend = intake_of("async", num_slots=2)
    assert len(backend.granted) == NUM_WORKERS * 2
    backend.slow = {0}
    assert rollouts(intake) == [100, 101, 200]
    assert len(backend.granted) == NUM_WORKERS * 2  # freed and granted again


@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_rollouts_beyond_the_lag_are_refused_counted_and_named(
    schedule: Literal["sync", "async"], caplog: pytest.LogCaptureFixture
) -> None:
    intake, backend = intake_of(schedule, max_policy_lag=2)
    backend.version_of = [8, 10, 7]
    wait = backend.wait

    def adopt_after_the_first(timeout_s: float) -> list[RolloutHeader]:
        headers = wait(timeout_s)
        backend.version_of[headers[0].worker_id] = 10
        return headers

    backend.wait = adopt_after_the_first  # type: ignore[method-assign]
    columns, headers = intake.take(10, dict)
    assert all(10 - header.policy_version <= 2 for header in headers)
    assert 200 not in columns["action"]
    assert intake.undelivered["refused_batches"] == 1
    assert "refused a rollout of worker 2: version 7 is 3 behind, max_policy_lag=2" in caplog.text


def test_a_worker_that_never_adopts_ends_in_an_error_that_names_it(caplog: pytest.LogCaptureFixture) -> None:
    intake, backend = intake_of("sync", max_policy_lag=1)
    backend.version_of = [5, 2, 5]
    with pytest.raises(StalePolicyError, match="100 consecutive rollouts were refused, the last by worker 1 at lag 3;"):
        intake.take(5, dict)
    assert intake.undelivered["refused_batches"] == 101  # one more came before worker 2 was accepted


def test_refusals_with_accepted_rollouts_in_between_are_no_error() -> None:
    intake, backend = intake_of("async", num_slots=2, max_policy_lag=0)
    backend.version_of = [0, 1, 1]
    for _ in range(150):
        assert all(header.worker_id != 0 for header in intake.take(1, dict)[1])
    assert intake.undelivered["refused_batches"] > 100


BROKEN = Failure(kind="RolloutError", message="policy version 0 gave nan", traceback="line 7")


@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_a_rollout_that_is_not_fit_is_counted_and_played_again(
    schedule: Literal["sync", "async"], caplog: pytest.LogCaptureFixture
) -> None:
    intake, backend = intake_of(schedule)
    backend.failure_of = {1: BROKEN}
    wait, waits = backend.wait, [0]

    def heal_after_the_second(timeout_s: float) -> list[RolloutHeader]:
        headers = wait(timeout_s)
        waits[0] += any(header.failure is not None for header in headers)
        if waits[0] == 2:
            backend.failure_of = {}
        return headers

    backend.wait = heal_after_the_second  # type: ignore[method-assign]
    for _ in range(4):
        assert all(header.failure is None for header in intake.take(0, dict)[1])
    assert intake.undelivered == {"refused_batches": 0, "quarantined_batches": 2, "dropped_batches": 0}
    assert caplog.messages == ["a rollout was not delivered, its worker begins new games: worker 1 (incarnation 0): "
                               "RolloutError: policy version 0 gave nan"] * 2  # fmt: skip


def test_more_than_one_in_a_hundred_rollouts_that_are_not_fit_are_an_error_that_names_the_worker() -> None:
    intake, backend = intake_of("sync")
    backend.failure_of = {2: BROKEN}
    with pytest.raises(
        QuarantineError,
        match=r"worker 2 \(incarnation 0\): RolloutError: policy version 0 gave nan; 4 of 6 rollouts were not fit to "
        r"be delivered, at most 1% \(and 3\) may be",
    ) as info:
        intake.take(0, dict)
    assert isinstance(info.value.__cause__, RemoteTraceback)
    assert info.value.__cause__.text == "line 7"


def test_one_rollout_in_a_hundred_may_be_unfit_for_ever() -> None:
    intake, backend = intake_of("sync")
    for take in range(600):
        backend.failure_of = {0: BROKEN} if take % 40 == 20 else {}
        wait = backend.wait

        def heal(timeout_s: float, wait: Any = wait) -> list[RolloutHeader]:
            headers: list[RolloutHeader] = wait(timeout_s)
            backend.failure_of = {} if headers[0].worker_id == 0 else backend.failure_of
            return headers

        backend.wait = heal  # type: ignore[method-assign]
        intake.take(0, dict)
        backend.wait = wait  # type: ignore[method-assign]
    assert intake.undelivered["quarantined_batches"] == 15


def test_of_more_rollouts_than_a_batch_takes_the_oldest_are_dropped_and_counted_if_asked_for() -> None:
    intake, backend = intake_of("async", num_slots=4, drop_oldest=True)
    wait = backend.wait
    backend.wait = lambda timeout_s: [header for _ in range(len(backend.granted)) for header in wait(timeout_s)]  # type: ignore[method-assign]
    columns, headers = intake.take(0, dict)
    assert [(header.worker_id, header.sequence) for header in headers] == [(2, 1), (2, 2), (2, 3)]
    assert intake.undelivered["dropped_batches"] == 4 * NUM_WORKERS - NUM_WORKERS
    assert set(columns["action"].flatten().tolist()) == {201, 202, 203}


def test_nothing_is_dropped_by_default() -> None:
    intake, backend = intake_of("async", num_slots=4)
    wait = backend.wait
    backend.wait = lambda timeout_s: [header for _ in range(len(backend.granted)) for header in wait(timeout_s)]  # type: ignore[method-assign]
    assert [header.sequence for header in intake.take(0, dict)[1]] == [0, 1, 2]
    assert intake.undelivered["dropped_batches"] == 0


def test_a_copied_batch_stays_as_it_was_and_a_borrowed_one_does_not() -> None:
    copied, _ = intake_of("sync")
    first = copied.take(0, dict)[0]["action"]
    before = first.clone()
    copied.take(0, dict)
    assert torch.equal(first, before)

    borrowed, backend = intake_of("sync", zero_copy=True)
    first = borrowed.take(0, dict)[0]["action"]
    assert np.shares_memory(first.numpy(), backend.slots.shared.array())
    assert first[:, 0].tolist() == [0, 0, 100, 100, 200, 200]
    borrowed.take(0, dict)
    assert first[:, 0].tolist() == [1, 1, 101, 101, 201, 201]


def test_paused_workers_are_not_granted_and_not_waited_for() -> None:
    intake, backend = intake_of("sync", paused={1})
    assert rollouts(intake) == [0, 200]
    intake.set_paused(())
    assert rollouts(intake) == [1, 100, 201]
    intake.set_paused({0, 1, 2})
    with pytest.raises(RuntimeError, match="all workers are paused: call resume_workers"):
        intake.take(0, dict)
    assert not backend.granted


def test_a_worker_that_is_resumed_is_granted_its_free_slots_at_once() -> None:
    intake, backend = intake_of("async", num_slots=2, paused={1})
    assert {worker_id for worker_id, _ in backend.granted} == {0, 2}
    intake.set_paused({0})
    assert sorted(backend.granted) == [(worker_id, slot) for worker_id in range(3) for slot in range(2)]
    assert intake.paused == {0}  # what it was granted before it still plays


class Interrupted:
    """Lets the backend's next waits go through, then raises as Ctrl-C does, once."""

    def __init__(self, backend: FakeBackend, after: int) -> None:
        self._wait, self._left = backend.wait, after
        backend.wait = self  # type: ignore[method-assign]

    def __call__(self, timeout_s: float) -> list[RolloutHeader]:
        self._left -= 1
        if self._left == -1:
            raise KeyboardInterrupt
        return self._wait(timeout_s)


@pytest.mark.parametrize("zero_copy", [False, True])
@pytest.mark.parametrize("after", range(NUM_WORKERS))
@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_what_has_arrived_when_a_wait_is_interrupted_is_delivered_by_the_next(
    schedule: Literal["sync", "async"], after: int, zero_copy: bool
) -> None:
    intake, backend = intake_of(schedule, num_slots=1 if schedule == "sync" else 2, zero_copy=zero_copy)
    expected, _ = intake_of(schedule, num_slots=1 if schedule == "sync" else 2, zero_copy=zero_copy)
    Interrupted(backend, after)
    with pytest.raises(KeyboardInterrupt):
        intake.take(0, dict)
    assert [rollouts(intake) for _ in range(4)] == [rollouts(expected) for _ in range(4)]
    assert set(intake.undelivered.values()) == {0}


def test_what_is_too_old_after_an_interrupted_wait_is_refused_and_counted() -> None:
    intake, backend = intake_of("sync", max_policy_lag=1)
    Interrupted(backend, after=2)
    with pytest.raises(KeyboardInterrupt):
        intake.take(0, dict)
    backend.version_of = [2, 2, 2]
    assert rollouts(intake, version=2) == [1, 101, 200]
    assert intake.undelivered["refused_batches"] == 2


def test_a_paused_worker_whose_rollout_is_refused_is_not_granted_another() -> None:
    intake, backend = intake_of("sync", max_policy_lag=1)
    Interrupted(backend, after=1)
    with pytest.raises(KeyboardInterrupt):
        intake.take(0, dict)
    intake.set_paused({0})
    backend.version_of = [2, 2, 2]
    assert rollouts(intake, version=2) == [100, 200]
    assert intake.undelivered["refused_batches"] == 1
    assert not backend.granted


def test_a_batch_that_could_not_be_built_is_delivered_by_the_next_call() -> None:
    intake, _ = intake_of("sync")

    def fail(columns: object) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        intake.take(0, fail)
    assert rollouts(intake) == [0, 100, 200]
    assert rollouts(intake) == [1, 101, 201]


def test_an_error_about_one_rollout_loses_none_of_those_that_came_with_it() -> None:
    intake, backend = intake_of("sync")
    backend.failure_of = {0: BROKEN}
    wait = backend.wait
    backend.wait = lambda timeout_s: [header for _ in range(len(backend.granted)) for header in wait(timeout_s)]  # type: ignore[method-assign]
    with pytest.raises(QuarantineError):
        intake.take(0, dict)
    backend.failure_of = {}
    assert rollouts(intake) == [4, 100, 200]
    assert intake.undelivered["quarantined_batches"] == 4


@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_the_next_grants_ask_for_boards_once(schedule: Literal["sync", "async"]) -> None:
    intake, backend = intake_of(schedule)
    intake.draw_boards(4)
    for _ in range(3):
        rollouts(intake)
    assert sorted(backend.boards_to_draw) == [(0, 2), (1, 1), (2, 1)]
    assert {worker: len(boards) for worker, boards in intake.boards.items()} == {0: 2, 1: 1, 2: 1}


def test_boards_are_of_workers_that_play() -> None:
    intake, backend = intake_of("sync", paused=[0])
    intake.draw_boards(1)
    rollouts_of_two, _ = intake.take(0, dict)
    assert rollouts_of_two["action"].shape[0] == 2 * NUM_GAMES
    assert backend.boards_to_draw == [(1, 1)]
    intake.set_paused(range(NUM_WORKERS))
    intake.draw_boards(5)
    intake.set_paused([])
    intake.draw_boards(0)
    rollouts(intake)
    assert backend.boards_to_draw == [(1, 1)]


def test_boards_stay_until_newer_ones_come() -> None:
    intake, backend = intake_of("sync")
    intake.draw_boards(1)
    rollouts(intake)
    (first,) = intake.boards[0]
    backend.boards_to_draw.clear()
    rollouts(intake)
    assert intake.boards == {0: (first,)}
    intake.draw_boards(1)
    rollouts(intake)
    assert [view.ply for view in intake.boards[0]] == [first.ply + 2]


def test_the_speed_of_the_newest_rollout_is_known_once_there_is_one() -> None:
    intake, _ = intake_of("sync")
    assert intake.last_plies_per_s(0) is None
    rollouts(intake)
    intake.last_headers[0] = replace(intake.last_headers[0], play_s=0.25)
    assert intake.last_plies_per_s(0) == NUM_GAMES * NUM_PLIES / 0.25
    assert intake.last_plies_per_s(1) is None  # it took no time
