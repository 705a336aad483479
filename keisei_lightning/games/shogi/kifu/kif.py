"""KIF and KI2, the formats of Japanese programs and newspapers.

References:
    "KIF file format", Kifu for Windows: http://kakinoki.o.oo7.jp/kif_format.html
    Japan Shogi Association, how moves are written (KI2): https://www.shogi.or.jp/faq/kihuhyouki.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rsshogi.core import Move32

from keisei_lightning.games.saved_game import SavedGame
from keisei_lightning.games.shogi.kifu.ends import KIF_ENDS, read_summary
from keisei_lightning.games.shogi.kifu.headers import KIF_HEADERS, START_PLIES, one_line
from keisei_lightning.games.shogi.kifu.main_line import MainLine, refuse
from keisei_lightning.games.shogi.kifu.start_position import DIGITS, PIECES, StartPosition

__all__ = ["numbered_lines", "read_ki2", "read_ki2_line", "read_kif"]

_PIECE: Final = "成[香桂銀]|[歩香桂銀角飛金玉王と杏圭全馬龍竜]"
_TARGET: Final = r"(?:(?P<file>[１-９1-9])(?P<rank>[一二三四五六七八九１-９1-9])|(?P<same>同))[ \u3000]*"
_KIF_LINE: Final = re.compile(r"(?P<number>\d+)[ \u3000]+(?P<text>\S.*)")
_KIF_MOVE: Final = re.compile(
    rf"{_TARGET}(?P<piece>{_PIECE})(?P<how>[左右上行引寄直]*)(?P<drop>打)?(?P<promote>不?成(?:らず|り)?)?"
    r"(?:\((?P<origin>[1-9]{2})\))?"
)
_KIF_TIME: Final = re.compile(r"\(\s*(?P<minutes>\d{1,6}):(?P<seconds>[\d.]{1,6})\s*(?:/[\s\d:.]*)?\)")
_KI2_TURN: Final = re.compile(r"[▲△▼▽☗☖](?P<text>[^▲△▼▽☗☖]*)")
_KI2_MOVE: Final = re.compile(
    rf"{_TARGET}(?P<piece>{_PIECE})(?P<how>[左右上行引寄直]*)(?P<drop>打)?(?P<promote>不?成(?:らず|り)?|生)?"
)
_HEADER: Final = re.compile(r"(?P<key>[^：*#&|]+)：(?P<value>.*)")
_PLIES: Final = re.compile(r"手数＝\s*(\d{1,6}).*")
_VARIATION: Final = re.compile(r"変化：\s*(\d{1,6})手.*")
_PLAYERS: Final = {"先手": 0, "下手": 0, "後手": 1, "上手": 1}
_HANDS: Final = {f"{name}の持駒": seat for name, seat in _PLAYERS.items()}
_TURNS: Final = {f"{name}番": seat for name, seat in _PLAYERS.items()}
_BLANK: Final = " \t\u3000\ufeff"

ReadMoves = Callable[[MainLine, str, str], bool]


def read_kif(text: str) -> SavedGame:
    """A game in KIF.

    Raises:
        GameError: see :meth:`~keisei_lightning.games.ReplayableGame.read_record`.
    """
    return _Reader(_kif_line).read(text)


def read_ki2(text: str) -> SavedGame:
    """A game in KI2.

    Raises:
        GameError: see :meth:`~keisei_lightning.games.ReplayableGame.read_record`.
    """
    return _Reader(read_ki2_line).read(text)


def numbered_lines(text: str) -> Iterator[tuple[str, str]]:
    """Lines of a text, each with its number as an editor counts it ("line 1", ...)."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, start=1):
        yield f"line {number}", line


class _Reader:
    """Reads lines that KIF and KI2 have in common, and leaves those with moves to a function.

    Args:
        read_moves: plays what a line's moves are; False: it has none.
    """

    def __init__(self, read_moves: ReadMoves) -> None:
        self._read_moves = read_moves
        self._start = StartPosition()
        self._players = ["", ""]
        self._headers: dict[str, str] = {}
        self._early: list[str] = []
        self._line: MainLine | None = None
        self._is_game = False

    def read(self, text: str) -> SavedGame:
        where = "line 1"
        for where, raw in numbered_lines(text):
            line = raw.strip(_BLANK)
            if found := _VARIATION.fullmatch(line):
                self._main_line(where).left_out.append(f"{where}: what follows: variations, from move {found[1]} on")
                break
            if line and line[0] not in "#&":
                self._take(line, where)
        if not self._is_game:
            refuse(where, "there is no game in it")
        main = self._main_line(where)
        return main.close(players=(self._players[0], self._players[1]), headers=self._headers)

    def _main_line(self, where: str) -> MainLine:
        """The moves; the start is complete once they are asked for."""
        if self._line is None:
            self._line = MainLine(self._start.sfen(where), where)
            for comment in self._early:
                self._line.note_comment(comment)
        return self._line

    def _take(self, line: str, where: str) -> None:
        if line[0] == "*":
            if self._line is None:
                self._early.append(line[1:])
            else:
                self._line.note_comment(line[1:])
            return
        self._is_game = True
        if line.startswith("まで"):
            if (end := read_summary(line)) is not None:
                self._main_line(where).end(end)
            return
        if line.startswith("手数----") or (self._line is None and self._take_head(line, where)):
            return
        if not self._read_moves(self._main_line(where), line, where):
            refuse(where, f"{line}: is neither a move nor an end")

    def _take_head(self, line: str, where: str) -> bool:
        """A line before the first move; False: it is none."""
        if line in _TURNS:
            self._start.turn(_TURNS[line])
        elif line[0] == "|":
            self._start.row(line, where)
        elif found := _PLIES.fullmatch(line):
            self._start.played(int(found[1]))
        elif found := _HEADER.fullmatch(line):
            self._take_header(found["key"].strip(_BLANK), found["value"].strip(_BLANK), where)
        else:
            # The frame of a diagram, with or without the numbers of its files.
            return line.startswith("+--") or line.split()[:1] in (["９"], ["9"])
        return True

    def _take_header(self, key: str, value: str, where: str) -> None:
        if key == "手合割":
            self._start.handicap(value, where)
        elif key in _PLAYERS:
            self._players[_PLAYERS[key]] = one_line(value)
        elif key in _HANDS:
            self._start.hand(_HANDS[key], value, where)
        elif key == START_PLIES and value.isdecimal() and len(value) < 7:
            self._start.played(int(value))
        else:
            self._headers[KIF_HEADERS.get(key, key)] = value


