"""What all pictures have in common: how they look, and how a file is written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keisei_lightning.training.files import write_whole

__all__ = ["COLOURS", "GREY", "new_figure", "save", "tidy"]

GREY: Final = "#808080"
COLOURS: Final = ("#3b8fd4", "#d9730d", "#2f9e5f", "#c2529c", "#8a7fd0", "#a58a2f", "#c0392b", "#4aa7a7")
"""Of middle brightness: they can be told apart on white and on black."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; no display and no global state is used.

    Args:
        width: in inches.
        height: in inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes) -> None:
    """A light grid, and no frame above and at the right."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, file: Path) -> Path:
    """Write a figure whole; the same figure gives the same file.

    Args:
        figure: to write.
        file: whose name ends with .svg or .png; its folder is made if need be.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    picture = io.BytesIO()
    kind = file.suffix.removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "keisei"}):  # text stays text
        figure.savefig(picture, format=kind, dpi=110, metadata=metadata)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, picture.getvalue())
    return file
