"""Plain SVG pictures for any game: boards with stones, and text."""

from __future__ import annotations

from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["grid_svg", "text_svg"]

_CELL: Final = 40
_FILL: Final = {1: "#1f2933", 2: "#f7f3e8"}  # the first player is dark, as black or sente is


def grid_svg(squares: NDArray[np.int64], *, skewed: bool = False) -> str:
    """Draw stones on a board.

    Args:
        squares: integers [height, width], top row first: 0 empty, 1 the first player's stone, 2 the second player's.
        skewed: shift each row by half a square to the right of the one above (hexagonal boards).
    """
    height, width = squares.shape
    shift = _CELL // 2 if skewed else 0
    total_width = width * _CELL + (height - 1) * shift
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total_width + 2}" height="{height * _CELL + 2}" '
        f'viewBox="-1 -1 {total_width + 2} {height * _CELL + 2}">'
    ]
    for row in range(height):
        for column in range(width):
            x, y = column * _CELL + row * shift, row * _CELL
            parts.append(f'<rect x="{x}" y="{y}" width="{_CELL}" height="{_CELL}" fill="#d9b97c" stroke="#6b4f1d"/>')
            stone = int(squares[row, column])
            if stone:
                parts.append(
                    f'<circle cx="{x + _CELL // 2}" cy="{y + _CELL // 2}" r="{_CELL * 2 // 5}" '
                    f'fill="{_FILL[stone]}" stroke="#1f2933"/>'
                )
    return "\n".join([*parts, "</svg>"])


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
