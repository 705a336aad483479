"""The openings of a policy as a tree, from left to right."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keisei_lightning.analysis.openings import Opening
from keisei_lightning.training.picture_style import COLOURS, GREY, new_figure

__all__ = ["draw_openings"]


def draw_openings(root: Opening, *, name: str) -> Figure:
    """Draw a tree: each move with its probability in its position; lines are as thick as they are probable.

    Args:
        root: of the tree.
        name: of the run.
    """
    rows, depth = _leaves(root), max(1, _depth(root))
    figure = new_figure(max(6.0, 2.2 * (depth + 1)), max(3.0, 0.32 * rows + 1.0))
    axes = figure.subplots()
    axes.set_title(
        f"{name}\nopenings: the policy's first {depth} plies, with the probability of each move", fontsize=10
    )
    _draw(axes, root, 0, 0.0)
    axes.set_xlim(-0.2, depth + 0.7)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xticks(range(depth + 1), ["start", *(str(ply) for ply in range(1, depth + 1))])
    axes.set_xlabel("ply")
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _leaves(node: Opening) -> int:
    """Rows that a node takes."""
    return sum(map(_leaves, node.replies)) or 1


def _depth(node: Opening) -> int:
    return 1 + max(map(_depth, node.replies)) if node.replies else 0


def _middles(node: Opening, top: float) -> Iterator[tuple[Opening, float, float]]:
    """Replies with their first row and the row of their middle."""
    for reply in node.replies:
        yield reply, top, top + (_leaves(reply) - 1) / 2
        top += _leaves(reply)


def _draw(axes: Axes, node: Opening, depth: int, top: float) -> None:
    y = top + (_leaves(node) - 1) / 2
    for reply, first, middle in _middles(node, top):
        width = 0.5 + 5.0 * reply.reach
        axes.plot(
            [depth, depth + 1], [y, middle], color=COLOURS[0], linewidth=width, alpha=0.45, solid_capstyle="round"
        )
        _draw(axes, reply, depth + 1, first)
    label = f"{node.move} {node.share:.0%}" if node.move else "start"
    axes.plot([depth], [y], marker="o", markersize=3, color=GREY)
    axes.text(depth + 0.04, y - 0.12, label, fontsize=8, va="bottom")
    if node.replies and node.others:
        axes.text(depth + 0.04, y + 0.12, f"{node.others} more", fontsize=6, va="top", color=GREY)
