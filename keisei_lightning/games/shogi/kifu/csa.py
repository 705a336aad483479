"""CSA, the format of computer shogi.

References:
    Computer Shogi Association, "CSA standard game record format", 7th edition (2024):
    http://www2.computer-shogi.org/protocol/record_v3.html
"""

from __future__ import annotations

import re
from typing import Final

from keisei_lightning.games.saved_game import SavedGame
from keisei_lightning.games.shogi.kifu.ends import CSA_ENDS
from keisei_lightning.games.shogi.kifu.headers import CSA_HEADERS, START_PLIES, one_line
from keisei_lightning.games.shogi.kifu.kif import numbered_lines
from keisei_lightning.games.shogi.kifu.main_line import MainLine, refuse
from keisei_lightning.games.shogi.kifu.start_position import sfen_of

__all__ = ["CSA_PIECES", "read_csa"]

CSA_PIECES: Final = {
    **{"FU": "P", "KY": "L", "KE": "N", "GI": "S", "KA": "B", "HI": "R", "KI": "G", "OU": "K"},
    **{"TO": "+P", "NY": "+L", "NK": "+N", "NG": "+S", "UM": "+B", "RY": "+R"},
}
"""Pieces as CSA writes them, by their SFEN letters."""
_USUAL: Final = (
    "-KY-KE-GI-KI-OU-KI-GI-KE-KY",
    " * -HI *  *  *  *  * -KA * ",
    "-FU" * 9,
    *(" * " * 9,) * 3,
    "+FU" * 9,
    " * +KA *  *  *  *  * +HI * ",
    "+KY+KE+GI+KI+OU+KI+GI+KE+KY",
)
_ALL: Final = {"P": 18, "L": 4, "N": 4, "S": 4, "B": 2, "R": 2, "G": 4, "K": 2}
_MOVE: Final = re.compile(r"[+-](?:00|[1-9]{2})[1-9]{2}[A-Z]{2}")
_TIME: Final = re.compile(r"T(\d{1,9}(?:\.\d{1,9})?)")
_PLACED: Final = re.compile(r"(\d\d)([A-Z]{2})")


def read_csa(text: str) -> SavedGame:
    """The first game in CSA.

    Raises:
        GameError: see :meth:`~keisei_lightning.games.ReplayableGame.read_record`.
    """
    return _Reader().read(text)


