"""The squares of boards and what stands on them, as elements of a picture."""

from __future__ import annotations

from math import sqrt
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games.svg_elements import element, group

__all__ = ["BoardStyle", "Cells", "Dots", "Hexagons", "make_piece", "make_ring"]

BoardStyle = Literal["stones", "lines", "green", "pawns", "draughts", "marks", "discs", "hexagons", "dots"]
"""How a board and its pieces look: dark and light stones on wood, on the crossings of lines or on green felt, pawns or
draughtsmen on a chequered board, crosses and circles, discs in a frame with holes, stones on hexagons, or dots with
lines and boxes between them (every second row and column of the board is one of dots and lines)."""

_CELL: Final = 40
_HALF: Final = _CELL // 2
_BLOCKED: Final = 5
_HEXAGON: Final = 22.0  # from the middle to a corner
_CHEQUERED: Final = ("pawns", "draughts")
_PIECES: Final = {"discs": ("red", "yellow"), **dict.fromkeys(("marks", "hexagons", "dots"), ("red", "blue"))}
_STONES: Final = ("black", "white")
_RADII: Final = {"hexagons": 13, "lines": 18}
_PAWN: Final = "M0 -12A5.5 5.5 0 0 1 3.5 -2.2Q5 5 9 8V12H-9V8Q-5 5 -3.5 -2.2A5.5 5.5 0 0 1 0 -12Z"


