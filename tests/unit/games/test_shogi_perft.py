"""Numbers of move sequences, counted through our own masks and steps."""

from __future__ import annotations

import pytest
from game_helpers import perft
from rsshogi.core import Board

from keisei_lightning.games import make_game

pytestmark = pytest.mark.usefixtures("shogi_boards")

START = "lnsgkgsnl/1r5b1/ppppppppp/9/9/9/PPPPPPPPP/1B5R1/LNSGKGSNL b - 1"
# A middle game full of drops, checks and promotions, and the position with the most legal moves; both are well known.
MATSURI = "l6nl/5+P1gk/2np1S3/p1p4Pp/3P2Sp1/1PPb2P1P/P5GS1/R8/LN4bKL w RGgsn5p 1"
MOST_MOVES = "R8/2K1S1SSk/4B4/9/9/9/9/9/1L1L1L3 b RBGSNLP3g3n17p 1"


def rsshogi_perft(board: Board, depth: int) -> int:
    moves = board.legal_moves()
    if depth == 1:
        return len(moves)
    total = 0
    for move in moves:
        board.apply_move(move)
        total += rsshogi_perft(board, depth - 1)
        board.undo_move(move)
    return total


@pytest.mark.parametrize(
    ("sfen", "counts"),
    [(START, [30, 900, 25470]), (MATSURI, [207, 28684]), (MOST_MOVES, [593, 105677])],
    ids=["start", "matsuri", "most moves"],
)
def test_move_sequences_are_counted_as_published_and_as_rsshogi_counts_them(sfen: str, counts: list[int]) -> None:
    game = make_game("shogi", 256, declaration=False)  # perft knows no ends but the lack of moves

    assert perft(game, sfen, len(counts)) == counts
    assert rsshogi_perft(Board(sfen), len(counts)) == counts[-1]
