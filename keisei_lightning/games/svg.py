"""Pictures for any game, as SVG and as text: boards of squares or hexagons with stones, and text as it is."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import sqrt
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games.svg_elements import element, group, label, picture

__all__ = ["BoardStyle", "Squares", "grid_svg", "grid_text", "text_svg"]

BoardStyle = Literal["stones", "green", "pawns", "marks", "discs", "hexagons"]
"""How a board and its pieces look: dark and light stones on wood or on green felt, pawns on a chequered board, crosses
and circles, discs in a frame with holes, or stones on hexagons with a coloured edge for each player's sides."""

Squares = Sequence[tuple[int, int]]
"""Squares by (row, column), top row first."""

_CELL: Final = 40
_HALF: Final = _CELL // 2
_HEXAGON: Final = 22.0  # from the middle to a corner
_PIECES: Final = {  # of the first and the second player
    "stones": ("black", "white"),
    "green": ("black", "white"),
    "pawns": ("black", "white"),
    "marks": ("red", "blue"),
    "discs": ("red", "yellow"),
    "hexagons": ("red", "blue"),
}
_PAWN: Final = "M0 -12A5.5 5.5 0 0 1 3.5 -2.2Q5 5 9 8V12H-9V8Q-5 5 -3.5 -2.2A5.5 5.5 0 0 1 0 -12Z"


def grid_svg(
    squares: NDArray[np.int64],
    *,
    skewed: bool = False,
    style: BoardStyle | None = None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    parts: Sequence[Sequence[str]] = (),
    last: Squares = (),
    line: Squares = (),
    mover: int | None = None,
    title: str = "a board",
) -> str:
    """Draw stones on a board.

    Args:
        squares: integers [height, width], top row first: 0 empty, 1 the first player's stone, 2 the second player's.
        skewed: each row lies half a square to the right of the one above (hexagonal boards).
        style: how it looks; None: hexagons where it is skewed, else stones.
        rows: names of the rows, for the coordinates.
        columns: names of the columns.
        parts: names [height][width] of what a person clicks (see
            :class:`~keisei_lightning.games.protocol.ClickableGame`).
        last: squares of the last move.
        line: squares that won the game.
        mover: the seat to move, shown in the corner between the coordinates; None: nobody is.
        title: the picture in words.
    """
    height, width = squares.shape
    style = style or ("hexagons" if skewed else "stones")
    left = top = 26 if rows or columns else 2
    cells = (_Hexagons if style == "hexagons" else _Cells)(style, left, top, height, width)
    everywhere = [(row, column) for row in range(height) for column in range(width)]
    drawn = [cells.square(row, column, parts[row][column] if parts else None) for row, column in everywhere]
    pieces = [
        _piece(style, int(squares[square]) - 1, *cells.middle(*square)) for square in everywhere if squares[square]
    ]
    marks = [cells.mark(row, column) for row, column in last]
    names = [label(name, *cells.row_label(row), 15) for row, name in enumerate(rows)]
    names += [label(name, *cells.column_label(column), 15) for column, name in enumerate(columns)]
    layers = [
        cells.frame(),
        group("squares", drawn, fill=cells.ink, stroke=cells.line),
        group("last", marks if style != "discs" else [], pointer_events="none"),
        group("pieces", pieces, pointer_events="none"),
        group("last", marks if style == "discs" else [], pointer_events="none"),
        group("line", [_ring(*cells.middle(*square)) for square in line], pointer_events="none"),
        group("coordinates", [name for name in names if name], fill="label", pointer_events="none"),
        group(
            "mover", [] if mover is None or not top > 2 else [_piece(style, mover, 13, 13, 0.5)], pointer_events="none"
        ),
    ]
    return picture(layers, width=cells.width, height=cells.height, title=title, shapes=cells.shapes)


