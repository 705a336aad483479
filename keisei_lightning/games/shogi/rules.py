"""What the rules library does not do for shogi: positions as arrays, the entering-king declaration, random openings.

Not implemented: handicap rules beyond the starting position itself, impasse by agreement (the 24-point draw), the
"try" rule, clocks and resignation.
"""

from __future__ import annotations

import random
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rsshogi.core import Board, Move
from rsshogi.types import PieceType, RepetitionState

from keisei_lightning.errors import GameError
from keisei_lightning.games.shogi import codec

__all__ = [
    "CHECKMATE",
    "DECLARATION",
    "FIRST_POINTS",
    "FOURTH",
    "MAX_PLIES",
    "NO_LEGAL_MOVE",
    "PERPETUAL_CHECK",
    "REPETITION",
    "SECOND_POINTS",
    "MoveCache",
    "board_state",
    "declarations",
    "end_of",
    "fourfold_end",
    "parse_history",
    "parse_sfen",
    "random_opening",
]

CHECKMATE: Final = "checkmate"
NO_LEGAL_MOVE: Final = "no legal move"
REPETITION: Final = "repetition"
PERPETUAL_CHECK: Final = "perpetual check"
DECLARATION: Final = "declaration"
MAX_PLIES: Final = "max plies"

FOURTH: Final = 3
"""Earlier occurrences of a position that occurs for the fourth time."""
FIRST_POINTS: Final = 28
"""Points the first player (Black) needs to declare."""
SECOND_POINTS: Final = 27
"""Points the second player (White) needs to declare."""

_PIECES_IN_ZONE: Final = 10
_KING: Final = codec.PIECE_NAMES.index("K") + 1
_ZONE_RANKS: Final = 3
_ZONE: Final = np.flatnonzero(np.arange(codec.NUM_SQUARES) % 9 < _ZONE_RANKS)
_WORTH: Final = np.array([5 if name[-1] in "BR" else 1 for name in codec.PIECE_NAMES], dtype=np.int64)
_SQUARE_POINTS: Final = np.zeros(codec.NUM_SQUARE_CODES, dtype=np.int64)
_SQUARE_POINTS[1:15] = _WORTH
_SQUARE_POINTS[_KING] = 0
_HAND_POINTS: Final = _WORTH[:7]
_HAND_TYPES: Final = tuple(PieceType.from_usi(name) for name in codec.PIECE_NAMES[:7])
_OWN_HAND: Final = slice(codec.HANDS_START, codec.HANDS_START + 7)


class MoveCache(dict[int, Move]):
    """Move objects by move code, made when first used: making one costs more than playing it."""

    def __missing__(self, code: int) -> Move:
        move = self[code] = Move(code)
        return move


