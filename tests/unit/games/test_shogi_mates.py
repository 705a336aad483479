"""The kernel's search for mates, beside a plain search over rsshogi's rules."""

from __future__ import annotations

import random

import numpy as np
import pytest
from rsshogi.core import Board, Move

from keisei_lightning.games import NO_MOVE
from keisei_lightning.games.shogi.game import Shogi
from keisei_lightning.games.shogi.kernel import why_no_kernel

pytestmark = pytest.mark.skipif(bool(why_no_kernel()), reason=f"no compiled kernel: {why_no_kernel()}")

ENOUGH = 1 << 16


def mates(board: Board, plies: int) -> list[str]:
    """All checks that mate within so many plies, whatever the defender does."""
    found = []
    for move in board.legal_moves():
        after = board.copy()
        after.apply_move(move)
        if after.is_in_check() and is_mated(after, plies - 1):
            found.append(move.to_usi())
    return found


def gives_check(board: Board, move: Move) -> bool:
    after = board.copy()
    after.apply_move(move)
    return bool(after.is_in_check())


def is_mated(board: Board, plies: int) -> bool:
    """Whether the side in check is mated within so many plies."""
    answers = board.legal_moves()
    if not answers or plies == 0:
        return not answers
    for move in answers:
        after = board.copy()
        after.apply_move(move)
        if not mates(after, plies - 1):
            return False
    return True


def positions(count: int, seed: int) -> list[str]:
    """Positions late in random games in which the mover can give check, where mates are short."""
    rng, found = random.Random(seed), list[str]()
    while len(found) < count:
        board = Board()
        for _ in range(rng.randint(60, 160)):
            moves = board.legal_moves()
            if not moves:
                break
            board.apply_move(rng.choice(moves))
        if any(gives_check(board, move) for move in board.legal_moves()):
            found.append(board.to_sfen())
    return found


def board_at(sfen: str, **options: object) -> Shogi:
    game = Shogi(1, kernel=True, **options)  # type: ignore[arg-type]
    game.reset()
    game.set_position(0, sfen)
    return game


def find_win(game: Shogi, max_nodes: int = ENOUGH) -> int:
    return int(game.find_wins(np.array([0]), max_nodes)[0])


def assert_mates(board: Board, depth: int = 0) -> int:
    """Play the moves that are found against every defence: each line ends in mate. Returns the longest one's plies."""
    assert depth < 64
    game = board_at(board.to_sfen(), max_plies=1000, declaration=False)
    action = find_win(game)
    assert action != NO_MOVE, board.to_sfen()
    after = board.copy()
    after.apply_usi(game.action_name(0, action))
    assert after.is_in_check(), board.to_sfen()
    longest = 0
    for answer in after.legal_moves():
        following = after.copy()
        following.apply_move(answer)
        longest = max(longest, 1 + assert_mates(following, depth + 2))
    return 1 + longest


def test_it_finds_a_mate_wherever_there_is_a_short_one_and_each_that_it_finds_holds_against_every_defence() -> None:
    lengths = []
    for sfen in positions(200, seed=7):
        board = board_of(sfen)
        if find_win(board_at(sfen, max_plies=1000, declaration=False)) == NO_MOVE:
            assert not mates(board, 3), sfen
        else:
            lengths.append(assert_mates(board))
    assert len(lengths) > 10
    assert max(lengths) >= 3


def test_a_mate_that_comes_after_the_last_ply_is_none() -> None:
    sfen = next(sfen for sfen in positions(200, seed=9) if not mates(board_of(sfen), 1) and mates(board_of(sfen), 3))
    ply = int(sfen.split()[-1]) - 1
    assert find_win(board_at(sfen, max_plies=ply + 3, declaration=False)) != NO_MOVE
    assert find_win(board_at(sfen, max_plies=ply + 2, declaration=False)) == NO_MOVE
    game = board_at(sfen, max_plies=ply + 3, declaration=False)
    for _ in range(3):  # the defender's moves are any
        legal = np.zeros((1, game.spec.mask_bytes), np.uint8)
        game.observe(np.zeros((1, *game.spec.observation_shape), np.uint8), legal, np.zeros(1, np.int8))
        won = find_win(game)
        game.step(np.array([int(np.unpackbits(legal[0]).argmax()) if won == NO_MOVE else won]))
    assert game.outcome(0) == "checkmate"


def board_of(sfen: str) -> Board:
    board = Board()
    board.set_sfen(sfen)
    return board


def test_a_limit_of_positions_ends_the_search() -> None:
    game = board_at("lnsgkgsnl/1r5b1/ppppppppp/9/9/9/PPPPPPPPP/1B5R1/LNSGKGSNL b - 1")
    assert find_win(game, 1) == NO_MOVE
    assert find_win(game, 1000) == NO_MOVE
    before = game.position(0)
    game.step(np.array([game.action_of(0, "7g7f")]))
    assert game.position(0) != before