def _kif_line(main: MainLine, line: str, where: str) -> bool:
    """A numbered move with its time, or an end in the place of one."""
    numbered = _KIF_LINE.fullmatch(line)
    if numbered is None:
        return False
    text = numbered["text"].rstrip("+" + _BLANK)  # a plus sign: there are variations
    time = _KIF_TIME.search(text)
    word = text[: time.start()].rstrip(_BLANK) if time else text
    if end := KIF_ENDS.get(word):
        main.end(end)
        return True
    move = _KIF_MOVE.fullmatch(word)
    if move is None:
        return False
    main.play_usi(_usi_of(move, main, where, word), where, f"move {numbered['number']}: {word}")
    if time:
        try:
            main.note_time(60 * int(time["minutes"]) + float(time["seconds"]))
        except ValueError:
            refuse(where, f"{time[0]}: is no time")
    return True


def _usi_of(move: re.Match[str], main: MainLine, where: str, word: str) -> str:
    """The move in USI, which need not be legal."""
    target, piece = _square(move, main, where, word), PIECES[move["piece"]]
    origin = move["origin"]
    if origin is None:
        if piece.startswith("+") or piece == "K":
            refuse(where, f"{word}: must say where the piece comes from")
        return f"{piece}*{target}"
    promotes = move["promote"] is not None and not move["promote"].startswith("不")
    return f"{origin[0]}{'abcdefghi'[int(origin[1]) - 1]}{target}{'+' if promotes else ''}"


def _square(move: re.Match[str], main: MainLine, where: str, word: str) -> str:
    if move["same"] is None:
        return f"{DIGITS[move['file']]}{'abcdefghi'[DIGITS[move['rank']] - 1]}"
    if main.last_square is None:
        refuse(where, f"{word}: is the same square as which?")
    return main.last_square


def read_ki2_line(main: MainLine, line: str, where: str) -> bool:
    """Play the moves of a line of KI2, which stand behind their players' marks, or note an end; False: it is neither.

    Args:
        main: the moves so far.
        line: without blanks around it.
        where: its number, for errors.

    Raises:
        GameError: a move cannot be read, or can be several.
    """
    if end := KIF_ENDS.get(line):
        main.end(end)
        return True
    if line[0] not in "▲△▼▽☗☖":
        return False
    for found in _KI2_TURN.finditer(line):
        text = found["text"].strip(_BLANK)
        if end := KIF_ENDS.get(text):
            main.end(end)
            continue
        move = _KI2_MOVE.fullmatch(text)
        if move is None:
            refuse(where, f"{found[0]}: is neither a move nor an end")
        shown = f"move {main.num_moves + 1}: {found[0].strip(_BLANK)}"
        main.play(_meant(move, main, _square(move, main, where, text)), where, shown)
    return True


def _meant(move: re.Match[str], main: MainLine, target: str) -> list[Move32]:
    """Legal moves that a move without an origin can mean."""
    piece, promote = PIECES[move["piece"]], move["promote"]
    promotes = promote is not None and not promote.startswith(("不", "生"))
    drops, moves = list[Move32](), list[Move32]()
    for candidate in main.legal():
        usi = candidate.to_usi()
        if usi[2:4] != target or usi.endswith("+") != promotes:
            continue
        if usi[1] == "*":
            if usi[0] == piece:
                drops.append(candidate)
        elif main.board.piece_on(candidate.from_sq).piece_type.to_usi() == piece:
            moves.append(candidate)
    if move["drop"] or not moves:
        return drops
    return _narrow(moves, move["how"], target, white=bool(main.mover))


def _narrow(moves: Sequence[Move32], how: str, target: str, *, white: bool) -> list[Move32]:
    """Those of some moves to one square that go the way that is said, as their mover sees it.

    Args:
        moves: of pieces of one kind.
        how: any of 左 右 直 (from the left, from the right, straight up), 上 行 (up), 引 (down), 寄 (sideways).
        target: where they go.
        white: White sees the board from the other side.
    """
    sign = -1 if white else 1

    def way(move: Move32) -> tuple[int, int]:
        """How far to the mover's right the piece stands of its target, and how far below it."""
        usi = move.to_usi()
        return sign * (int(target[0]) - int(usi[0])), sign * (ord(usi[1]) - ord(target[1]))

    left = list(moves)
    for word in how:
        if word in "上行":
            left = [move for move in left if way(move)[1] > 0]
        elif word == "引":
            left = [move for move in left if way(move)[1] < 0]
        elif word == "寄":
            left = [move for move in left if way(move)[1] == 0]
        elif word == "直":
            left = [move for move in left if way(move)[0] == 0 and way(move)[1] > 0]
    for word, side in (("右", 1), ("左", -1)):
        if word in how and left:
            furthest = max(side * way(move)[0] for move in left)
            left = [move for move in left if side * way(move)[0] == furthest]
    return left
