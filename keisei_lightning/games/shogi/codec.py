"""Shogi as bytes and numbers: squares, pieces, observations, action labels and their left-right mirror.

Everything here is plain NumPy on whole batches of boards and needs no rules.

Squares are numbered ``file * 9 + rank``, both from 0, as in rsshogi: 1a = 0, 1b = 1, ..., 2a = 9, ..., 9i = 80. In
the *mover's view* White sees the board turned by 180 degrees (``80 - square``), so that the mover's pieces always move
towards rank 0. ``observation[:81].reshape(9, 9)`` is therefore [file, rank].

Observation, uint8 [98], mover's view:

======== =========================================================================================================
bytes    meaning
======== =========================================================================================================
0..80    square codes: 0 empty; 1..14 the mover's pieces; 15..28 the opponent's, each in the order pawn, lance,
         knight, silver, bishop, rook, gold, king, +pawn, +lance, +knight, +silver, horse, dragon
81..87   the mover's hand: pawns, lances, knights, silvers, bishops, rooks, golds (at most :data:`HAND_LIMITS`)
88..94   the opponent's hand, in the same order
95       how often this position occurred before in this game: 0 to 2, and 3 in a game that ended by it
96       1 where the mover is in check
97       ``min(255, ply * 255 // max_plies)``
======== =========================================================================================================

Action, 0..2186 = ``move_type * 81 + to_square``, both in the mover's view (the labelling of dlshogi, see
https://github.com/TadaoYamaoka/DeepLearningShogi):

========== =======================================================================================================
move type  meaning (the direction is the piece's way from its origin to its target)
========== =======================================================================================================
0..9       up, up left, up right, left, right, down, down left, down right, knight to the left, knight to the right
10..19     the same, with promotion
20..26     drop of a pawn, lance, knight, silver, bishop, rook, gold
========== =======================================================================================================

A label needs no origin: only the nearest of the mover's pieces in that direction can arrive there.

A *move code* is rsshogi's 16-bit move: ``to | from << 7 | drop << 14 | promote << 15``, with real squares; a drop
carries its piece type (1..7) in ``from``.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games.protocol import Symmetry

__all__ = [
    "CHECK_BYTE",
    "HAND_LIMITS",
    "MOVE_TYPES",
    "NUM_ACTIONS",
    "NUM_MOVE_TYPES",
    "NUM_SQUARES",
    "NUM_SQUARE_CODES",
    "OBSERVATION_BYTES",
    "PIECE_NAMES",
    "PLY_BYTE",
    "REPETITION_BYTE",
    "advance",
    "describe_label",
    "label_table",
    "mirror_sfen",
    "mirror_symmetry",
    "square_name",
]

NUM_SQUARES: Final = 81
PIECE_NAMES: Final = ("P", "L", "N", "S", "B", "R", "G", "K", "+P", "+L", "+N", "+S", "+B", "+R")
"""The pieces in the order of their codes 1..14."""
NUM_SQUARE_CODES: Final = 29
"""Codes of one square: empty, 14 own pieces, 14 of the opponent."""
HAND_LIMITS: Final = (18, 4, 4, 4, 2, 2, 4) * 2
"""Largest possible value of each of the 14 hand bytes."""
HANDS_START: Final = NUM_SQUARES
REPETITION_BYTE: Final = HANDS_START + len(HAND_LIMITS)
CHECK_BYTE: Final = REPETITION_BYTE + 1
PLY_BYTE: Final = CHECK_BYTE + 1
OBSERVATION_BYTES: Final = PLY_BYTE + 1

MOVE_TYPES: Final = (
    *(
        ways := (
            "up",
            "up left",
            "up right",
            "left",
            "right",
            "down",
            "down left",
            "down right",
            "knight left",
            "knight right",
        )
    ),
    *(f"{way} with promotion" for way in ways),
    *(f"drop {piece}" for piece in PIECE_NAMES[:7]),
)
"""The 27 move types in the order of their labels."""
NUM_MOVE_TYPES: Final = len(MOVE_TYPES)
NUM_ACTIONS: Final = NUM_MOVE_TYPES * NUM_SQUARES

_PROMOTION: Final = 8  # a promoted piece's code is its plain code + 8
_FIRST_DROP: Final = 20
_NUM_WAYS: Final = 10
# A move type seen in the mirror: left and right change places.
_MIRRORED_WAY: Final = (0, 2, 1, 4, 3, 5, 7, 6, 9, 8)

# Own and opponent's codes change places; index 0 (empty) stays.
_SWAP_SIDES: Final = np.array([0, *range(15, 29), *range(1, 15)], dtype=np.uint8)
_OWN_HAND: Final = slice(HANDS_START, HANDS_START + 7)
_OPPONENTS_HAND: Final = slice(HANDS_START + 7, REPETITION_BYTE)
# From a captured piece's code (15..28) to the hand byte it arrives in; promotion is lost, a king is never captured.
_CAPTURE_BYTE: Final = np.array(
    [0] * 15 + [HANDS_START + piece % _PROMOTION for piece in (0, 1, 2, 3, 4, 5, 6, 0, 0, 1, 2, 3, 4, 5)],
    dtype=np.int64,
)


def square_name(square: int) -> str:
    """USI name of a real square: 0 is 1a, 80 is 9i."""
    return f"{square // 9 + 1}{'abcdefghi'[square % 9]}"


def describe_label(action: int) -> str:
    """An action label in words, squares in the mover's view; the bare number where it is no label at all."""
    if not 0 <= action < NUM_ACTIONS:
        return str(action)
    move_type, square = divmod(action, NUM_SQUARES)
    return f"{action} ({MOVE_TYPES[move_type]} to {square_name(square)} in the mover's view)"


