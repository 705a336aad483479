"""How OpenSpiel's boards are drawn, where their moves are on them, and which stones won.

The squares of a move are read in OpenSpiel's name of it, and the coordinates in a picture are the same:

===================================== ============================================= ===================================
game                                  names of moves                                the parts that a person clicks
===================================== ============================================= ===================================
tic_tac_toe, mnk, gomoku              ``x(0,2)`` or ``0,2``: row and column         ``0,2``
amazons                               ``X From (7, 1)``, ``X To (2, 4)``, ...       ``7,1``: an amazon's move is three
connect_four                          ``x3``: the column                            ``3``: any square of the column
othello, hex, y, havannah, go         ``d3``, ``B d3``; ``pass``                    ``d3``; none
pentago                               ``a1s``: the square, and what is turned       ``a1``
breakthrough, clobber, checkers,      ``a7b6``, ``b1-h1``                           ``a7``, ``b6``
lines_of_action
dots_and_boxes                        ``P1(h,0,1)``: a line to the right (v: down)  ``h,0,1``
===================================== ============================================= ===================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games.svg import BoardStyle, Squares, grid_svg, grid_text

__all__ = ["Drawing", "Planes", "drawing_of"]

Planes = tuple[tuple[int, ...], ...]
"""Planes of the first player's tensor with what stands on a board: the first player's stones, the second player's, the
crowned ones of both, and blocked squares."""

Square = tuple[int, int]

_STRAIGHT: Final = ((0, 1), (1, 0), (1, 1), (1, -1))  # ways of a row of stones
_HEXAGONAL: Final = ((0, 1), (1, 0), (1, -1), (0, -1), (-1, 0), (-1, 1))  # from a hexagon to its neighbours


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    """What is known of a game.

    Attributes:
        style: how the board looks.
        names: of the squares: a1 with row 1 on top or below, 0,0 or 1,1 on top, columns alone, or lines between dots.
        planes: of the tensor; empty: the view of the game knows them.
        shift: how many squares each row lies to the right of the one above.
        symbols: of an empty square, the two players' stones, their crowned ones and a blocked square in text.
        row_to_win: the parameter that tells how many stones in a row win, and its default.
        upwards: the tensor's row 0 is the lowest.
        drops: a stone falls to the lowest empty square of its column.
        own_text: OpenSpiel's own text has coordinates, and more.
    """

    style: BoardStyle
    names: Literal["a1 on top", "a1 below", "0,0", "1,1", "columns", "lines"]
    planes: Planes = ()
    shift: float = 0.0
    symbols: str = ".xoXO#"
    row_to_win: tuple[str, int] = ("", 0)
    upwards: bool = False
    drops: bool = False
    own_text: bool = False


_LOOKS: Final[Mapping[str, _Look]] = {
    "amazons": _Look(style="draughts", names="1,1", planes=((2,), (1,), (), (), (3,))),
    "breakthrough": _Look(style="pawns", names="a1 below", symbols=".bw"),
    "checkers": _Look(style="draughts", names="a1 below", planes=((0,), (2,), (1,), (3,)), symbols=".o+8*"),
    "clobber": _Look(style="draughts", names="a1 below", planes=((0,), (1,)), symbols=".ox"),
    "connect_four": _Look(style="discs", names="columns", row_to_win=("x_in_row", 4), upwards=True, drops=True),
    "dots_and_boxes": _Look(style="dots", names="lines", planes=((1,), (2,)), own_text=True),
    "go": _Look(style="lines", names="a1 below", planes=((0,), (1,)), upwards=True),
    "gomoku": _Look(style="lines", names="0,0", planes=((0,), (1,)), symbols=".bw", row_to_win=("connect", 5)),
    "havannah": _Look(style="hexagons", names="a1 on top", planes=((0,), (1,)), shift=-0.5, own_text=True),
    "hex": _Look(style="hexagons", names="a1 on top", shift=0.5),
    "lines_of_action": _Look(style="draughts", names="a1 below", planes=((0,), (1,)), upwards=True),
    "mnk": _Look(style="lines", names="0,0", row_to_win=("k", 5)),
    "othello": _Look(style="green", names="a1 on top"),
    "pentago": _Look(style="stones", names="a1 on top", planes=((0,), (1,)), own_text=True),
    "tic_tac_toe": _Look(style="marks", names="0,0", row_to_win=("", 3)),
    "y": _Look(style="hexagons", names="a1 on top", planes=((0,), (1,)), shift=0.5, own_text=True),
}
_SQUARES: Final = {
    "a1 on top": r"([a-z])(\d+)",
    "a1 below": r"([a-z])(\d+)",
    "columns": r"()(\d+)",
    "lines": r"([hv]),(\d+),(\d+)",
}
_PAIRS: Final = r"(\d+), ?(\d+)"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Drawing:
    """Where the stones are in the first player's tensor, and what a board looks like.

    Squares are (row, column) with the top row first, as they are drawn.

    Attributes:
        look: what is known of the game.
        shape: (planes, height, width).
        planes: of the tensor.
        rows: names of the rows, the top one first; empty: they have none.
        columns: names of the columns.
        parts: names [height][width] of what a person clicks.
        there: bool [height, width], the squares that exist.
        row_to_win: stones in a row that win; 0: this wins no game.
        name_of: OpenSpiel's name of one of its actions.
    """

    look: _Look
    shape: tuple[int, int, int]
    planes: Planes
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]
    there: NDArray[np.bool_]
    row_to_win: int
    name_of: Callable[[int], str]
    _where: dict[str, Square] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Note where each part is."""
        for row, parts in enumerate(self.parts):
            for column, part in enumerate(parts):
                self._where.setdefault(part, (row, column))

    def squares(self, tensor: NDArray[np.float32]) -> NDArray[np.int64]:
        """The board as int64 [height, width], numbered as :func:`~keisei_lightning.games.svg.grid_svg` wants it."""
        planes = tensor.reshape(self.shape) > 0
        if self.look.names == "lines":
            planes = _lattice(planes, *self.there.shape)
        board = np.zeros(self.there.shape, np.int64)
        for number, stones in enumerate(self.planes, start=1):
            for plane in stones:
                board[planes[plane]] = number
        board = board[::-1] if self.look.upwards else board
        return np.where(self.there, board, -1)

    def squares_of(self, action: int) -> tuple[Square, ...]:
        """Squares of one of OpenSpiel's actions, in the order of the clicks; none for a pass."""
        return tuple(self._where[part] for part in self.move_parts(action))

    def move_parts(self, action: int) -> tuple[str, ...]:
        """What a person clicks to make one of OpenSpiel's actions."""
        between = "," if self.look.names in ("0,0", "1,1", "lines") else ""
        return tuple(map(between.join, re.findall(_SQUARES.get(self.look.names, _PAIRS), self.name_of(action))))

    def moved(self, board: NDArray[np.int64], action: int) -> tuple[Square, ...]:
        """Squares of the action that has just led to a board."""
        squares = self.squares_of(action)
        if self.look.drops:
            ((_, column),) = squares
            return ((int(np.flatnonzero(board[:, column])[0]), column),)
        return squares

    def winning(self, board: NDArray[np.int64], square: Square) -> tuple[Square, ...]:
        """Stones that win together with the one that was put last: in a row, or in hex all that it is joined to."""
        if self.look.style == "hexagons":
            return _joined(board, square) if self.there.all() else ()
        rows = [_in_row(board, square, way) for way in _STRAIGHT] if self.row_to_win else []
        return tuple(sorted({stone for row in rows if len(row) >= self.row_to_win for stone in row}))

    def svg(self, board: NDArray[np.int64], *, last: Squares, line: Squares, mover: int | None, title: str) -> str:
        """A board as a picture; see :func:`~keisei_lightning.games.svg.grid_svg`."""
        return grid_svg(
            board,
            shift=self.look.shift,
            style=self.look.style,
            rows=self.rows,
            columns=self.columns,
            parts=self.parts,
            last=last,
            line=line,
            mover=mover,
            title=title,
        )

    def text(self, state: Any, board: NDArray[np.int64], last: Squares) -> str:
        """A ``pyspiel.State`` as text, with its coordinates and the last move in brackets."""
        look = self.look
        if look.own_text:
            return str(state).rstrip("\n")
        text = grid_text(
            board, symbols=look.symbols, skewed=look.shift > 0, rows=self.rows, columns=self.columns, last=last
        )
        return f"{text}\n{look.symbols[1]} is the first player, {look.symbols[2]} the second"


