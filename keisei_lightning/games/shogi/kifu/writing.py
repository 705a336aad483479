"""Records as text, by rsshogi."""

from __future__ import annotations

import re
from typing import Final

from rsshogi.core import Move
from rsshogi.record import MoveEntry, Record, RecordMetadata

from keisei_lightning.errors import GameError
from keisei_lightning.games.saved_game import VOID, SavedGame
from keisei_lightning.games.shogi.kifu.ends import terminal_of
from keisei_lightning.games.shogi.kifu.formats import FORMATS
from keisei_lightning.games.shogi.kifu.headers import START_PLIES, is_header, one_line
from keisei_lightning.games.shogi.rules import parse_sfen

__all__ = ["write"]

_KNOWN: Final = ("event", "site", "start_date", "end_date")
"""Headers that rsshogi has fields for."""


def write(saved: SavedGame, suffix: str) -> str:
    """The text of a record.

    Args:
        saved: the game.
        suffix: one of :data:`~keisei_lightning.games.shogi.kifu.FORMATS`.

    Raises:
        GameError: see :meth:`~keisei_lightning.games.ReplayableGame.write_record`.
    """
    if suffix not in FORMATS:
        raise GameError(f"{suffix}: is no record format of shogi; must be one of {', '.join(FORMATS)}")
    try:
        return _text(_record(saved, saved.outcome, saved.winner), suffix)
    except ValueError as error:
        if saved.outcome in ("", VOID):
            raise GameError(f"shogi: cannot be written as {suffix}: {error}") from error
    # The format has no word for this end, such as a resignation out of turn.
    try:
        return _text(_record(saved, VOID, None), suffix)
    except ValueError as error:
        raise GameError(f"shogi: cannot be written as {suffix}: {error}") from error


def _record(saved: SavedGame, outcome: str, winner: int | None) -> Record:
    board = parse_sfen(saved.start)
    times = saved.times_s or (None,) * len(saved.moves)
    headers = {key: one_line(value) for key, value in saved.headers.items()}
    others = {key: value for key, value in headers.items() if key not in _KNOWN and is_header(key)}
    if board.game_ply > 1:
        others[START_PLIES] = str(board.game_ply - 1)
    entries = [
        MoveEntry(
            Move.from_usi(move),
            time_ms=None if time is None else round(1000 * time),
            comment=saved.comments.get(ply),
        )
        for ply, (move, time) in enumerate(zip(saved.moves, times, strict=True), start=1)
    ]
    return Record.from_main_line(
        board.to_sfen(),
        entries,
        terminal=terminal_of(outcome, winner),
        metadata=RecordMetadata(
            black_player=one_line(saved.players[0]) or None,
            white_player=one_line(saved.players[1]) or None,
            event=headers.get("event"),
            site=headers.get("site"),
            start_date=headers.get("start_date"),
            end_date=headers.get("end_date"),
            attributes=others,
        ),
        initial_comment=saved.comments.get(0),
    )


def _text(record: Record, suffix: str) -> str:
    if suffix in (".kifu", ".kif"):
        return str(record.to_kif())
    if suffix in (".ki2u", ".ki2"):
        return str(record.to_ki2())
    if suffix == ".csa":
        return _csa(record)
    if suffix == ".jkf":
        return f"{record.to_jkf()}\n"
    return f"{record.to_usi_position()}\n"


def _csa(record: Record) -> str:
    """A record as CSA text, version 3.0, to be written as UTF-8.

    rsshogi's own text is that of version 2.2 but for ``%MAX_MOVES``. It writes an empty square as ``"*  "`` and an
    empty hand as a line without pieces; other programs do not read that.

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
