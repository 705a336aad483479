"""hcpe3, dlshogi's format of training games: every move with its score and with the policy as visit counts.

=================== ==================================================================================================
of a game           32 bytes of position in which it begins (Huffman codes), uint16 moves, uint8 result (0 draw, 1 Black
                    won, 2 White won; + 4 where a repetition ended it, + 8 a declaration, + 16 the ply limit), uint8
                    opponent (0: self-play)
of each move        uint16 move, int16 score (the mover's, in centipawns), uint16 candidates (0: nobody has searched)
of each candidate   uint16 move, uint16 visits
=================== ==================================================================================================

Numbers are little-endian, games lie one after the other. A policy becomes :data:`VISITS` visits: each move has its
share rounded down, and those that lost most by it get the visits that are left (largest remainder), so that ``visits /
VISITS`` differs from a probability by less than ``1 / VISITS``. Moves without a visit are left out. The most visited
stands last: dlshogi takes a file for hcpe if its size is a multiple of 38 and its last byte is 0.

In a game of which no position has a policy, each has the move that was played as its only candidate, as dlshogi reads
hcpe.

References:
    dlshogi: https://github.com/TadaoYamaoka/DeepLearningShogi
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from rsshogi.core import AperyMove, Board

from keisei_lightning.errors import GameError
from keisei_lightning.games.packed_game import LabelledPosition
from keisei_lightning.games.saved_game import DRAW, RESIGNATION
from keisei_lightning.games.shogi.packing import apery_move, hcp_result, score_of
from keisei_lightning.games.shogi.rules import DECLARATION, MAX_PLIES, PERPETUAL_CHECK, REPETITION, parse_sfen

__all__ = ["VISITS", "pack_game", "unpack_games"]

VISITS: Final = 2**16 - 1
"""Visits of a policy, all moves together."""
_GAME: Final = struct.Struct("<32sHBB")
_MOVE: Final = struct.Struct("<HhH")
_CANDIDATE: Final = struct.Struct("<HH")
_MOST_MOVES: Final = 2**16 - 1


def pack_game(positions: Sequence[LabelledPosition], *, scale: float) -> bytes:
    """A game with its labels.

    Args:
        positions: one or more, each reached from the one before by its move.
        scale: see :func:`~keisei_lightning.games.shogi.packing.score_of`.

    Raises:
        GameError: a position or a move cannot be read, or there are too many.
    """
    if len(positions) > _MOST_MOVES:
        raise GameError(f"shogi: a game of {len(positions)} moves; must have at most {_MOST_MOVES} as .hcpe3")
    board = parse_sfen(positions[0].position)
    parts = [_GAME.pack(bytes(board.to_hcp()), len(positions), hcp_result(board, positions[0]), 0)]
    has_policy = any(each.policy for each in positions)
    for each in positions:
        visits = _visits(each.policy or {}) if has_policy else {each.move: VISITS}
        parts.append(_MOVE.pack(apery_move(each.move), score_of(each.value, scale), len(visits)))
        parts += [_CANDIDATE.pack(apery_move(move), count) for move, count in visits.items()]
    return b"".join(parts)


def _visits(policy: Mapping[str, float]) -> dict[str, int]:
    """Visits of moves, in the order of their number; those without one are left out."""
    if not policy:
        return {}
    shares = np.array(list(policy.values()), dtype=np.float64)
    shares *= VISITS / shares.sum()
    visits = np.floor(shares).astype(np.int64)
    left = VISITS - int(visits.sum())
    visits[np.argsort(visits - shares, kind="stable")[:left]] += 1
    moves = list(policy)
    return {moves[at]: int(visits[at]) for at in np.argsort(visits, kind="stable") if visits[at]}


def unpack_games(content: bytes, *, scale: float) -> list[list[LabelledPosition]]:
    """Games of a file, each position with its labels.

    The file tells no number of moves before a start, nor every end: a win of which no rule is told was resigned.

    Args:
        content: of the file.
        scale: see :func:`~keisei_lightning.games.shogi.packing.score_of`.

    Raises:
        GameError: it ends within a game, or a position or a move in it is none. Nothing else, whatever the bytes are.
    """
    games, at = list[list[LabelledPosition]](), 0
    while at < len(content):
        try:
            positions, at = _unpack_game(content, at, scale)
        except struct.error:
            raise GameError(f"game {len(games) + 1}: the file ends within it") from None
        except GameError as error:
            raise GameError(f"game {len(games) + 1}: {error}") from error
        games.append(positions)
    return games


def _unpack_game(content: bytes, at: int, scale: float) -> tuple[list[LabelledPosition], int]:
    """A game, and where the next one begins."""
    packed, num_moves, result, _ = _GAME.unpack_from(content, at)
    at += _GAME.size
    board = Board()
    try:
        board.set_hcp(packed)
    except ValueError as error:
        raise GameError(f"its start is no position ({error})") from error
    winner, outcome = _end(result)
    positions = []
    for number in range(1, num_moves + 1):
        played, score, num_candidates = _MOVE.unpack_from(content, at)
        at += _MOVE.size
        legal = {int(move.to_apery()): move.to_usi() for move in board.legal_moves()}
        counts = [_CANDIDATE.unpack_from(content, at + n * _CANDIDATE.size) for n in range(num_candidates)]
        at += num_candidates * _CANDIDATE.size
        if wrong := [move for move in (played, *(move for move, _ in counts)) if move not in legal]:
            raise GameError(f"move {number}: {AperyMove(wrong[0]).to_usi()} ({wrong[0]:#06x}) is not legal")
        total = sum(count for _, count in counts)
        positions.append(
            LabelledPosition(
                position=board.to_sfen(),
                move=legal[played],
                value=math.tanh(score / (2.0 * scale)) if counts else None,
                result=0 if winner is None else 1 if winner == int(board.turn) else -1,
                outcome=outcome,
                policy={legal[move]: count / total for move, count in counts} if total else None,
            )
        )
        board.apply_usi(legal[played])
    return positions, at


def _end(result: int) -> tuple[int | None, str]:
    """Seat that won, and how the game ended."""
    winner = {1: 0, 2: 1}.get(result & 3)
    if result & 4:
        return winner, REPETITION if winner is None else PERPETUAL_CHECK
    if result & 8:
        return winner, DECLARATION
    if result & 16:
        return winner, MAX_PLIES
    return winner, DRAW if winner is None else RESIGNATION
