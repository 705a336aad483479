"""Shogi for people: diagrams as text and SVG. Records are in :mod:`keisei_lightning.games.shogi.kifu`."""

from __future__ import annotations

from rsshogi.core import Board

from keisei_lightning.games.protocol import RenderFormat

__all__ = ["diagram"]


def diagram(board: Board, *, status: str, format: RenderFormat) -> str:
    """Draw a position.

    Args:
        board: the position.
        status: a line below the text diagram.
        format: ``"text"`` (the usual Japanese diagram, readable by shogi programs) or ``"svg"``.
    """
    if format == "svg":
        return str(board.to_svg(board.last_move()))
    return f"{board.to_bod().rstrip()}\n{status}"
