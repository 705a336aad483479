"""The calibration of a value as a picture: what came, over what was expected."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from keisei_lightning.evaluation.calibration import Calibration
from keisei_lightning.training.picture_style import COLOURS, GREY, new_figure, tidy

__all__ = ["draw_calibration"]


def draw_calibration(calibration: Calibration, *, name: str) -> Figure:
    """Draw the bins with their intervals above a histogram of how often each is expected.

    Args:
        calibration: of a network.
        name: of the run.
    """
    figure = new_figure(6.5, 7.5)
    score, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    bins = calibration.bins
    x, y = [one.predicted for one in bins], [one.actual for one in bins]
    below = [one.actual - one.low for one in bins]
    above = [one.high - one.actual for one in bins]
    score.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="calibrated")
    score.errorbar(x, y, yerr=(below, above), color=COLOURS[0], marker="o", capsize=3, label="of the positions, 95 %")
    score.set_title(
        f"{name}\ncalibration of the value: {calibration.positions:,} positions of {calibration.games:,} games,\n"
        f"mean distance {calibration.error:.1%}, Brier score {calibration.brier:.3f}",
        fontsize=10,
    )
    score.set_ylabel("actual points per game of the mover")
    score.set_ylim(-0.02, 1.02)
    score.legend(frameon=False, fontsize=8, loc="upper left")
    counts.bar(x, [one.positions for one in bins], width=0.06, color=COLOURS[0], alpha=0.7)
    counts.set_ylabel("positions")
    counts.yaxis.set_major_formatter(EngFormatter(sep=""))
    counts.set_xlabel("expected points per game of the mover")
    counts.set_xlim(-0.02, 1.02)
    counts.xaxis.set_major_formatter(PercentFormatter(1.0))
    score.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in (score, counts):
        tidy(axes)
    return figure
