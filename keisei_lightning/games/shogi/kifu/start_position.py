"""Where a record's game begins: a handicap by name, or a diagram with hands and the side to move."""

from __future__ import annotations

import re
from typing import Final

from rsshogi.initial_positions import HANDICAP_TO_SFEN

from keisei_lightning.games.shogi.kifu.main_line import refuse

__all__ = ["DIGITS", "PIECES", "StartPosition", "hand_of", "sfen_of"]

PIECES: Final = {
    **dict(zip("歩香桂銀角飛金玉", "PLNSBRGK", strict=True)),
    **dict(zip("と杏圭全馬龍", ("+P", "+L", "+N", "+S", "+B", "+R"), strict=True)),
    **{"王": "K", "竜": "+R", "成香": "+L", "成桂": "+N", "成銀": "+S"},
}
"""Pieces as KIF writes them, by their SFEN letters."""
DIGITS: Final = {
    **{digit: number for number, digit in enumerate("一二三四五六七八九", start=1)},
    **{digit: number for number, digit in enumerate("１２３４５６７８９", start=1)},
    **{str(number): number for number in range(1, 10)},
}
_NUMBERS: Final = {**{digit: value for digit, value in DIGITS.items() if digit in "一二三四五六七八九"}, "十": 10}
_HAND_ORDER: Final = "RBGSNLP"
_PLAIN: Final = "その他"


def sfen_of(rows: list[list[str]], hands: tuple[dict[str, int], dict[str, int]], turn: str, number: int = 1) -> str:
    """SFEN of a position.

    Args:
        rows: nine rows from the top, each of nine pieces from the left in SFEN's letters, empty strings for squares
            without one.
        hands: Black's and White's pieces in hand by their letters in capitals.
        turn: "b" or "w".
        number: of the next move.
    """
    board = []
    for row in rows:
        text = "".join(piece or "." for piece in row)
        board.append(re.sub(r"\.+", lambda empty: str(len(empty[0])), text))
    held = "".join(
        f"{count if count > 1 else ''}{letter if seat == 0 else letter.lower()}"
        for seat, hand in enumerate(hands)
        for letter in _HAND_ORDER
        if (count := hand.get(letter, 0))
    )
    return f"{'/'.join(board)} {turn} {held or '-'} {number}"


def hand_of(text: str, where: str) -> dict[str, int]:
    """Pieces in hand as KIF writes them, such as ``飛二　歩十一``.

    Args:
        text: of the hand.
        where: the line, for errors.

    Raises:
        GameError: it cannot be read.
    """
    hand: dict[str, int] = {}
    for word in text.replace("\u3000", " ").split():
        if word == "なし":
            continue
        letter, count = PIECES.get(word[0], ""), sum(_NUMBERS.get(digit, 99) for digit in word[1:]) if word[1:] else 1
        if letter not in _HAND_ORDER or not letter or count > 18:
            refuse(where, f"{word}: are no pieces in hand")
        hand[letter] = hand.get(letter, 0) + count
    return hand


class StartPosition:
    """Collects what the lines before the first move say of the start."""

    def __init__(self) -> None:
        self._handicap: str | None = None
        self._rows: list[list[str]] = []
        self._hands: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self._turn: str | None = None
        self._number = 1

    def handicap(self, name: str, where: str) -> None:
        """The start by its name, such as ``香落ち``.

        Raises:
            GameError: no handicap is called that.
        """
        plain = name.replace("\u3000", " ").strip()
        found = plain if plain in HANDICAP_TO_SFEN else plain.removesuffix("ち") + "ち"
        if plain.startswith(_PLAIN):
            return
        if found not in HANDICAP_TO_SFEN:
            refuse(where, f"手合割：{name}: must be one of {' '.join(HANDICAP_TO_SFEN)} {_PLAIN}")
        self._handicap = HANDICAP_TO_SFEN[found]

    def row(self, line: str, where: str) -> None:
        """One row of the diagram, such as ``|v香v桂 ・ ・v玉 ・ ・ ・ 歩|一``.

        Raises:
            GameError: it has other than nine squares.
        """
        body = line[1:].partition("|")[0]
        squares = re.findall(r"([ v^\u3000]?)(成?[^ v^\u3000])", body)
        row = []
        for side, piece in squares:
            letter = "" if piece in "・.＿口" else PIECES.get(piece)
            if letter is None:
                refuse(where, f"{piece}: is no piece")
            row.append(letter.lower() if side == "v" else letter)
        if len(row) != 9 or len(self._rows) == 9:
            refuse(where, "a diagram must have nine rows of nine squares")
        self._rows.append(row)

    def hand(self, seat: int, text: str, where: str) -> None:
        """A player's pieces in hand; see :func:`hand_of`."""
        self._hands[seat].clear()
        self._hands[seat].update(hand_of(text, where))

    def turn(self, seat: int) -> None:
        """The seat to move."""
        self._turn = "bw"[seat]

    def played(self, plies: int) -> None:
        """How many moves were played before the position."""
        self._number = plies + 1

    def sfen(self, where: str) -> str:
        """The start as SFEN: the diagram where there is one, else the handicap, else the usual start.

        Raises:
            GameError: the diagram is not whole.
        """
        if self._rows:
            if len(self._rows) != 9:
                refuse(where, f"the diagram has {len(self._rows)} rows; must be 9")
            turn = self._turn or ("w" if self._handicap and self._handicap.split()[1] == "w" else "b")
            return sfen_of(self._rows, self._hands, turn, self._number)
        board, turn, hands, _ = (self._handicap or HANDICAP_TO_SFEN["平手"]).split()
        return f"{board} {self._turn or turn} {hands} {self._number}"
