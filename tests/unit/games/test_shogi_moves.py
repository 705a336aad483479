"""Single moves of shogi: by their USI name, and those that mate."""

from __future__ import annotations

import numpy as np
import pytest
from game_helpers import look, names, play, random_actions
from rsshogi.core import Board

from keisei_lightning.errors import GameError, IllegalActionError
from keisei_lightning.games import NO_MOVE
from keisei_lightning.games.shogi.game import Shogi

pytestmark = pytest.mark.usefixtures("shogi_boards")


def test_a_moves_name_and_its_label_are_inverse_in_every_position_of_random_games() -> None:
    game, rng = Shogi(20), np.random.default_rng(8)
    for _ in range(60):
        view = look(game)
        for index in range(0, 20, 5):
            for action in np.flatnonzero(view.mask[index]).tolist():
                assert game.action_of(index, game.action_name(index, action)) == action
        game.step(random_actions(view.mask, rng))
        game.reset(np.flatnonzero([game.outcome(index) != "" for index in range(20)]))


@pytest.mark.parametrize("usi", ["5e5d", "7g7f+", "P*5e", "7c7d", "9i9a", "K*5e", "win", "none", "", "7g7", "\x00"])
def test_what_is_no_legal_move_is_refused_by_its_name(usi: str) -> None:
    with pytest.raises(IllegalActionError) as caught:
        Shogi(1).action_of(0, usi)
    assert (caught.value.move, caught.value.ply) == (repr(usi), 0)
    assert caught.value.position == "lnsgkgsnl/1r5b1/ppppppppp/9/9/9/PPPPPPPPP/1B5R1/LNSGKGSNL b - 1"


def test_a_move_with_the_label_of_a_legal_one_but_another_origin_is_refused() -> None:
    game = Shogi(1)
    game.set_position(0, "8k/9/9/9/9/9/4R4/9/3KR4 b - 1")
    assert game.action_of(0, "5g5b") == names(game)["5g5b"]
    with pytest.raises(IllegalActionError, match="illegal move '5i5b'"):
        game.action_of(0, "5i5b")  # the rook in front of it would arrive there by the same label


def test_nothing_is_legal_and_nothing_mates_on_a_finished_board() -> None:
    game = Shogi(2, max_plies=3)
    game.set_position(0, "8k/9/8P/9/9/9/9/9/4K4 b 2G 3")
    assert game.action_name(0, game.mate_in_one(0)) == "G*1b"
    play(game, "5i5h")
    assert game.outcome(0) == "max plies"
    assert game.mate_in_one(0) == NO_MOVE
    with pytest.raises(IllegalActionError):
        game.action_of(0, "1a2a")
    with pytest.raises(GameError, match="there is no board 2"):
        game.mate_in_one(2)


def mates(board: Board) -> set[str]:
    """Every legal move that is checkmate, by playing them all."""
    found = set()
    for move in board.legal_moves():
        board.apply_move(move)
        if board.is_in_check() and not board.legal_moves():
            found.add(move.to_usi())
        board.undo_move(move)
    return found


def test_a_mate_in_one_is_found_wherever_there_is_one_and_nowhere_else() -> None:
    game, rng = Shogi(32), np.random.default_rng(5)
    num_mates = num_drops = num_others = 0
    for _ in range(400):
        view = look(game)
        for index in range(32):
            # Brute force over all moves costs much more than the answer: ask it where the game is not young.
            if view.observation[index, 97] < 64:
                continue
            expected = mates(Board(game.position(index)))
            answer = game.mate_in_one(index)
            if answer == NO_MOVE:
                assert not expected
                num_others += 1
            else:
                name = game.action_name(index, answer)
                assert name in expected
                num_mates, num_drops = num_mates + 1, num_drops + ("*" in name)
        game.step(random_actions(view.mask, rng))
        game.reset(np.flatnonzero([game.outcome(index) != "" for index in range(32)]))
    assert (num_mates >= 30, num_drops >= 15, num_others >= 5000) == (True, True, True)


@pytest.mark.parametrize(
    ("sfen", "expected"),
    [
        ("8k/9/8P/9/9/9/9/9/4K4 b G 1", {"G*1b"}),
        ("4k4/9/4P4/9/9/9/9/9/4K4 b G 1", {"G*5b"}),
        ("4k4/R8/9/9/9/9/9/9/4K4 b R 1", {f"R*{file}a" for file in "123789"}),
        # A king that its own pieces shut in: a pawn may mate it by a move, but not by a drop.
        ("7lk/7p1/7SP/9/9/9/9/9/4K4 b - 1", {"1c1b", "1c1b+", "2c1b", "2c1b+"}),
        ("7lk/7p1/7S1/9/9/9/9/9/4K4 b L 1", {f"L*1{rank}" for rank in "bcdefghi"}),
        ("7lk/7p1/7S1/9/9/9/9/9/4K4 b P 1", set()),
    ],
)
def test_chosen_positions_have_the_mates_that_playing_every_move_finds(sfen: str, expected: set[str]) -> None:
    game = Shogi(1)
    game.set_position(0, sfen)
    assert mates(Board(sfen)) == expected
    answer = game.mate_in_one(0)
    assert answer == NO_MOVE if not expected else game.action_name(0, answer) in expected