def drawing_of(game: Any, planes: Planes = ()) -> Drawing | None:
    """How a board of one of the games above is drawn; None for others.

    Args:
        game: a ``pyspiel.Game``.
        planes: where the stones are in the first player's tensor, if that is known already.
    """
    look, parameters = _LOOKS.get(game.get_type().short_name), game.get_parameters()
    if look is None or not (planes or look.planes):
        return None
    shape = game.observation_tensor_shape()
    if len(shape) == 2 and parameters.get("dims", 2) == 2:
        shape = [shape[0], parameters["size"], parameters["size"]]
    planes = planes or look.planes
    if len(shape) != 3 or max(map(max, filter(None, planes))) >= shape[0] or parameters.get("egocentric"):
        return None
    start, (_, height, width) = game.new_initial_state(), shape
    if look.names == "lines":
        height, width = 2 * parameters["num_rows"] + 1, 2 * parameters["num_cols"] + 1
    rows, columns, parts = _names(look, height, width)

    def name_of(action: int) -> str:
        return str(start.action_to_string(0, action))

    there = np.ones((height, width), np.bool_)
    if look.own_text and look.style == "hexagons":
        there = np.array(
            [[name_of(row * width + column) != "unknown" for column in range(width)] for row in range(height)]
        )
    key, default = look.row_to_win
    return Drawing(
        look=look,
        shape=(shape[0], shape[1], shape[2]),
        planes=planes,
        rows=rows,
        columns=columns,
        parts=parts,
        there=there,
        row_to_win=int(parameters.get(key, default)),
        name_of=name_of,
    )


