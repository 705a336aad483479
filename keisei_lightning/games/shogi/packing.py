"""Training positions in the formats of other shogi trainers: PSV and hcpe.

========== ===========================================================================================================
ending     one position
========== ===========================================================================================================
``.psv``   40 bytes, "packed sfen value" of YaneuraOu and of trainers of NNUE networks: 32 bytes of position (Huffman
           codes), int16 score, uint16 move, uint16 number of the move (1 for a game's first), int8 result (1, 0, -1),
           a byte of 0. Score and result are the mover's
``.hcpe``  38 bytes, "HuffmanCodedPosAndEval" of Apery and dlshogi: 32 bytes of position (other Huffman codes), int16
           score (the mover's), uint16 move, int8 result (0 draw, 1 Black won, 2 White won; + 4 where a repetition
           ended the game, + 8 a declaration, + 16 the ply limit), a byte of 0
========== ===========================================================================================================

Numbers are little-endian. The score is ``scale * ln((1 + value) / (1 - value))`` in centipawns, rounded and cut to
:data:`MAX_SCORE`: with it ``1 / (1 + exp(-score / scale))`` is the expected score ``(1 + value) / 2``. Where nobody has
said what a position is worth, the score is 0.

References:
    YaneuraOu, ``source/learn/learn.h``, ``PackedSfenValue``: https://github.com/yaneurao/YaneuraOu
    Apery, ``src/position.hpp``, ``HuffmanCodedPosAndEval``: https://github.com/HiraokaTakuya/apery
    dlshogi: https://github.com/TadaoYamaoka/DeepLearningShogi
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Final

from rsshogi.core import Board, Move

from keisei_lightning.errors import GameError
from keisei_lightning.games.packed_game import LabelledPosition
from keisei_lightning.games.shogi.rules import DECLARATION, MAX_PLIES, PERPETUAL_CHECK, REPETITION, parse_sfen

__all__ = ["MAX_SCORE", "POSITION_FORMATS", "apery_move", "hcp_result", "pack_position", "score_of"]

MAX_SCORE: Final = 10_000
"""Largest score; beyond it programs write mates."""
POSITION_FORMATS: Final[Mapping[str, str]] = {
    ".psv": "packed sfen value, 40 bytes a position (YaneuraOu, NNUE trainers)",
    ".hcpe": "HuffmanCodedPosAndEval, 38 bytes a position (Apery, dlshogi)",
}
_PSV: Final = struct.Struct("<32shHHbB")
_HCPE: Final = struct.Struct("<32shHbB")
_ENDS: Final = {REPETITION: 4, PERPETUAL_CHECK: 4, DECLARATION: 8, MAX_PLIES: 16}


def score_of(value: float | None, scale: float) -> int:
    """Centipawns of a value.

    Args:
        value: from -1 to 1; None: unknown.
        scale: points by which the odds of winning grow e-fold.
    """
    if value is None:
        return 0
    if abs(value) >= 1:
        return int(math.copysign(MAX_SCORE, value))
    return round(max(-MAX_SCORE, min(MAX_SCORE, scale * (math.log1p(value) - math.log1p(-value)))))


def pack_position(labelled: LabelledPosition, suffix: str, *, scale: float) -> bytes:
    """One position with its labels.

    Args:
        labelled: the position.
        suffix: one of :data:`POSITION_FORMATS`.
        scale: see :func:`score_of`.

    Raises:
        GameError: the position or the move cannot be read, or there is no such format.
    """
    board = parse_sfen(labelled.position)
    score = score_of(labelled.value, scale)
    if suffix == ".psv":
        number = min(board.game_ply, 2**16 - 1)
        return _PSV.pack(bytes(board.to_packed_sfen()), score, hash(_move(labelled.move)), number, labelled.result, 0)
    if suffix == ".hcpe":
        return _HCPE.pack(bytes(board.to_hcp()), score, apery_move(labelled.move), hcp_result(board, labelled), 0)
    raise GameError(f"{suffix}: must be one of {', '.join(POSITION_FORMATS)}")


def apery_move(name: str) -> int:
    """A move as Apery and dlshogi write it, uint16.

    Args:
        name: in USI.

    Raises:
        GameError: it is no move.
    """
    return int(_move(name).to_apery())


def _move(name: str) -> Move:
    try:
        return Move.from_usi(name)
    except ValueError as error:
        raise GameError(f"shogi: {name!r} is no move in USI") from error


def hcp_result(board: Board, labelled: LabelledPosition) -> int:
    """The result of a game as hcpe and hcpe3 write it, uint8.

    Args:
        board: the position.
        labelled: the same with the result to its mover.
    """
    winner_is_black = (labelled.result > 0) == board.turn.is_black()
    return (0 if labelled.result == 0 else 1 if winner_is_black else 2) + _ENDS.get(labelled.outcome, 0)
