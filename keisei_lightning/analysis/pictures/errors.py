"""Where a policy errs as a picture: mistakes by ply, and by what they cost."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from keisei_lightning.analysis.mistakes import KINDS, Mistakes
from keisei_lightning.training.picture_style import COLOURS, GREY, new_figure, tidy

__all__ = ["draw_errors"]


def draw_errors(mistakes: Mistakes, *, name: str) -> Figure:
    """Draw mistakes as shares of the moves at which one was possible, and how many moves were graded.

    Args:
        mistakes: of a policy's games.
        name: of the run.
    """
    figure = new_figure(11, 6.5)
    by_ply, by_kind = figure.subplots(1, 2, width_ratios=(3, 1))
    plies = sorted({*mistakes.graded, *mistakes.unknown})
    possible = np.array([mistakes.could_err[ply] for ply in plies], dtype=np.float64)
    bottom = np.zeros(len(plies))
    for colour, kind in zip(COLOURS, KINDS, strict=False):
        counts = np.array([mistakes.by_kind[kind][ply] for ply in plies], dtype=np.float64)
        shares = np.divide(counts, possible, out=np.zeros_like(counts), where=possible > 0)
        by_ply.bar(plies, shares, bottom=bottom, color=colour, width=0.8, label=kind)
        bottom += shares
    ungraded = [ply for ply in plies if not mistakes.graded[ply]]
    if ungraded:
        by_ply.axvspan(min(ungraded) - 0.5, max(ungraded) + 0.5, color=GREY, alpha=0.12, label="no move was graded")
    graded, unknown = mistakes.graded.total(), mistakes.unknown.total()
    figure.suptitle(
        f"{name}\nmistakes against perfect play: {mistakes.total:,} in {graded:,} graded moves "
        f"({mistakes.could_err.total():,} at which one was possible; {unknown:,} were not graded)",
        fontsize=10,
    )
    by_ply.set_xlabel("ply of the game")
    by_ply.set_ylabel("mistakes, of the moves at which one was possible")
    by_ply.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    by_ply.legend(frameon=False, fontsize=8)
    totals = [mistakes.by_kind[kind].total() for kind in KINDS]
    bars = by_kind.bar([kind.replace(" to ", "\nto ") for kind in KINDS], totals, color=COLOURS[: len(KINDS)])
    by_kind.bar_label(bars, fontsize=8)
    by_kind.set_ylabel("mistakes")
    for axes in (by_ply, by_kind):
        tidy(axes)
    return figure