def _names(
    look: _Look, height: int, width: int
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Names of the rows, the columns and the squares."""
    if look.names == "lines":
        return _line_names(height, width)
    first = 0 if look.names in ("0,0", "columns") else 1
    numbers = [str(number) for number in range(first, height + first)]
    rows = tuple(reversed(numbers) if look.names == "a1 below" else numbers)
    columns = tuple(str(number) for number in range(first, width + first))
    if look.names == "columns":
        return (), columns, (columns,) * height
    if look.names in ("0,0", "1,1"):
        return rows, columns, tuple(tuple(f"{row},{column}" for column in columns) for row in rows)
    columns = tuple(chr(ord("a") + column) for column in range(width))
    return rows, columns, tuple(tuple(f"{column}{row}" for column in columns) for row in rows)


def _line_names(height: int, width: int) -> tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Names where every second row and column is one of dots: of those, and of the lines between two dots."""
    rows, columns = (tuple("" if at % 2 else str(at // 2) for at in range(size)) for size in (height, width))
    kinds = {(0, 1): "h", (1, 0): "v"}
    parts = tuple(
        tuple(
            f"{kind},{row // 2},{column // 2}" if (kind := kinds.get((row % 2, column % 2))) else ""
            for column in range(width)
        )
        for row in range(height)
    )
    return rows, columns, parts


def _lattice(planes: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Planes [n, dots, 3] (by dot: the line to its right, the line down, the box) as [n, height, width]."""
    cells = planes.reshape(len(planes), (height + 1) // 2, (width + 1) // 2, 3)
    lattice = np.zeros((len(planes), height, width), np.bool_)
    lattice[:, ::2, 1::2], lattice[:, 1::2, ::2] = cells[:, :, :-1, 0], cells[:, :-1, :, 1]
    lattice[:, 1::2, 1::2] = cells[:, :-1, :-1, 2]
    return lattice


def _in_row(board: NDArray[np.int64], square: Square, way: Square) -> list[Square]:
    """Stones of one colour through a square, in one direction and its opposite."""
    found = [square]
    for sign in (1, -1):
        at = square
        while _has(board, at := (at[0] + sign * way[0], at[1] + sign * way[1]), board[square]):
            found.append(at)
    return found


def _joined(board: NDArray[np.int64], square: Square) -> tuple[Square, ...]:
    """Stones of one colour that are joined to a square's, on hexagons."""
    found, to_visit = {square}, [square]
    while to_visit:
        row, column = to_visit.pop()
        for down, right in _HEXAGONAL:
            at = row + down, column + right
            if at not in found and _has(board, at, board[square]):
                found.add(at)
                to_visit.append(at)
    return tuple(sorted(found))


def _has(board: NDArray[np.int64], square: Square, stone: int) -> bool:
    inside = all(0 <= at < size for at, size in zip(square, board.shape, strict=True))
    return inside and bool(board[square] == stone)
