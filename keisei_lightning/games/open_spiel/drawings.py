"""How OpenSpiel's boards are drawn, where their moves are on them, and which stones won.

Coordinates are those of OpenSpiel's names of moves:

================== ==================================== ==================================
game               a move's name                        the parts that a person clicks
================== ==================================== ==================================
tic_tac_toe, mnk   ``x(0,2)``, row and column           ``0,2``
connect_four       ``x3``, the column                   ``3``: any square of the column
othello            ``d3``; ``pass``                     ``d3``; none
hex                ``d3``                               ``d3``
breakthrough       ``a7b6``                             ``a7``, ``b6``
================== ==================================== ==================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games.svg import BoardStyle, Squares, grid_text

__all__ = ["Drawing", "drawing_of"]

_STRAIGHT = ((0, 1), (1, 0), (1, 1), (1, -1))  # ways of a row of stones
_HEXAGONAL = ((0, 1), (1, 0), (1, -1), (0, -1), (-1, 0), (-1, 1))  # from a hexagon to its neighbours

Square = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Drawing:
    """Where the stones are in the first player's tensor, and what a board looks like.

    Squares are (row, column) with the top row first, as they are drawn.

    Attributes:
        shape: (planes, height, width).
        first: planes with the first player's stones.
        second: planes with the second player's stones.
        style: how the board looks.
        rows: names of the rows, the top one first; empty: they have none.
        columns: names of the columns.
        parts: names [height][width] of what a person clicks.
        squares_of: squares of one of OpenSpiel's actions, in the order of the clicks; none for a pass.
        symbols: of an empty square and of the two players' stones in text.
        row_to_win: stones in a row that win; 0: this wins no game.
        upwards: the tensor's row 0 is the lowest.
        drops: a stone falls to the lowest empty square of its column.
    """

    shape: tuple[int, int, int]
    first: tuple[int, ...]
    second: tuple[int, ...]
    style: BoardStyle
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]
    squares_of: Callable[[int], tuple[Square, ...]]
    symbols: str = ".xo"
    row_to_win: int = 0
    upwards: bool = False
    drops: bool = False

    @property
    def skewed(self) -> bool:
        """Whether the squares are hexagons."""
        return self.style == "hexagons"

    def squares(self, tensor: NDArray[np.float32]) -> NDArray[np.int64]:
        """The board as int64 [height, width]: 0 empty, 1 first, 2 second player's stone, top row first."""
        planes = tensor.reshape(self.shape) > 0
        first, second = (planes[list(stones)].max(axis=0) for stones in (self.first, self.second))
        board: NDArray[np.int64] = np.where(first, 1, np.where(second, 2, 0))
        return np.asarray(board[::-1] if self.upwards else board, dtype=np.int64)

    def text(self, board: NDArray[np.int64], last: Squares) -> str:
        """A board as text, with its coordinates and the last move in brackets."""
        return grid_text(
            board, symbols=self.symbols, skewed=self.skewed, rows=self.rows, columns=self.columns, last=last
        )

    def move_parts(self, action: int) -> tuple[str, ...]:
        """What a person clicks to make one of OpenSpiel's actions."""
        return tuple(self.parts[row][column] for row, column in self.squares_of(action))

    def moved(self, board: NDArray[np.int64], action: int) -> tuple[Square, ...]:
        """Squares of the action that has just led to a board."""
        squares = self.squares_of(action)
        if self.drops:
            ((_, column),) = squares
            return ((int(np.flatnonzero(board[:, column])[0]), column),)
        return squares

    def winning(self, board: NDArray[np.int64], square: Square) -> tuple[Square, ...]:
        """Stones that win together with the one that was put last: in a row, or in hex all that it is joined to."""
        if self.skewed:
            return _joined(board, square)
        rows = [_in_row(board, square, way) for way in _STRAIGHT] if self.row_to_win else []
        return tuple(sorted({stone for row in rows if len(row) >= self.row_to_win for stone in row}))


def drawing_of(game: Any, shape: tuple[int, int, int], *, first: tuple[int, ...], second: tuple[int, ...]) -> Drawing:
    """How a board of one of the games above is drawn.

    Args:
        game: a ``pyspiel.Game``.
        shape: (planes, height, width) of the first player's tensor.
        first: planes with the first player's stones.
        second: planes with the second player's stones.
    """
    name, parameters = game.get_type().short_name, game.get_parameters()
    _, height, width = shape
    columns = tuple(chr(ord("a") + column) for column in range(width))
    upward_rows = tuple(str(height - row) for row in range(height))
    rows = tuple(str(row + 1) for row in range(height))
    planes: dict[str, Any] = {"shape": shape, "first": first, "second": second}

    def square_of(action: int) -> tuple[Square, ...]:
        return (divmod(action, width),) if action < height * width else ()

    if name == "breakthrough":
        return Drawing(
            **planes,
            style="pawns",
            rows=upward_rows,
            columns=columns,
            parts=_lettered(columns, upward_rows),
            squares_of=lambda action: _step(action, width),
            symbols=".bw",
        )
    if name == "connect_four":
        columns = tuple(str(column) for column in range(width))
        return Drawing(
            **planes,
            style="discs",
            rows=(),
            columns=columns,
            parts=(columns,) * height,
            upwards=True,
            drops=True,
            squares_of=lambda action: ((0, action),),
            row_to_win=parameters.get("x_in_row", 4),
        )
    if name in ("hex", "othello"):
        style: BoardStyle = "hexagons" if name == "hex" else "green"
        return Drawing(
            **planes, style=style, rows=rows, columns=columns, parts=_lettered(columns, rows), squares_of=square_of
        )
    rows, columns = (tuple(str(number) for number in range(size)) for size in (height, width))
    return Drawing(
        **planes,
        style="marks" if height <= 3 else "stones",
        rows=rows,
        columns=columns,
        parts=tuple(tuple(f"{row},{column}" for column in columns) for row in rows),
        squares_of=square_of,
        row_to_win=parameters.get("k", 3),
    )


def _lettered(columns: tuple[str, ...], rows: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Names such as a1."""
    return tuple(tuple(column + row for column in columns) for row in rows)


def _step(action: int, width: int) -> tuple[Square, ...]:
    """From where to where a pawn goes: an action is [row, column, direction, capture]."""
    square, way = divmod(action // 2, 6)
    row, column = divmod(square, width)
    return (row, column), (row + (1 if way < 3 else -1), column + way % 3 - 1)


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
