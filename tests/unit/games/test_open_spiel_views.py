"""The mover's view of OpenSpiel's tensors, checked against rules written here once more."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from game_helpers import look, play, random_actions
from numpy.typing import NDArray

from keisei_lightning.games import Game, make_game

ALIKE = ["tic_tac_toe", "connect_four", "othello", "mnk(m=5,n=5,k=4)"]


def random_game(name: str, seed: int) -> Iterator[tuple[Game, NDArray[np.uint8], NDArray[np.bool_], int]]:
    """Every state of one random game, the last included: game, observation, mask, mover."""
    game, rng = make_game(name, 1), np.random.default_rng(seed)
    while True:
        view = look(game)
        yield game, view.observation[0], view.mask[0], int(view.mover[0])
        if not view.mask.any():
            return
        game.step(random_actions(view.mask, rng))


@pytest.mark.parametrize("name", ALIKE)
def test_planes_are_own_stones_opponents_stones_and_empty_squares(name: str) -> None:
    for _, observation, _, _ in random_game(name, 0):
        assert observation.shape[0] == 3
        assert (observation.sum(axis=0) == 1).all()


def test_the_first_stone_is_the_opponents_to_the_second_player() -> None:
    game = make_game("tic_tac_toe", 1)
    play(game, "x(0,2)")
    own, opponents, empty = look(game).observation[0]
    assert (own.sum(), opponents.sum(), empty.sum()) == (0, 1, 8)
    assert opponents[0, 2] == 1
    play(game, "o(1,1)")
    own, opponents, empty = look(game).observation[0]
    assert (own[0, 2], opponents[1, 1], empty.sum()) == (1, 1, 7)


def test_stones_change_places_at_every_ply_of_connect_four() -> None:
    before = None
    for _, observation, _, _ in random_game("connect_four", 1):
        if before is not None:
            np.testing.assert_array_equal(observation[1] - before[0], observation[1] & ~before[0])
            np.testing.assert_array_equal(observation[0], before[1])
            assert observation[1].sum() == before[0].sum() + 1
        before = observation


def test_othellos_mover_sees_his_own_discs_first() -> None:
    for _, observation, mask, _ in random_game("othello", 2):
        for action in np.flatnonzero(mask[:64]):
            assert brackets(observation, *divmod(int(action), 8))


def brackets(observation: NDArray[np.uint8], row: int, column: int) -> bool:
    """Whether an own disc there would turn an opponent's one."""
    own, opponents, _ = observation
    for down, right in [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]:
        r, c, between = row + down, column + right, 0
        while 0 <= r < 8 and 0 <= c < 8 and opponents[r, c]:
            r, c, between = r + down, c + right, between + 1
        if between and 0 <= r < 8 and 0 <= c < 8 and own[r, c]:
            return True
    return False


# Hex


def joined(stones: NDArray[np.bool_], *, rows: bool) -> bool:
    """Whether stones join top and bottom (``rows``) or left and right of a hexagonal board."""
    board = stones if rows else stones.T
    size = len(board)
    reached = {(0, column) for column in range(size) if board[0, column]}
    todo = list(reached)
    while todo:
        row, column = todo.pop()
        for r, c in [
            (row, column - 1),
            (row, column + 1),
            (row - 1, column),
            (row + 1, column),
            (row - 1, column + 1),
            (row + 1, column - 1),
        ]:
            if 0 <= r < size and 0 <= c < size and board[r, c] and (r, c) not in reached:
                reached.add((r, c))
                todo.append((r, c))
    return any(row == size - 1 for row, _ in reached)


@pytest.mark.parametrize("seed", range(6))
def test_every_mover_of_hex_joins_top_and_bottom(seed: int) -> None:
    for game, observation, mask, _ in random_game("hex(board_size=5)", seed):
        own, opponents = observation[5:9].any(axis=0), observation[0:4].any(axis=0)
        assert not (own & opponents).any()
        np.testing.assert_array_equal(observation[4], ~(own | opponents))
        if game.outcome(0):  # who has just moved is the opponent of the view, and he joins left and right there
            assert joined(opponents, rows=False)
            assert not joined(own, rows=True)
        else:
            np.testing.assert_array_equal(mask, observation[4].reshape(-1).astype(np.bool_))
            assert not joined(opponents, rows=False)
            assert not joined(own, rows=True)


