"""Shogi for people: the usual Japanese diagram as text, and a picture as SVG that needs no font.

Squares and pieces in hand have USI's names in the picture: ``7g``, and ``P*`` for a pawn in hand of the player to move.
Promoted pieces have the short forms of diagrams: 全 (silver), 圭 (knight), 杏 (lance), と (pawn), 馬 and 龍.
"""

from __future__ import annotations

import re
from typing import Final

from rsshogi.core import Board

from keisei_lightning.games.protocol import RenderFormat
from keisei_lightning.games.svg_elements import element, group, label, letter, picture

__all__ = ["diagram"]

LETTERS: Final = {
    **{"P": "歩", "L": "香", "N": "桂", "S": "銀", "G": "金", "B": "角", "R": "飛", "K": "王"},
    **{"+P": "と", "+L": "杏", "+N": "圭", "+S": "全", "+B": "馬", "+R": "龍"},
}
"""What stands on each piece; the second player's king is 玉."""

_PROMOTED: Final = frozenset(text for name, text in LETTERS.items() if name[0] == "+")
_HAND: Final = "PLNSGBR"
_WIDTH, _HEIGHT = 44, 48  # of a square
_LEFT, _TOP = 92, 28  # where the board begins
_RIGHT, _BOTTOM = _LEFT + 9 * _WIDTH, _TOP + 9 * _HEIGHT
_HAND_X: Final = (_RIGHT + 58, _LEFT - 58)
_SIZES: Final = {"K": 1.0, "R": 0.97, "B": 0.97, "G": 0.93, "S": 0.93, "N": 0.88, "L": 0.86, "P": 0.82}
_OUTLINE: Final = element(
    "path", id="outline", d="M0 -22L14 -16L19 21H-19L-14 -16Z", stroke_linejoin="round", stroke_width=1.2
)
_STARS: Final = [(_LEFT + file * _WIDTH, _TOP + rank * _HEIGHT) for file in (3, 6) for rank in (3, 6)]


def diagram(board: Board, *, status: str, format: RenderFormat, over: bool = False) -> str:
    """Draw a position.

    Args:
        board: the position.
        status: how the game stands: a line below the text, and the picture's title.
        format: ``"text"`` (the usual Japanese diagram, readable by shogi programs) or ``"svg"``.
        over: nobody is to move.
    """
    if format == "text":
        return f"{board.to_bod().rstrip()}\n{status}"
    move = board.last_move()
    return _svg(board.to_sfen(), last="" if move is None else move.to_usi(), title=f"shogi, {status}", over=over)


def _svg(sfen: str, *, last: str, title: str, over: bool) -> str:
    """A picture of a position, with the squares of the last move in another colour."""
    ranks, turn, hands = sfen.split()[:3]
    mover = None if over else "bw".index(turn)
    lines = [f"M{_LEFT + n * _WIDTH} {_TOP}V{_BOTTOM}M{_LEFT} {_TOP + n * _HEIGHT}H{_RIGHT}" for n in range(10)]
    grid = [element("path", d="".join(lines), fill="none", stroke="line", stroke_linecap="square")]
    grid += [element("circle", cx=x, cy=y, r=3, fill="line") for x, y in _STARS]
    layers = [
        group("squares", [_square(file, rank) for rank in range(1, 10) for file in range(9, 0, -1)], fill="wood"),
        group("last", [_mark(square) for square in re.findall("[1-9][a-i]", last)], pointer_events="none"),
        group("grid", grid, pointer_events="none"),
        group("pieces", _pieces(ranks), pointer_events="none"),
        group("hands", [*_hand(hands, 0, mover), *_hand(hands, 1, mover)]),
        group("coordinates", _coordinates(), fill="label", pointer_events="none"),
    ]
    shapes = _shapes("".join(layers))
    return picture(layers, width=_RIGHT + _LEFT, height=_BOTTOM + _TOP, title=title, shapes=shapes)


def _middle(file: int, rank: int) -> tuple[int, int]:
    """The middle of a square; file 1 is the right one, rank 1 the top one."""
    return _RIGHT - file * _WIDTH + _WIDTH // 2, _TOP + rank * _HEIGHT - _HEIGHT // 2


