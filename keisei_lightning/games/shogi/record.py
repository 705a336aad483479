"""Shogi for other programs: game records (KIF, CSA)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from rsshogi.core import Move
from rsshogi.record import MoveEntry, Record, RecordMetadata, SpecialMoveEntry

from keisei_lightning.games.shogi.rules import (
    CHECKMATE,
    DECLARATION,
    MAX_PLIES,
    NO_LEGAL_MOVE,
    PERPETUAL_CHECK,
    REPETITION,
)

__all__ = ["finish_record", "write_csa", "write_record"]

# How each end is written down: by the winner's result where there is one (Black's, White's), else by the draw's.
_RESULTS: Final = {
    NO_LEGAL_MOVE: ("BLACK_WIN", "WHITE_WIN"),
    PERPETUAL_CHECK: ("BLACK_WIN_BY_ILLEGAL_MOVE", "WHITE_WIN_BY_ILLEGAL_MOVE"),
    DECLARATION: ("BLACK_WIN_BY_DECLARATION", "WHITE_WIN_BY_DECLARATION"),
    REPETITION: ("DRAW_BY_REPETITION", "DRAW_BY_REPETITION"),
    MAX_PLIES: ("DRAW_BY_MAX_PLIES", "DRAW_BY_MAX_PLIES"),
}


def write_record(start: str, codes: Sequence[int], *, outcome: str, winner: int | None) -> Record:
    """A game as rsshogi's record, which writes KIF, KI2, CSA, JKF and USI.

    Args:
        start: SFEN the game began from.
        codes: move codes in order.
        outcome: how it ended; empty while it is not over.
        winner: seat that won, None for a draw or an unfinished game.
    """
    return Record.from_main_line(
        start,
        [MoveEntry(Move(code)) for code in codes],
        terminal=_terminal(outcome, winner),
        metadata=RecordMetadata(black_player="first", white_player="second"),
    )


def finish_record(record: Record, players: tuple[str, str], *, outcome: str, loser: int) -> None:
    """Add the players' names to a record, and an end that the board does not know of.

    Args:
        record: of a game; it is changed.
        players: names of those in seat 0 (Black) and seat 1.
        outcome: "resignation", "void", or an end that the record has already.
        loser: seat that resigned.
    """
    record.update_metadata(RecordMetadata(black_player=players[0], white_player=players[1]))
    if outcome == "void":
        record.set_main_terminal(SpecialMoveEntry.from_result("PAUSED"))
    elif outcome == "resignation":
        record.set_main_terminal(SpecialMoveEntry("RESIGN", ("WHITE_WIN", "BLACK_WIN")[loser]))


def write_csa(record: Record) -> str:
    """A record as CSA text, version 3.0, to be written as UTF-8.

    rsshogi's own text is that of version 2.2 but for ``%MAX_MOVES``. It writes an empty square as ``"*  "`` and an
    empty hand as a line without pieces; other programs do not read that.

    Args:
        record: a game, or the game so far.

    References:
        Computer Shogi Association, "CSA standard game record format", 7th edition (2024):
        http://www2.computer-shogi.org/protocol/record_v3.html
    """
    lines = ["'CSA encoding=UTF-8"]
    for line in record.to_csa().splitlines():
        if re.fullmatch(r"V[0-9.]+", line):
            lines.append("V3.0")
        elif re.fullmatch(r"P[1-9].{27}", line):
            squares = (line[at : at + 3] for at in range(2, 29, 3))
            lines.append(line[:2] + "".join(" * " if square.strip() == "*" else square for square in squares))
        elif line and line not in ("P+", "P-"):
            lines.append(line)
    return "\n".join([*lines, ""])


def _terminal(outcome: str, winner: int | None) -> SpecialMoveEntry | None:
    """The line that ends a record; none while the game is not over."""
    if not outcome:
        return None
    if outcome == CHECKMATE:
        return SpecialMoveEntry("MATE", ("BLACK_WIN", "WHITE_WIN")[winner or 0])
    return SpecialMoveEntry.from_result(_RESULTS[outcome][winner or 0])