def test_hex_planes_name_the_edges_that_stones_are_joined_to() -> None:
    for _, observation, _, _ in random_game("hex(board_size=5)", 3):
        loose, bottom, top = observation[5], observation[6], observation[7]
        assert not (loose | bottom)[0].any()  # a stone in the top row is joined to the top
        assert not (loose | top)[-1].any()
        loose, right, left = observation[3], observation[2], observation[1]
        assert not (loose | right)[:, 0].any()
        assert not (loose | left)[:, -1].any()


def test_hex_with_other_rules_or_planes_keeps_open_spiels_tensor_and_a_seat_plane() -> None:
    for name in ("hex(num_rows=4,num_cols=5)", "hex(board_size=5,swap=True)"):
        game = make_game(name, 1)
        assert game.spec.observation_shape[0] == 10
        assert game.spec.symmetries == ()


# Breakthrough


def breakthrough_labels(own: NDArray[np.uint8], opponents: NDArray[np.uint8]) -> set[int]:
    """Labels of all moves of pieces that go down: straight to an empty square, aslant also by capture."""
    height, width = own.shape
    found = set()
    for row, column in zip(*np.nonzero(own), strict=True):
        for direction, right in enumerate((-1, 0, 1)):
            r, c = row + 1, column + right
            if r >= height or not 0 <= c < width or own[r, c] or (right == 0 and opponents[r, c]):
                continue
            found.add(((int(row) * width + int(column)) * 6 + direction) * 2 + int(opponents[r, c]))
    return found


@pytest.mark.parametrize("name", ["breakthrough(rows=6,columns=6)", "breakthrough(rows=7,columns=5)"])
def test_every_mover_of_breakthrough_goes_down(name: str) -> None:
    movers = set()
    for game, (own, opponents, empty), mask, mover in random_game(name, 4):
        assert ((own + opponents + empty) == 1).all()
        if game.outcome(0):
            assert opponents[0].any() or not own.any()  # the opponent went up to the top
        else:
            assert set(np.flatnonzero(mask).tolist()) == breakthrough_labels(own, opponents)
            movers.add(mover)
    assert movers == {0, 1}


# Everything else


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("y(board_size=5)", (4, 5, 5)),
        ("nim", (2, 1, 39)),
        ("mancala", (2, 1, 16)),
        ("checkers", (6, 8, 8)),
        ("ultimate_tic_tac_toe", (2, 1, 254)),
    ],
)
def test_other_games_carry_the_seat_in_a_plane_of_its_own(name: str, shape: tuple[int, int, int]) -> None:
    movers = set()
    for game, observation, _, mover in random_game(name, 0):
        assert game.spec.observation_shape == observation.shape == shape
        assert game.spec.board_shape == shape[1:]
        assert (observation[-1] == mover).all()
        movers.add(mover)
    assert movers == {0, 1}


@pytest.mark.parametrize(
    ("name", "symmetries"),
    [
        ("tic_tac_toe", ["mirror"]),
        ("connect_four", ["mirror"]),
        ("breakthrough(rows=6,columns=6)", ["mirror"]),
        ("hex(board_size=5)", ["rotation"]),
        ("othello", ["rotation", "transpose", "antitranspose"]),
        ("y(board_size=5)", []),
    ],
)
def test_symmetries(name: str, symmetries: list[str]) -> None:
    spec = make_game(name, 1).spec
    assert [symmetry.name for symmetry in spec.symmetries] == symmetries
    for symmetry in spec.symmetries:
        for index in (symmetry.observation_index, symmetry.action_index):
            np.testing.assert_array_equal(index[index], np.arange(len(index)))


def test_connect_fours_mirror_turns_the_columns_round() -> None:
    (mirror,) = make_game("connect_four", 1).spec.symmetries
    assert mirror.action_index.tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert mirror.observation_index[:7].tolist() == [6, 5, 4, 3, 2, 1, 0]