def _square(file: int, rank: int) -> str:
    x, y = _middle(file, rank)
    place = {"x": x - _WIDTH // 2, "y": y - _HEIGHT // 2, "width": _WIDTH, "height": _HEIGHT}
    return element("rect", **place, data_part=f"{file}{'abcdefghi'[rank - 1]}", data_x=x, data_y=y)


def _mark(square: str) -> str:
    """The colour of a square of the last move."""
    x, y = _middle(int(square[0]), "abcdefghi".index(square[1]) + 1)
    outline = f"M{x - _WIDTH // 2} {y - _HEIGHT // 2}h{_WIDTH}v{_HEIGHT}h-{_WIDTH}z"
    return element("path", d=outline, fill="last", fill_opacity=0.7)


def _pieces(ranks: str) -> list[str]:
    """All pieces on the board, from the first field of an SFEN."""
    drawn = []
    for rank, row in enumerate(ranks.split("/"), start=1):
        file = 9
        for piece in re.findall(r"\d|\+?[A-Za-z]", row):
            if piece.isdigit():
                file -= int(piece)
                continue
            drawn.append(_piece(piece.upper(), int(piece.islower()), *_middle(file, rank)))
            file -= 1
    return drawn


def _piece(name: str, seat: int, x: float, y: float) -> str:
    """A piece that points to the other side."""
    turned = " rotate(180)" if seat else ""
    shape = "#piece-玉" if (name, seat) == ("K", 1) else f"#piece-{LETTERS[name]}"
    return element("use", href=shape, transform=f"translate({x:g} {y:g}){turned} scale({_SIZES[name[-1]]})")


def _shapes(body: str) -> list[str]:
    """The pieces that a picture uses."""
    outline = element("use", href="#outline", fill="piece", stroke="line")
    shapes = [_OUTLINE]
    for text in sorted(set(re.findall('"#piece-(.)"', body))):
        ink = "promoted" if text in _PROMOTED else "ink"
        shapes.append(element("g", outline, letter(text, 0, 3, 26, fill=ink), id=f"piece-{text}"))
    return shapes


def _hand(hands: str, seat: int, mover: int | None) -> list[str]:
    """A player's mark, and beyond it the pieces in hand; each kind has its place."""
    side = 1 - 2 * seat
    x, y = _HAND_X[seat], (_TOP + _BOTTOM) / 2 + side * 4 * _HEIGHT
    drawn = [_player(x, y, seat, to_move=seat == mover)]
    counts = {piece: int(count or 1) for count, piece in re.findall(r"(\d*)([A-Za-z])", hands)}
    for number, name in enumerate(_HAND, start=1):
        count = counts.get(name if seat == 0 else name.lower(), 0)
        if not count:
            continue
        at = y - side * number * _HEIGHT
        if seat == mover:  # only those can be dropped now
            place = {"data_part": f"{name}*", "data_x": x, "data_y": at, "fill": "none", "pointer_events": "all"}
            drawn.append(element("rect", x=x - 28, y=at - 24, width=56, height=_HEIGHT, **place))
        number_of_them = label(str(count), x + side * 23, at + side * 13, 17, fill="label") if count > 1 else ""
        drawn.append(element("g", _piece(name, seat, x, at), number_of_them, pointer_events="none"))
    return drawn


def _player(x: float, y: float, seat: int, *, to_move: bool) -> str:
    """A black or a white piece for a player, with a bar below it where it is the turn."""
    turned = " rotate(180)" if seat else ""
    shape = element("use", href="#outline", fill=("black", "white")[seat], stroke="rim")
    bar = element("path", d="M-20 31H20", fill="none", stroke="last", stroke_width=7, stroke_linecap="round")
    parts = [shape, *([bar] if to_move else [])]
    return element("g", *parts, transform=f"translate({x:g} {y:g}){turned} scale(0.6)", pointer_events="none")


def _coordinates() -> list[str]:
    """Files above the board, ranks at its right in kanji and at its left as USI writes them."""
    files = [label(str(file), _middle(file, 1)[0], _TOP - 13, 16) for file in range(1, 10)]
    ranks = [label("一二三四五六七八九"[rank - 1], _RIGHT + 13, _middle(1, rank)[1], 16) for rank in range(1, 10)]
    letters = [label("abcdefghi"[rank - 1], _LEFT - 13, _middle(1, rank)[1], 15) for rank in range(1, 10)]
    return [*files, *ranks, *letters]
