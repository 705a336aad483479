"""The learner's opponents: at the requested share, one snapshot a game, never a wrong one without an error."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keisei_lightning.errors import WeightsError
from keisei_lightning.parallel.central.worker import split_games
from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer
from keisei_lightning.parallel.opponents.boards import OpponentBoards, Seating, SnapshotVersions
from keisei_lightning.parallel.policy.inference_requests import LEARNER
from keisei_lightning.parallel.supervision.messages import Opponent

OLD, NEW = Opponent(version=3, buffer=0), Opponent(version=6, buffer=1)
BOTH = np.array([3, 6], np.int64)


def boards_of(num_games: int = 4, num_met: int = 4, versions: np.ndarray = BOTH) -> OpponentBoards:
    return OpponentBoards(versions, num_games=num_games, num_met=num_met)


def begin(boards: OpponentBoards, opponent: Opponent | None, *indices: int) -> None:
    boards.begin_rollout(opponent)
    boards.begin_games(np.array(indices, np.int64))


@given(share=st.floats(0.01, 1.0), num_games=st.integers(1, 200), num_groups=st.integers(1, 16))
def test_groups_together_meet_as_many_as_one_group_would(share: float, num_games: int, num_groups: int) -> None:
    with contextlib.closing(SharedBuffer(16)) as shared:
        seating = Seating(versions=SnapshotVersions(shared=shared, num_buffers=2), share=share)
        met, first = 0, 0
        for games in split_games(num_games, num_groups):
            boards = seating.boards(first, games)
            begin(boards, OLD, *range(games))
            seats = [boards.to_move(np.full(games, seat, np.int8)) != LEARNER for seat in (0, 1)]
            assert not (seats[0] & seats[1]).any()  # one seat each
            met += int((seats[0] | seats[1]).sum())
            first += games
    assert met == round(share * num_games)


def test_a_game_keeps_the_opponent_that_it_began_with() -> None:
    boards = boards_of()
    begin(boards, None, 0, 1, 2, 3)
    begin(boards, OLD, 1, 2)
    begin(boards, NEW, 2)
    versions = {max(boards.to_move(np.full(4, seat, np.int8)).tolist()[board] for seat in (0, 1)) for board in (1, 2)}
    assert versions == {3, 6}
    assert boards.in_use == (0, 1)
    boards.verify()
    boards.clear()
    assert boards.in_use == ()


def test_a_snapshot_that_was_overwritten_under_a_game_is_an_error() -> None:
    versions = BOTH.copy()
    boards = boards_of(versions=versions)
    begin(boards, NEW, 0)
    versions[1] = 9
    with pytest.raises(WeightsError, match="overwritten"):
        boards.verify()


@pytest.mark.parametrize(("mover", "expected"), [(0, (1, 0, 0)), (1, (0, 0, 1))])
def test_results_are_the_learners(mover: int, expected: tuple[int, int, int]) -> None:
    boards = boards_of(num_games=1, num_met=1)
    begin(boards, OLD, 0)  # the first game on board 0 seats the learner first
    boards.count(0, reward=1.0, mover=mover)
    assert boards.results == {3: expected}
    boards.count(0, reward=0.0, mover=mover)
    assert boards.results[3][1] == 1


def test_games_in_flight_find_their_snapshots_wherever_these_lie_now() -> None:
    boards = boards_of()
    begin(boards, NEW, 0, 1)
    elsewhere = boards_of(versions=np.array([6, 3], np.int64))
    assert elsewhere.load_state_dict(boards.state_dict())
    assert elsewhere.in_use == (0,)
    mover = np.zeros(4, np.int8)
    assert elsewhere.to_move(mover).tolist() == boards.to_move(mover).tolist()
    gone = boards_of(versions=np.array([-1, 3], np.int64))
    assert not gone.load_state_dict(boards.state_dict())
    assert gone.in_use == ()
