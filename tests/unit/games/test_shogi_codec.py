"""Bytes and labels of shogi: identities against rsshogi, against themselves, and in the mirror."""

from __future__ import annotations

import numpy as np
from game_helpers import look, random_actions
from hypothesis import given, settings
from hypothesis import strategies as st
from rsshogi import policy
from rsshogi.core import Board
from rsshogi.types import Color

from keisei_lightning.games import make_game
from keisei_lightning.games.shogi import codec
from keisei_lightning.games.shogi.rules import board_state

START = Board().to_sfen()


def random_board(seed: int, plies: int) -> Board:
    rng, board = np.random.default_rng(seed), Board()
    for _ in range(plies):
        moves = board.legal_moves()
        if not moves:
            return Board()
        board.apply_move(moves[int(rng.integers(len(moves)))])
    return board if board.legal_moves() else Board()


boards = st.builds(random_board, st.integers(0, 10_000), st.integers(0, 150))


def test_every_label_is_the_one_that_rsshogi_and_dlshogi_give() -> None:
    table = codec.label_table()
    assert policy.MOVE_LABEL_COUNT == codec.NUM_ACTIONS == 2187
    for seat, color in enumerate((Color.BLACK, Color.WHITE)):
        codes = np.flatnonzero(table[seat] >= 0).tolist()
        assert [policy.move_label(code, color) for code in codes] == table[seat][codes].tolist()


@settings(deadline=None, max_examples=50)
@given(board=boards)
def test_legal_moves_have_different_labels_that_are_structurally_possible(board: Board) -> None:
    labels = codec.label_table()[int(board.turn)][[hash(move) for move in board.legal_moves()]]
    assert len(set(labels.tolist())) == len(labels)
    assert all(policy.is_structurally_valid_move_label(int(label)) for label in labels)


def test_a_moves_hash_is_its_code() -> None:
    for seed in range(5):
        moves = random_board(seed, 60).legal_moves()
        assert [hash(move) for move in moves] == [int(move) for move in moves]


@settings(deadline=None, max_examples=50)
@given(board=boards)
def test_white_sees_the_turned_board_as_black_would(board: Board) -> None:
    flipped = Board(board.to_sfen_flipped())
    np.testing.assert_array_equal(board_state(board), board_state(flipped))
    ours, theirs = (
        sorted(codec.label_table()[int(each.turn)][[hash(move) for move in each.legal_moves()]].tolist())
        for each in (board, flipped)
    )
    assert ours == theirs


@settings(deadline=None, max_examples=50)
@given(board=boards, choice=st.integers(0, 1000))
def test_advancing_the_bytes_is_advancing_the_board(board: Board, choice: int) -> None:
    moves = board.legal_moves()
    move, seat = moves[choice % len(moves)], np.array([int(board.turn)], dtype=np.int8)
    advanced = codec.advance(board_state(board)[None].copy(), np.array([hash(move)]), seat)[0]
    board.apply_move(move)
    expected = board_state(board)
    expected[codec.CHECK_BYTE] = 0  # not the codec's to know
    np.testing.assert_array_equal(advanced, expected)


@settings(deadline=None, max_examples=50)
@given(board=boards)
def test_bytes_stay_inside_their_limits_and_count_all_pieces(board: Board) -> None:
    state = board_state(board)
    assert state[: codec.NUM_SQUARES].max() < codec.NUM_SQUARE_CODES
    hands = state[codec.NUM_SQUARES : codec.REPETITION_BYTE]
    assert (hands <= codec.HAND_LIMITS).all()
    assert np.count_nonzero(state[: codec.NUM_SQUARES]) + hands.sum() == 40


@settings(deadline=None, max_examples=50)
@given(board=boards)
def test_the_mirror_holds_for_planes_and_labels(board: Board) -> None:
    mirror, mirrored = codec.mirror_symmetry(), Board(codec.mirror_sfen(board.to_sfen()))
    np.testing.assert_array_equal(board_state(board)[mirror.observation_index], board_state(mirrored))
    masks = np.zeros((2, codec.NUM_ACTIONS), dtype=np.bool_)
    for mask, each in zip(masks, (board, mirrored), strict=True):
        mask[codec.label_table()[int(each.turn)][[hash(move) for move in each.legal_moves()]]] = True
    np.testing.assert_array_equal(masks[0][mirror.action_index], masks[1])


def test_mirroring_twice_changes_nothing() -> None:
    mirror = codec.mirror_symmetry()
    np.testing.assert_array_equal(mirror.observation_index[mirror.observation_index], np.arange(98))
    np.testing.assert_array_equal(mirror.action_index[mirror.action_index], np.arange(2187))
    for seed in range(10):
        sfen = random_board(seed, 90).to_sfen()
        assert codec.mirror_sfen(codec.mirror_sfen(sfen)) == sfen


def test_a_random_game_and_its_mirror_image_stay_images_of_each_other() -> None:
    game, image = make_game("shogi", 16), make_game("shogi", 16)
    mirror, rng = codec.mirror_symmetry(), np.random.default_rng(1)
    inverse = np.argsort(mirror.action_index)
    for index in range(16):
        image.set_position(index, codec.mirror_sfen(START))
    for _ in range(150):
        view, seen = look(game), look(image)
        np.testing.assert_array_equal(view.observation[:, mirror.observation_index], seen.observation)
        np.testing.assert_array_equal(view.mask[:, mirror.action_index], seen.mask)
        actions = random_actions(view.mask, rng)
        ours, theirs = game.step(actions), image.step(np.where(actions < 0, actions, inverse[actions]))
        assert all(map(np.array_equal, ours, theirs))


def test_labels_are_described_in_words() -> None:
    assert codec.describe_label(5) == "5 (up to 1f in the mover's view)"
    assert codec.describe_label(2186) == "2186 (drop G to 9i in the mover's view)"
    assert codec.describe_label(2187) == "2187"
    assert len(codec.MOVE_TYPES) == codec.NUM_MOVE_TYPES == 27
