"""Slots: no two overlap, none is copied, and no slot makes a transition that the table does not allow."""

from __future__ import annotations

import os
import resource
from collections import Counter

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from leaks import shared_memory_of

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameSpec
from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer
from keisei_lightning.parallel.memory.slots import SlotBoard, SlotLayout, Slots, SlotState

FREE, GRANTED, READY, LEASED = SlotState.FREE, SlotState.GRANTED, SlotState.READY, SlotState.LEASED
LEGAL = {(FREE, GRANTED), (GRANTED, READY), (GRANTED, FREE), (READY, LEASED), (READY, FREE), (LEASED, FREE)}
NUM_WORKERS, NUM_SLOTS = 3, 2

SMALL = GameSpec(name="small", num_actions=11, observation_shape=(3, 2, 2), max_plies=9)
SHOGI = GameSpec(
    name="shogi",
    num_actions=2187,
    observation_shape=(98,),
    max_plies=256,
    encoding="shogi",
    board_shape=(9, 9),
)


class SlotBoardMachine(RuleBasedStateMachine):
    """Any sequence of moves, legal or not, against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.board = SlotBoard(NUM_WORKERS, NUM_SLOTS)
        self.expected = {(w, s): FREE for w in range(NUM_WORKERS) for s in range(NUM_SLOTS)}

    @rule(
        worker_id=st.integers(0, NUM_WORKERS - 1),
        slot=st.integers(0, NUM_SLOTS - 1),
        to=st.sampled_from(list(SlotState)),
    )
    def move(self, worker_id: int, slot: int, to: SlotState) -> None:
        state = self.expected[worker_id, slot]
        if (state, to) in LEGAL:
            self.board.move(worker_id, slot, to)
            self.expected[worker_id, slot] = to
        else:
            with pytest.raises(RuntimeError, match=f"slot {slot} of worker {worker_id} cannot go from {state} to {to}"):
                self.board.move(worker_id, slot, to)

    @invariant()
    def every_count_is_exact(self) -> None:
        for key, state in self.expected.items():
            assert self.board.state(*key) is state
        expected = Counter(self.expected.values())
        assert {state: len(self.board.slots_in(state)) for state in SlotState} == {s: expected[s] for s in SlotState}
        for worker_id in range(NUM_WORKERS):
            of_worker = [key for key, state in self.expected.items() if key[0] == worker_id and state is FREE]
            assert self.board.slots_in(FREE, worker_id) == of_worker


TestSlotBoard = SlotBoardMachine.TestCase
TestSlotBoard.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def small_layout(*, include_next_observation: bool = False) -> SlotLayout:
    return SlotLayout.for_game(
        SMALL,
        num_slots=2,
        num_workers=3,
        num_games=5,
        num_plies=7,
        include_next_observation=include_next_observation,
    )


@pytest.mark.parametrize("include_next_observation", [False, True])
def test_no_two_columns_workers_or_slots_share_a_byte(include_next_observation: bool) -> None:
    layout = small_layout(include_next_observation=include_next_observation)
    writers = np.zeros(layout.num_bytes, np.uint8)  # how many cells each byte belongs to
    used = 0
    for slot in range(layout.num_slots):
        for worker_id in range(layout.num_workers):
            for view in layout.views(writers, slot, worker_id).values():
                view.view(np.uint8)[...] += 1  # every item's own bytes
                used += view.nbytes
    assert writers.max() == 1
    assert int(writers.sum()) == used == layout.bytes_per_ply * 2 * 3 * 5 * 7


def test_the_batch_over_all_workers_is_a_view_of_their_slots_side_by_side() -> None:
    layout = small_layout()
    slots = Slots.reserve(layout)
    rng = np.random.default_rng(0)
    written = {}
    for slot in range(layout.num_slots):
        for worker_id in range(layout.num_workers):
            for key, view in slots.views(slot, worker_id).items():
                value = rng.integers(0, 2 if view.dtype == np.bool_ else 100, view.shape).astype(view.dtype)
                view[...] = written[slot, worker_id, key] = value
    for slot in range(layout.num_slots):
        for key, batch in slots.views(slot).items():
            expected = np.concatenate([written[slot, worker_id, key] for worker_id in range(layout.num_workers)])
            np.testing.assert_array_equal(batch, expected)
            assert np.shares_memory(batch, slots.shared.array())
    slots.close()


def test_the_columns_are_those_of_the_batch_table() -> None:
    layout = small_layout(include_next_observation=True)
    views = layout.views(np.zeros(layout.num_bytes, np.uint8), 0)
    batch = (15, 7)
    assert {key: (view.shape, view.dtype.name) for key, view in views.items()} == {
        "observation": ((*batch, 3, 2, 2), "uint8"),
        "action_mask": ((*batch, 2), "uint8"),
        "action": (batch, "int64"),
        "action_log_prob": (batch, "float32"),
        "state_value": ((*batch, 1), "float32"),
        "mover": (batch, "int8"),
        "trainable": (batch, "bool"),
        ("next", "reward"): ((*batch, 1), "float32"),
        ("next", "done"): ((*batch, 1), "bool"),
        ("next", "terminated"): ((*batch, 1), "bool"),
        ("next", "truncated"): ((*batch, 1), "bool"),
        ("next", "state_value"): ((*batch, 1), "float32"),
        ("next", "mover"): (batch, "int8"),
        ("collector", "traj_ids"): (batch, "int64"),
        ("collector", "policy_version"): (batch, "int64"),
        ("collector", "worker_id"): (batch, "int64"),
        ("next", "observation"): ((*batch, 3, 2, 2), "uint8"),
    }


def test_a_ply_of_shogi_takes_at_most_600_bytes() -> None:
    layout = SlotLayout.for_game(SHOGI, num_slots=2, num_workers=8, num_games=64, num_plies=32)
    assert SHOGI.mask_bytes == 274
    assert layout.bytes_per_ply == 98 + 274 + 8 + 4 + 4 + 1 + 1 + (4 + 1 + 1 + 1 + 4 + 1) + 3 * 8
    assert layout.bytes_per_ply <= 600
    plies = 2 * 8 * 64 * 32
    assert layout.bytes_per_ply * plies <= layout.num_bytes < layout.bytes_per_ply * plies * 1.01


def test_memory_that_cannot_be_reserved_is_refused_with_the_keys_to_lower() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match=r"1073741824 MiB are needed and \d+ MiB are available; lower num_w"):
        SharedBuffer(1 << 50)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(ConfigError, match=r"2 MiB cannot be reserved \(File too large\); lower num_workers"):
            SharedBuffer(2 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_shared_memory_has_no_name_and_outlives_its_descriptor() -> None:
    before = shared_memory_of([os.getpid()])
    descriptors = len(os.listdir("/proc/self/fd"))
    buffer = SharedBuffer(1 << 20)
    memory = buffer.array()
    assert shared_memory_of([os.getpid()]) == before
    buffer.close()
    buffer.close()  # twice is harmless
    memory[:] = 7
    assert int(memory.sum(dtype=np.int64)) == 7 << 20
    del memory, buffer
    assert len(os.listdir("/proc/self/fd")) == descriptors