class _Reader:
    """Reads statements one after the other: names, headers, the start, moves with their times, the end."""

    def __init__(self) -> None:
        self._players = ["", ""]
        self._headers: dict[str, str] = {}
        self._rows: dict[int, list[str]] = {}
        self._hands: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self._plies = 0
        self._early: list[str] = []
        self._line: MainLine | None = None

    def read(self, text: str) -> SavedGame:
        where = "line 1"
        for where, raw in numbered_lines(text):
            line = raw.strip(" \t\u3000") if raw[:1] != "P" else raw.rstrip("\t\r\n")
            if line == "/":
                if self._line is not None:
                    self._line.left_out.append(f"{where}: what follows: further games")
                    break
                continue
            self._take(line, where)
        if self._line is None:
            refuse(where, "there is no game in it: nobody is to move (a line + or - is missing)")
        return self._line.close(players=(self._players[0], self._players[1]), headers=self._headers)

    def _take(self, line: str, where: str) -> None:
        if not line or re.fullmatch(r"V[0-9.]+|'CSA encoding=.*", line):
            return
        if line[0] == "'":
            self._take_comment(line)
        elif line[0] == "$":
            key, _, value = line[1:].partition(":")
            if key == START_PLIES and value.isdecimal() and len(value) < 7:
                self._plies = int(value)
            else:
                self._headers[CSA_HEADERS.get(key, key)] = value.strip()
        elif line[:2] in ("N+", "N-"):
            self._players["+-".index(line[1])] = one_line(line[2:])
        else:
            for statement in [line] if line[0] == "P" else line.split(","):
                self._take_statement(statement.strip(), where)

    def _take_comment(self, line: str) -> None:
        """Comments are those that programs keep (``'*``); what stands behind a bare ``'`` is for people alone."""
        if line[1:2] != "*":
            return
        if self._line is None:
            self._early.append(line[2:])
        else:
            self._line.note_comment(line[2:])

    def _take_statement(self, text: str, where: str) -> None:
        if not text:
            return
        if text[0] == "P" and self._line is None:
            self._place(text, where)
        elif text in ("+", "-") and self._line is None:
            self._begin("bw"["+-".index(text)], where)
        elif self._line is None:
            refuse(where, f"{text}: is no statement before the side to move is told")
        elif text[0] == "%":
            end = CSA_ENDS.get(text[1:])
            if end is None:
                refuse(where, f"{text}: must be one of {' '.join('%' + word for word in CSA_ENDS)}")
            self._line.end(end)
        elif found := _TIME.fullmatch(text):
            self._line.note_time(float(found[1]))
        elif _MOVE.fullmatch(text):
            self._move(self._line, text, where)
        else:
            refuse(where, f"{text}: is no statement")

    def _move(self, line: MainLine, text: str, where: str) -> None:
        legal = [move for move in line.legal() if move.to_csa() == text]
        line.play(legal, where, f"move {line.num_moves + 1}: {text}")

    def _begin(self, turn: str, where: str) -> None:
        if len(self._rows) != 9:
            refuse(where, f"the start has {len(self._rows)} rows of pieces; must be 9, or PI")
        rows = [self._rows[rank] for rank in range(1, 10)]
        self._line = MainLine(sfen_of(rows, self._hands, turn, self._plies + 1), where)
        for comment in self._early:
            self._line.note_comment(comment)

    def _place(self, text: str, where: str) -> None:
        """A line of the start: all pieces (PI, without some), a row, or single pieces and hands."""
        kind, rest = text[1:2], text[2:]
        if kind == "I":
            for rank, row in enumerate(_USUAL, start=1):
                self._row(rank, row, where)
            for square, name in self._pieces(rest, where):
                if not self._on_board(square) or self._at(square).upper() != CSA_PIECES[name]:
                    refuse(where, f"{square}{name}: is not there to be taken away")
                self._put(square, "")
        elif kind.isdecimal() and kind != "0":
            self._row(int(kind), rest, where)
        elif kind in ("+", "-"):
            for rank in range(1, 10):
                self._rows.setdefault(rank, [""] * 9)
            self._put_pieces("+-".index(kind), rest, where)
        else:
            refuse(where, f"{text}: is no statement")

    def _put_pieces(self, seat: int, text: str, where: str) -> None:
        if text == "00AL":
            self._hands[seat].update(self._rest())
            return
        for square, name in self._pieces(text, where):
            letter = CSA_PIECES[name]
            if square == "00":
                if letter not in "PLNSBRG":
                    refuse(where, f"00{name}: cannot be in hand")
                self._hands[seat][letter] = self._hands[seat].get(letter, 0) + 1
            elif not self._on_board(square):
                refuse(where, f"{square}{name}: is on no square")
            else:
                self._put(square, letter.lower() if seat else letter)

    def _row(self, rank: int, text: str, where: str) -> None:
        squares = [text[at : at + 3].strip() for at in range(0, 27, 3)]
        row = []
        for square in squares:
            letter = CSA_PIECES.get(square[1:], "") if square[:1] in ("+", "-") else ""
            if square not in ("*", "") and not letter:
                refuse(where, f"{square}: is no piece")
            row.append(letter.lower() if square[:1] == "-" else letter)
        if text[27:].strip():
            refuse(where, f"{text[27:].strip()}: is behind the ninth square of a row")
        self._rows[rank] = row

    def _pieces(self, text: str, where: str) -> list[tuple[str, str]]:
        found = _PLACED.findall(text)
        if "".join(square + name for square, name in found) != text or any(n not in CSA_PIECES for _, n in found):
            refuse(where, f"{text}: are no pieces on squares")
        return found

    def _on_board(self, square: str) -> bool:
        return "0" not in square

    def _at(self, square: str) -> str:
        return self._rows[int(square[1])][9 - int(square[0])]

    def _put(self, square: str, piece: str) -> None:
        self._rows[int(square[1])][9 - int(square[0])] = piece

    def _rest(self) -> dict[str, int]:
        """All pieces that are nowhere yet, but kings."""
        left = dict(_ALL)
        for row in self._rows.values():
            for piece in filter(None, row):
                left[piece.upper()[-1]] -= 1
        for hand in self._hands:
            for letter, count in hand.items():
                left[letter] -= count
        return {letter: count for letter, count in left.items() if count > 0 and letter != "K"}
