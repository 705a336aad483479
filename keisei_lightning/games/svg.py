"""Pictures for any game, as SVG and as text: boards of squares or hexagons with stones, and text as it is."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games.svg_cells import BoardStyle, Cells, Dots, Hexagons, make_piece, make_ring
from keisei_lightning.games.svg_elements import group, label, picture

__all__ = ["BoardStyle", "Squares", "grid_svg", "grid_text", "text_svg"]

Squares = Sequence[tuple[int, int]]
"""Squares by (row, column), top row first."""


def grid_svg(
    squares: NDArray[np.int64],
    *,
    skewed: bool = False,
    shift: float | None = None,
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
        squares: integers [height, width], top row first: 0 empty, 1 the first player's stone, 2 the second player's, 3
            and 4 their crowned ones (kings), 5 a square that is blocked, -1 no square at all.
        skewed: each row lies half a square to the right of the one above (hexagonal boards).
        shift: how many squares it lies to the right; None: as ``skewed`` says.
        style: how it looks; None: hexagons where rows are shifted, else stones.
        rows: names of the rows, for the coordinates.
        columns: names of the columns.
        parts: names [height][width] of what a person clicks (see
            :class:`~keisei_lightning.games.protocol.ClickableGame`).
        last: squares of the last move.
        line: squares that won the game.
        mover: the seat to move, shown in the corner between the coordinates; None: nobody is.
        title: the picture in words.
    """
    shift = (0.5 if skewed else 0.0) if shift is None else shift
    style = style or ("hexagons" if shift else "stones")
    margin = 26 if rows or columns else 2
    cells = {"hexagons": Hexagons, "dots": Dots}.get(style, Cells)(style, squares, margin, shift)
    fill, stroke = cells.inks
    marks = [cells.mark(*square) for square in last]
    above = style in ("discs", "dots")  # a mark on the square would not be seen
    pieces = [cells.piece(*square, int(squares[square])) for square in cells.there if squares[square]]
    names = [label(name, *cells.row_label(row), 15) for row, name in enumerate(rows)]
    names += [label(name, *cells.column_label(column), 15) for column, name in enumerate(columns)]
    turn = [make_piece(style, mover, 13, 13, scale=0.5)] if mover is not None and (rows or columns) else []
    drawn = [cells.square(row, column, parts[row][column] if parts else None) for row, column in cells.there]
    layers = [
        cells.frame(),
        group("squares", drawn, fill=fill, stroke=stroke),
        group("last", [] if above else marks, pointer_events="none"),
        cells.lines(),
        group("pieces", pieces, pointer_events="none"),
        group("last", marks if above else [], pointer_events="none"),
        group("line", [make_ring(*cells.middle(*square)) for square in line], pointer_events="none"),
        group("coordinates", [name for name in names if name], fill="label", pointer_events="none"),
        group("mover", turn, pointer_events="none"),
    ]
    return picture(layers, width=cells.width, height=cells.height, title=title, shapes=cells.shapes)


def grid_text(
    squares: NDArray[np.int64],
    *,
    symbols: str = ".xoXO#",
    skewed: bool = False,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    last: Squares = (),
) -> str:
    """Draw stones on a board as text, the squares of the last move in brackets.

    Args:
        squares: integers [height, width], top row first, as for :func:`grid_svg`.
        symbols: one for each of the numbers from 0 that occur.
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
                gap[-1] = "[" if gap[-1] == " " else "|"
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
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="monospace" font-size="15" fill="#1c1712">\n<path d="M0 0H{width}V{height}H0Z" fill="#fdfcf9"/>\n'
        f"{rows}\n</svg>"
    )