def declarations(states: NDArray[np.uint8], movers: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Whether the mover wins by the entering-king declaration (27-point rule).

    The mover may declare when his king and at least ten of his other pieces stand in the three far ranks, he is not in
    check, and his pieces there (the king does not count) and in hand are worth 28 points for Black or 27 for White;
    rook, bishop, dragon and horse are worth 5, all others 1. This is the rule of computer shogi tournaments.

    Args:
        states: uint8 [n, 98], mover's view.
        movers: int8 [n], seat to move.

    Returns:
        bool [n].
    """
    declares = np.zeros(len(states), dtype=np.bool_)
    far = states[:, : codec.NUM_SQUARES].reshape(-1, 9, 9)[:, :, :_ZONE_RANKS]
    entered = np.flatnonzero((far == _KING).any(axis=(1, 2)))
    if entered.size == 0:  # nearly always: then this is all that a ply costs
        return declares
    zone = states[entered][:, _ZONE]
    num_pieces = ((zone >= 1) & (zone <= 14) & (zone != _KING)).sum(axis=1)
    points = _SQUARE_POINTS[zone].sum(axis=1) + states[entered, _OWN_HAND] @ _HAND_POINTS
    needed = np.where(movers[entered] == 0, FIRST_POINTS, SECOND_POINTS)
    in_check = states[entered, codec.CHECK_BYTE] != 0
    declares[entered] = (num_pieces >= _PIECES_IN_ZONE) & (points >= needed) & ~in_check
    return declares


def board_state(board: Board) -> NDArray[np.uint8]:
    """Observation of a board, uint8 [98]; the repetition and ply bytes are 0: a position does not know them."""
    state = np.zeros(codec.OBSERVATION_BYTES, dtype=np.uint8)
    white = board.turn.is_white()
    for square, piece in board.iter_pieces():
        own = piece.color.is_white() == white
        at = 80 - int(square) if white else int(square)
        state[at] = int(piece.piece_type) + (0 if own else 14)
    for start, color in ((codec.HANDS_START, board.turn), (codec.HANDS_START + 7, board.turn.opponent())):
        hand = board.hand(color)
        state[start : start + 7] = [hand.count(piece_type) for piece_type in _HAND_TYPES]
    state[codec.CHECK_BYTE] = board.is_in_check()
    return state


def parse_sfen(sfen: str) -> Board:
    """Read a position.

    Args:
        sfen: ``board turn hands [move number]``, or ``"startpos"``.

    Raises:
        GameError: the text is no SFEN, or the position cannot occur (no king, too many pieces, two pawns on a file, a
            piece that can never move again, the side that has just moved still in check).
    """
    fields = sfen.split()
    if fields == ["startpos"]:
        return Board()
    try:
        board = Board(" ".join([*fields, "1"] if len(fields) == 3 else fields))
    except ValueError as error:
        raise GameError(f"shogi: cannot read the SFEN {sfen!r}: {error}") from error
    issues = [issue.message for issue in board.validate_all().issues]
    if not issues and board.is_attacked_by(board.king_square(board.turn.opponent()), board.turn):
        issues.append("the side that has just moved is in check")
    if issues:
        raise GameError(f"shogi: the position {sfen!r} is impossible: {'; '.join(issues)}")
    return board


def end_of(board: Board, *, max_plies: int, declaration: bool) -> str:
    """Why a position without history is over; empty where it is not.

    Args:
        board: the position.
        max_plies: the ply limit, against the board's move number.
        declaration: whether declarations exist.
    """
    if not board.legal_moves():
        return CHECKMATE if board.is_in_check() else NO_LEGAL_MOVE
    if declaration and _declares(board):
        return DECLARATION
    return MAX_PLIES if board.game_ply > max_plies else ""


def parse_history(history: str) -> tuple[Board, list[int]]:
    """A start position and all moves since, as in USI's ``position`` command: ``SFEN moves 7g7f ...``.

    Returns:
        The board at the start, and the codes of the moves.

    Raises:
        GameError: a move is not legal, or the SFEN cannot be read.
    """
    start, _, moves = history.partition(" moves")
    board, codes = parse_sfen(start), []
    for usi in moves.split():
        found = [move for move in board.legal_moves() if move.to_usi() == usi]
        if not found:
            raise GameError(f"shogi: {usi!r} is not legal in {board.to_sfen()!r}, in the history {history!r}")
        board.apply_move(found[0])
        codes.append(hash(found[0]))
    return parse_sfen(start), codes


def fourfold_end(board: Board) -> tuple[str, int]:
    """How the fourth occurrence of a position ends a game.

    Returns:
        The outcome, and the result for the player who has just moved; rsshogi tells it of the side to move.
    """
    state = board.repetition_state()
    if state == RepetitionState.WIN:  # it was in check all the time
        return PERPETUAL_CHECK, -1
    if state == RepetitionState.LOSE:  # it gave check all the time
        return PERPETUAL_CHECK, 1
    return REPETITION, 0


def random_opening(
    board: Board, seen: dict[int, int], plies: int, rng: random.Random, *, declaration: bool
) -> list[int]:
    """Play uniformly random legal moves that do not end the game.

    Args:
        board: the position to start from; it is moved.
        seen: occurrences by position hash; they are counted on.
        plies: number of moves to play. It is fewer only where every legal move would end the game.
        rng: source of the moves.
        declaration: whether declarations exist.

    Returns:
        The codes of the moves played.
    """
    played: list[int] = []
    options = board.legal_moves()
    for _ in range(plies):
        first = rng.randrange(len(options))
        for move in options[first:] + options[:first]:
            board.apply_move(move)
            key, replies = board.zobrist_hash(), board.legal_moves()
            if replies and seen.get(key, 0) < FOURTH and not (declaration and _declares(board)):
                break
            board.undo_move(move)
        else:
            break
        seen[key] = seen.get(key, 0) + 1
        played.append(hash(move))
        options = replies
    return played


def _declares(board: Board) -> bool:
    """Whether the side to move wins by declaration; where the king is outside the zone, no arrays are built."""
    rank, white = board.king_square(board.turn).rank, board.turn.is_white()
    if not (rank > 5 if white else rank < 3):
        return False
    return bool(declarations(board_state(board)[None], np.array([int(white)], dtype=np.int8))[0])
