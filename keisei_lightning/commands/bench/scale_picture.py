"""The model of scale as a picture: plies/s, the learner's share, traffic and lag over the number of nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from keisei_lightning.commands.bench.scale_model import Cluster, Prediction, ScaleModel
from keisei_lightning.parallel.options import Schedule

__all__ = ["draw_scale"]

_GREY = "#808080"
_COLOURS = ("#3b8fd4", "#d9730d", "#2f9e5f", "#c2529c", "#8a7fd0")
"""Of middle brightness, as the grey of text and axes is: they can be read on white and on black."""

_LINES: Mapping[Schedule, str] = {"sync": "--", "async": "-"}
_POINTS = 61
_MEGA = 1e6


def draw_scale(
    file: Path, model: ScaleModel, clusters: Mapping[int, Cluster], schedules: Sequence[Schedule], most_nodes: int
) -> None:
    """Draw the model, without a background.

    Args:
        file: an SVG; its folder must be there.
        model: whose predictions are drawn.
        clusters: one for each number of learner ranks; their own numbers of nodes do not matter.
        schedules: that are drawn.
        most_nodes: where the lines end.
    """
    nodes = np.unique(np.geomspace(1, max(2, most_nodes), _POINTS).round().astype(int)).tolist()
    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    rate, share, traffic, lag = figure.subplots(2, 2).flat

    def draw(axes: Axes, value: Callable[[Prediction], float]) -> None:
        for colour, (ranks, cluster) in zip(_COLOURS * len(clusters), clusters.items(), strict=False):
            for schedule in schedules:
                predicted = [model.predict(replace(cluster, nodes=number), schedule) for number in nodes]
                label = f"{schedule}, {ranks} rank{'s' if ranks > 1 else ''}"
                axes.plot(nodes, [value(one) for one in predicted], _LINES[schedule], color=colour, label=label)

    draw(rate, lambda predicted: predicted.plies_per_s)
    _decorate(rate, "plies/s, collected and learned from", is_log=True)
    draw(share, lambda predicted: 100 * predicted.learner_share)
    _decorate(share, "% of the time in which the learner learns")
    share.set_ylim(0, 103)
    draw(traffic, lambda predicted: max(predicted.rollouts_bytes_per_s, predicted.weights_bytes_per_s) / _MEGA)
    traffic.axhline(model.network.bytes_per_s / _MEGA, color=_GREY, linewidth=0.8)
    _decorate(traffic, "MB/s at a learner's card, busier direction; grey: its most", is_log=True)
    draw(lag, lambda predicted: predicted.policy_lag * predicted.steps_per_publish)
    _decorate(lag, "optimiser steps that a rollout is behind")
    lag.set_yscale("symlog", linthresh=1)
    lag.set_ylim(bottom=-0.1)
    rate.legend(frameon=False, labelcolor=_GREY, fontsize=8)
    # A hash without salt and no date: the same numbers give the same file.
    with mpl.rc_context({"svg.hashsalt": "keisei"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})


def _decorate(axes: Axes, title: str, *, is_log: bool = False) -> None:
    axes.set_title(title, color=_GREY, fontsize=10)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("nodes", color=_GREY, fontsize=9)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.tick_params(which="both", colors=_GREY, labelsize=8)
    axes.grid(color=_GREY, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