class Cells:
    """Squares side by side.

    Args:
        style: how they look.
        squares: integers [height, width]; -1 where there is none.
        margin: where the board begins, from the left and from the top.
        shift: each row lies so many squares to the right of the one above.

    Attributes:
        there: the squares that exist, by (row, column), row by row.
        width: of the picture.
        height: likewise.
    """

    def __init__(self, style: BoardStyle, squares: NDArray[np.int64], margin: int, shift: float) -> None:
        self.style, self.margin, self.shift = style, margin, shift
        self.there: list[tuple[int, int]] = [(row, column) for row, column in np.argwhere(squares >= 0).tolist()]
        self.rows, self.columns = squares.shape
        self.indent = -min(column + row * shift for row, column in self.there)
        end = max(column + row * shift for row, column in self.there) + self.indent + 1
        self.width: float = margin + end * self.step + max(2, margin // 2)
        self.height: float = margin + self.rows * _CELL + max(2, margin // 2)

    @property
    def step(self) -> float:
        """From a square to its right neighbour."""
        return _CELL

    @property
    def inks(self) -> tuple[str, str]:
        """Colours of the squares and of the lines between them."""
        return {"green": ("felt", "seam"), "discs": ("frame", "frame"), "lines": ("wood", "wood")}.get(
            self.style, ("wood", "line")
        )

    @property
    def shapes(self) -> list[str]:
        """Elements that others use."""
        return []

    def middle(self, row: int, column: int) -> tuple[float, float]:
        """The middle of a square."""
        x = self.margin + self.step * (column + row * self.shift + self.indent + 0.5)
        return x, self.margin + row * _CELL + _HALF

    def row_label(self, row: int) -> tuple[float, float]:
        """Where a row's name is: at the left of its first square."""
        x, y = self.middle(*next(square for square in self.there if square[0] == row))
        return x - self.step / 2 - self.margin / 2, y

    def column_label(self, column: int) -> tuple[float, float]:
        """Where a column's name is: above its highest square."""
        x, y = self.middle(*next(square for square in self.there if square[1] == column))
        return x, y - _HALF - self.margin / 2

    def frame(self) -> str:
        """What lies below the squares."""
        return ""

    def lines(self) -> str:
        """What lies on the squares, below all pieces."""
        if self.style != "lines":
            return ""
        (left, top), (right, bottom) = self.middle(0, 0), self.middle(self.rows - 1, self.columns - 1)
        across = "".join(f"M{left:g} {self.middle(row, 0)[1]:g}H{right:g}" for row in range(self.rows))
        down = "".join(f"M{self.middle(0, column)[0]:g} {top:g}V{bottom:g}" for column in range(self.columns))
        lines = element("path", d=across + down, fill="none", stroke="line", stroke_linecap="square")
        return group("grid", [lines], pointer_events="none")

    def square(self, row: int, column: int, part: str | None) -> str:
        """A square that can be clicked, if it has a name."""
        x, y = self.middle(row, column)
        fill = "shade" if self.style in _CHEQUERED and (row + column) % 2 else None
        size = {"width": _CELL, "height": _CELL}
        square = element("rect", x=x - _HALF, y=y - _HALF, **size, fill=fill, **_place(part, x, y))
        if self.style != "discs":
            return square
        return square + element("path", d=_disc(x, y, 16), fill="paper", stroke="none", pointer_events="none")

    def mark(self, row: int, column: int) -> str:
        """The mark of a last move: the square's colour, or on a disc a dot."""
        x, y = self.middle(row, column)
        if self.style == "discs":
            return element("path", d=_disc(x, y, 5), fill="paper")
        outline = f"M{x - _HALF:g} {y - _HALF:g}h{_CELL}v{_CELL}h-{_CELL}z"
        return element("path", d=outline, fill="last", fill_opacity=0.75)

    def piece(self, row: int, column: int, number: int) -> str:
        """What stands on a square, by its number on the board."""
        x, y = self.middle(row, column)
        if number == _BLOCKED:
            return element("path", d=f"M{x - 15:g} {y - 15:g}h30v30h-30z", fill="line", fill_opacity=0.85)
        return make_piece(self.style, (number - 1) % 2, x, y, crowned=number > 2)


class Hexagons(Cells):
    """Hexagons, a corner on top; each row lies half a hexagon to the right or to the left of the one above."""

    def __init__(self, style: BoardStyle, squares: NDArray[np.int64], margin: int, shift: float) -> None:
        super().__init__(style, squares, margin + 6, shift)
        self.height = self.margin + _HEXAGON * (1.5 * self.rows + 0.5) + max(6, margin // 2)
        self._whole = bool((squares >= 0).all())

    @property
    def step(self) -> float:
        """From a hexagon to its right neighbour."""
        return _HEXAGON * sqrt(3)

    @property
    def shapes(self) -> list[str]:
        """The hexagon."""
        corners = " ".join(self._corner(0.0, 0.0, corner) for corner in range(6))
        return [element("polygon", id="cell", points=corners)]

    def middle(self, row: int, column: int) -> tuple[float, float]:
        """The middle of a hexagon."""
        return super().middle(row, column)[0], self.margin + _HEXAGON * (1.5 * row + 1)

    def column_label(self, column: int) -> tuple[float, float]:
        """Above the highest hexagon, or where the column, which goes to the left, would continue upwards."""
        x, y = self.middle(*next(square for square in self.there if square[1] == column))
        return (x, y - _HEXAGON - 13) if self.shift > 0 else (x + self.step / 2, y - 1.5 * _HEXAGON)

    def frame(self) -> str:
        """The edges that each player joins: top and bottom the first one's, left and right the second one's."""
        if not self._whole:
            return ""
        rows, columns = range(self.rows), range(self.columns)
        sides = [
            ("red", [self._corner(*self.middle(0, column), at) for column in columns for at in (5, 0, 1)]),
            ("red", [self._corner(*self.middle(self.rows - 1, column), at) for column in columns for at in (4, 3, 2)]),
            ("blue", [self._corner(*self.middle(row, 0), at) for row in rows for at in (5, 4, 3)]),
            ("blue", [self._corner(*self.middle(row, self.columns - 1), at) for row in rows for at in (0, 1, 2)]),
        ]
        look = {"fill": "none", "stroke_width": 9, "stroke_linejoin": "round"}
        return group("edges", [element("polyline", points=" ".join(at), stroke=ink, **look) for ink, at in sides])

    def square(self, row: int, column: int, part: str | None) -> str:
        """A hexagon that can be clicked, if it has a name."""
        x, y = self.middle(row, column)
        return element("use", href="#cell", x=x, y=y, **_place(part, x, y))

    def mark(self, row: int, column: int) -> str:
        """The mark of a last move: the hexagon's colour."""
        x, y = self.middle(row, column)
        return element("use", href="#cell", x=x, y=y, fill="last", fill_opacity=0.75)

    def _corner(self, x: float, y: float, corner: int) -> str:
        """A corner's point of the hexagon with this middle: 0 is the top one, then clockwise."""
        across = (0, 1, 1, 0, -1, -1)[corner] * self.step / 2
        down = (-1, -0.5, 0.5, 1, 0.5, -0.5)[corner] * _HEXAGON
        return f"{x + across:.2f},{y + down:.2f}"


class Dots(Cells):
    """Dots, lines between them and boxes between the lines."""

    def __init__(self, style: BoardStyle, squares: NDArray[np.int64], margin: int, shift: float) -> None:
        super().__init__(style, squares, margin, shift)
        self.width, self.height = (at + max(14, margin // 2) for at in self.middle(self.rows - 1, self.columns - 1))

    @property
    def inks(self) -> tuple[str, str]:
        """Colours of what has not been taken."""
        return "wood", "none"

    def middle(self, row: int, column: int) -> tuple[float, float]:
        """The middle of a dot, a line or a box."""
        return self.margin + 12 + column * _HALF, self.margin + 12 + row * _HALF

    def square(self, row: int, column: int, part: str | None) -> str:
        """A line that can be clicked; dots and boxes cannot."""
        x, y = self.middle(row, column)
        if not row % 2 and not column % 2:
            return element("circle", cx=x, cy=y, r=4, fill="ink")
        place = _place(part, x, y) if (row + column) % 2 else {}
        return element("path", d=_bar(row, column, x, y), **place)

    def mark(self, row: int, column: int) -> str:
        """The mark of the last move: a dot on its line."""
        return element("path", d=_disc(*self.middle(row, column), 4), fill="last")

    def piece(self, row: int, column: int, number: int) -> str:
        """A line or a box that a player has taken."""
        ink = _PIECES[self.style][number - 1]
        return element("path", d=_bar(row, column, *self.middle(row, column)), fill=ink)


def make_ring(x: float, y: float) -> str:
    """What shows a square that won."""
    return element("path", d=_disc(x, y, 17), fill="none", stroke="win", stroke_width=4)


def make_piece(style: BoardStyle, seat: int, x: float, y: float, *, scale: float = 1.0, crowned: bool = False) -> str:
    """A player's stone, disc, pawn or mark, with a ring in it where it is crowned."""
    ink = _PIECES.get(style, _STONES)[seat]
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
    stone = element("circle", cx=x, cy=y, r=_RADII.get(style, 16) * scale, fill=ink, stroke="rim")
    ring = element("path", d=_disc(x, y, 9), fill="none", stroke="last", stroke_width=3) if crowned else ""
    return stone + ring


def _place(part: str | None, x: float, y: float) -> dict[str, object]:
    """What a clickable element carries."""
    return {} if part is None else {"data_part": part, "data_x": x, "data_y": y}


def _bar(row: int, column: int, x: float, y: float) -> str:
    """A line between two dots, or a box between lines."""
    across, down = (14 if at % 2 else 3 for at in (column, row))
    return f"M{x - across:g} {y - down:g}h{2 * across}v{2 * down}h-{2 * across}z"


def _disc(x: float, y: float, radius: int) -> str:
    """A disc as a path."""
    return f"M{x - radius:g} {y:g}a{radius} {radius} 0 1 0 {2 * radius} 0a{radius} {radius} 0 1 0 -{2 * radius} 0z"