class _Cells:
    """Squares side by side.

    Args:
        style: how they look.
        left: where the board begins.
        top: likewise.
        rows: how many.
        columns: likewise.
    """

    def __init__(self, style: BoardStyle, left: int, top: int, rows: int, columns: int) -> None:
        self.style = style
        self.ink = {"green": "felt", "discs": "frame"}.get(style, "wood")
        self.line = {"green": "seam", "discs": "frame"}.get(style, "line")
        self.left, self.top, self.rows, self.columns = left, top, rows, columns
        self.width: float = left + columns * _CELL + max(2, left // 2)
        self.height: float = top + rows * _CELL + max(2, top // 2)

    def middle(self, row: int, column: int) -> tuple[float, float]:
        return self.left + column * _CELL + _HALF, self.top + row * _CELL + _HALF

    def row_label(self, row: int) -> tuple[float, float]:
        return self.left / 2, self.middle(row, 0)[1]

    def column_label(self, column: int) -> tuple[float, float]:
        return self.middle(0, column)[0], self.top / 2

    @property
    def shapes(self) -> list[str]:
        """Elements that others use."""
        return []

    def frame(self) -> str:
        """What lies below the squares."""
        return ""

    def square(self, row: int, column: int, part: str | None) -> str:
        x, y = self.middle(row, column)
        fill = "shade" if self.style == "pawns" and (row + column) % 2 else None
        size = {"width": _CELL, "height": _CELL}
        square = element("rect", x=x - _HALF, y=y - _HALF, **size, fill=fill, **_place(part, x, y))
        if self.style != "discs":
            return square
        return square + element("path", d=_disc(x, y, 16), fill="paper", stroke="none", pointer_events="none")

    def mark(self, row: int, column: int) -> str:
        """The mark of a last move: the square's colour, or in a disc a dot."""
        x, y = self.middle(row, column)
        if self.style == "discs":
            return element("path", d=_disc(x, y, 5), fill="paper")
        outline = f"M{x - _HALF:g} {y - _HALF:g}h{_CELL}v{_CELL}h-{_CELL}z"
        return element("path", d=outline, fill="last", fill_opacity=0.75)


class _Hexagons(_Cells):
    """Hexagons; each row lies half a hexagon to the right of the one above."""

    def __init__(self, style: BoardStyle, left: int, top: int, rows: int, columns: int) -> None:
        super().__init__(style, left, top, rows, columns)
        self.step = _HEXAGON * sqrt(3)
        self.width = left + self.step * (columns + (rows - 1) / 2) + max(6, left)
        self.height = top + _HEXAGON * (1.5 * rows + 0.5) + max(6, top // 2)

    def middle(self, row: int, column: int) -> tuple[float, float]:
        return self.left + self.step * (column + row / 2 + 0.5), self.top + _HEXAGON * (1.5 * row + 1)

    def row_label(self, row: int) -> tuple[float, float]:
        x, y = self.middle(row, 0)
        return x - self.step / 2 - 14, y

    def column_label(self, column: int) -> tuple[float, float]:
        return self.middle(0, column)[0], self.top / 2

    def frame(self) -> str:
        """The edges that each player joins: top and bottom the first one's, left and right the second one's."""
        rows, columns = range(self.rows), range(self.columns)
        sides = [
            ("red", [self._corner(*self.middle(0, column), corner) for column in columns for corner in (5, 0, 1)]),
            ("red", [self._corner(*self.middle(self.rows - 1, column), at) for column in columns for at in (4, 3, 2)]),
            ("blue", [self._corner(*self.middle(row, 0), corner) for row in rows for corner in (5, 4, 3)]),
            ("blue", [self._corner(*self.middle(row, self.columns - 1), at) for row in rows for at in (0, 1, 2)]),
        ]
        drawn = [
            element(
                "polyline", points=" ".join(points), fill="none", stroke=ink, stroke_width=9, stroke_linejoin="round"
            )
            for ink, points in sides
        ]
        return group("edges", drawn)

    def square(self, row: int, column: int, part: str | None) -> str:
        x, y = self.middle(row, column)
        return element("use", href="#cell", x=x, y=y, **_place(part, x, y))

    def mark(self, row: int, column: int) -> str:
        x, y = self.middle(row, column)
        return element("use", href="#cell", x=x, y=y, fill="last", fill_opacity=0.75)

    @property
    def shapes(self) -> list[str]:
        corners = " ".join(self._corner(0.0, 0.0, corner) for corner in range(6))
        return [element("polygon", id="cell", points=corners)]

    def _corner(self, x: float, y: float, corner: int) -> str:
        """A corner's point of the hexagon with this middle: 0 is the top one, then clockwise."""
        across = (0, 1, 1, 0, -1, -1)[corner] * self.step / 2
        down = (-1, -0.5, 0.5, 1, 0.5, -0.5)[corner] * _HEXAGON
        return f"{x + across:.2f},{y + down:.2f}"


def _place(part: str | None, x: float, y: float) -> dict[str, object]:
    """What a clickable element carries."""
    return {} if part is None else {"data_part": part, "data_x": x, "data_y": y}


def _disc(x: float, y: float, radius: int) -> str:
    """A disc as a path."""
    return f"M{x - radius:g} {y:g}a{radius} {radius} 0 1 0 {2 * radius} 0a{radius} {radius} 0 1 0 -{2 * radius} 0z"


def _ring(x: float, y: float) -> str:
    """What shows a square that won."""
    return element("path", d=_disc(x, y, 17), fill="none", stroke="win", stroke_width=4)


def _piece(style: BoardStyle, seat: int, x: float, y: float, scale: float = 1.0) -> str:
    """A player's stone, disc, pawn or mark."""
    ink = _PIECES[style][seat]
    if style == "pawns":
        place = f"translate({x:g} {y:g}) scale({scale * 1.1:g})"
        pawn = element("path", d=_PAWN, transform=place, fill=ink, stroke="rim", stroke_width=1.5)
        return element("g", pawn, class_="upright")
    if style == "marks" and seat == 0:
        arm = 11 * scale
        cross = f"M{x - arm:g} {y - arm:g}l{2 * arm:g} {2 * arm:g}m0 -{2 * arm:g}l-{2 * arm:g} {2 * arm:g}"
        return element("path", d=cross, fill="none", stroke=ink, stroke_width=5 * scale, stroke_linecap="round")
    if style == "marks":
        return element("circle", cx=x, cy=y, r=12 * scale, fill="none", stroke=ink, stroke_width=5 * scale)
    radius = {"discs": 16, "hexagons": 13}.get(style, 16) * scale
    return element("circle", cx=x, cy=y, r=radius, fill=ink, stroke="rim")


def grid_text(
    squares: NDArray[np.int64],
    *,
    symbols: str = ".xo",
    skewed: bool = False,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    last: Squares = (),
) -> str:
    """Draw stones on a board as text, the squares of the last move in brackets.

    Args:
        squares: integers [height, width], top row first, as for :func:`grid_svg`.
        symbols: of an empty square, the first player's stone and the second player's.
        skewed: each row lies half a square to the right of the one above.
        rows: names of the rows.
        columns: names of the columns.
        last: squares of the last move.
    """
    height, width = squares.shape
    margin = max((len(name) for name in rows), default=0)
    step = max([1, *(len(name) for name in columns)])
    lines = []
    if columns:
        lines.append(" " * (margin + 1) + " ".join(name.rjust(step) for name in columns))
    for row in range(height):
        line = rows[row].rjust(margin) if rows else ""
        for column in range(width):
            gap = list(" " * step)
            if (row, column - 1) in last:
                gap[0] = "]"
            if (row, column) in last:
                gap[-1] = "["
            line += "".join(gap) + symbols[int(squares[row, column])]
        line += "]" if (row, width - 1) in last else ""
        lines.append((" " * row if skewed else "") + line)
    return "\n".join(line.rstrip() for line in lines)


def text_svg(text: str) -> str:
    """Show text as it is, in a fixed-width font."""
    lines = text.splitlines()
    width, height = 9 * max((len(line) for line in lines), default=1) + 16, 18 * len(lines) + 16
    rows = "\n".join(
        f'<text x="8" y="{18 * number + 22}" xml:space="preserve">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="monospace" font-size="15">\n{rows}\n</svg>'
    )