@cache
def label_table() -> NDArray[np.int16]:
    """Action label of every move code, by seat: int16 [2, 65536], -1 where no piece can move so.

    The table knows the geometry of single moves, not the rules: a label is legal where a legal move has it.
    """
    codes = np.arange(1 << 16, dtype=np.int64)
    to, origin, drop, promotion = codes & 127, codes >> 7 & 127, codes >> 14 & 1, codes >> 15
    table = np.full((2, 1 << 16), -1, dtype=np.int16)
    is_drop = (drop == 1) & (promotion == 0) & (to < NUM_SQUARES) & (origin >= 1) & (origin <= 7)
    is_move = (drop == 0) & (to < NUM_SQUARES) & (origin < NUM_SQUARES) & (to != origin)
    for seat in (0, 1):
        target = 80 - to if seat else to
        source = 80 - origin if seat else origin
        way = _way(target // 9 - source // 9, target % 9 - source % 9)
        labels = (way + _NUM_WAYS * promotion) * NUM_SQUARES + target
        table[seat] = np.where(is_move & (way >= 0), labels, -1)
        table[seat][is_drop] = ((origin + _FIRST_DROP - 1) * NUM_SQUARES + target)[is_drop]
    table.setflags(write=False)
    return table


def _way(files: NDArray[np.int64], ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number 0..9 of the way of a displacement (files grow to the left, ranks downwards), -1 where it is none."""
    straight = (files == 0) | (ranks == 0) | (abs(files) == abs(ranks))
    knight = (abs(files) == 1) & (ranks == -2)
    by_direction = np.array([[2, 0, 1], [4, -1, 3], [7, 5, 6]])  # [rank sign, file sign]
    way = np.where(straight, by_direction[np.sign(ranks) + 1, np.sign(files) + 1], -1)
    return np.where(knight, np.where(files > 0, 8, 9), way)


def advance(states: NDArray[np.uint8], codes: NDArray[np.int64], movers: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Play one legal move on each observation's board and hands, and turn it to the opponent's view.

    Args:
        states: uint8 [n, 98], the mover's view before the move (it is overwritten).
        codes: int64 [n], move codes.
        movers: int8 [n], the seat that moves.

    Returns:
        uint8 [n, 98] in the view of the player to move next. Bytes 95 to 97 are zero: the caller knows them.
    """
    rows = np.arange(len(states))
    turned = movers == 1
    to, origin = codes & 127, codes >> 7 & 127
    is_drop = codes & 1 << 14 != 0
    target = np.where(turned, 80 - to, to)
    source = np.where(turned, 80 - origin, origin)
    source[is_drop] = target[is_drop]  # a drop takes its piece from the hand: the target square is empty before it
    piece = np.where(is_drop, origin, states[rows, source]) + _PROMOTION * (codes >> 15)
    captured = states[rows, target]
    states[rows, source] = 0
    states[rows, target] = piece
    caught = captured > 0
    states[rows[caught], _CAPTURE_BYTE[captured[caught]]] += 1
    states[rows[is_drop], HANDS_START - 1 + origin[is_drop]] -= 1
    after = np.zeros_like(states)
    after[:, :NUM_SQUARES] = _SWAP_SIDES.take(states[:, NUM_SQUARES - 1 :: -1])
    after[:, _OWN_HAND], after[:, _OPPONENTS_HAND] = states[:, _OPPONENTS_HAND], states[:, _OWN_HAND]
    return after


@cache
def mirror_symmetry() -> Symmetry:
    """The left-right mirror of the board: files change places, and so do the left and right move types."""
    files, ranks = np.divmod(np.arange(NUM_SQUARES), 9)
    squares = (8 - files) * 9 + ranks
    observation_index = np.concatenate([squares, np.arange(NUM_SQUARES, OBSERVATION_BYTES)])
    types = [*_MIRRORED_WAY, *(way + _NUM_WAYS for way in _MIRRORED_WAY), *range(_FIRST_DROP, NUM_MOVE_TYPES)]
    action_index = (np.array(types)[:, None] * NUM_SQUARES + squares[None, :]).reshape(-1)
    return Symmetry(
        name="mirror",
        observation_index=observation_index.astype(np.int64),
        action_index=action_index.astype(np.int64),
    )


def mirror_sfen(sfen: str) -> str:
    """The SFEN of the left-right mirrored position."""
    board, *rest = sfen.split()
    ranks = []
    for rank in board.split("/"):
        pieces: list[str] = []
        for letter in rank:
            if pieces and pieces[-1] == "+":
                pieces[-1] += letter
            else:
                pieces.append(letter)
        ranks.append("".join(reversed(pieces)))
    return " ".join(["/".join(ranks), *rest])
