"""Curves of several runs in one picture: scores, ratings, losses, entropy, speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter
from numpy.typing import NDArray

from keisei_lightning.training.picture_style import COLOURS, GREY, new_figure, tidy

__all__ = ["CurvesOfRun", "draw_curves"]

_SCORE: Final = "eval/score_vs_"
_RATING: Final = "eval/rating"
_MOST_POINTS: Final = 400  # of a line; more make a picture heavy and no clearer
_STYLES: Final = ("-", "--", ":", "-.")

_PANELS: Final = (
    ("policy loss", "loss", "train/loss_objective"),
    ("value loss", "loss", "train/loss_critic"),
    ("explained variance of the value", "share", "train/explained_variance"),
    ("entropy of the policy", "nats", "train/entropy"),
    ("game length", "plies", "self_play/game_length_mean"),
    ("collected", "plies/s", "self_play/plies_per_s"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvesOfRun:
    """The metrics of a run.

    Attributes:
        name: in the legend.
        history: a mapping of metric names to numbers for each epoch.
        x: float64, where each of these is drawn; NaN: nowhere.
    """

    name: str
    history: Sequence[Mapping[str, float]]
    x: NDArray[np.float64]

    def points(self, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the metric is, and what it is there."""
        y = np.array([row.get(metric, np.nan) for row in self.history], dtype=np.float64)
        is_there = np.isfinite(self.x) & np.isfinite(y)
        return self.x[is_there], y[is_there]

    def opponents(self) -> list[str]:
        """Whom scores are against."""
        names = dict.fromkeys(name for row in self.history for name in row if name.startswith(_SCORE))
        return sorted(name.removeprefix(_SCORE) for name in names if not name.endswith(("_low", "_high")))


def draw_curves(runs: Sequence[CurvesOfRun], *, x_label: str) -> Figure:
    """Draw runs over each other: a colour for each run, a line style for each opponent.

    Args:
        runs: in the order of the legend.
        x_label: what all are drawn over, with its unit.
    """
    figure = new_figure(17, 8)
    panels = figure.subplots(2, 4).flatten()
    _draw_scores(panels[0], runs)
    _draw_ratings(panels[1], runs)
    for axes, (title, unit, metric) in zip(panels[2:], _PANELS, strict=True):
        axes.set_title(title)
        axes.set_ylabel(unit)
        for place, run in enumerate(runs):
            x, y = _thinned(*run.points(metric))
            axes.plot(x, y, color=_colour(place), linewidth=1.1)
        if unit.startswith("plies"):
            axes.set_ylim(bottom=0.0)
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in panels:
        tidy(axes)
        axes.set_xlabel(x_label)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if not axes.lines:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.text(0.5, 0.5, "no figures", transform=axes.transAxes, ha="center", color=GREY)
    lines = [panels[0].plot([], [], color=_colour(place), label=run.name)[0] for place, run in enumerate(runs)]
    figure.legend(handles=lines, loc="outside lower center", ncols=min(3, len(lines)), frameon=False, fontsize=9)
    return figure


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _draw_scores(axes: Axes, runs: Sequence[CurvesOfRun]) -> None:
    axes.set_title("score (wins + draws / 2), 95 % interval")
    axes.set_ylabel("points per game")
    opponents = list(dict.fromkeys(name for run in runs for name in run.opponents()))
    styles = {name: _STYLES[place % len(_STYLES)] for place, name in enumerate(opponents)}
    for place, run in enumerate(runs):
        for name in run.opponents():
            x, y = run.points(f"{_SCORE}{name}")
            axes.plot(x, y, styles[name], color=_colour(place), linewidth=1.2, marker="o", markersize=2.5)
            low_x, low = run.points(f"{_SCORE}{name}_low")
            _, high = run.points(f"{_SCORE}{name}_high")
            if len(low) == len(high):
                axes.fill_between(low_x, low, high, color=_colour(place), alpha=0.15, linewidth=0)
    for name, style in styles.items():
        axes.plot([], [], style, color=GREY, label=f"against {name}")
    axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_ylim(0.0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if styles:
        axes.legend(frameon=False, fontsize=8)


def _draw_ratings(axes: Axes, runs: Sequence[CurvesOfRun]) -> None:
    axes.set_title("rating, 95 % interval")
    axes.set_ylabel("Elo")
    for place, run in enumerate(runs):
        x, y = run.points(_RATING)
        if len(x):
            axes.plot(x, y, color=_colour(place), marker="o", markersize=2.5, linewidth=1.2)
        low_x, low = run.points(f"{_RATING}_low")
        _, high = run.points(f"{_RATING}_high")
        if len(low) == len(high):
            axes.fill_between(low_x, low, high, color=_colour(place), alpha=0.15, linewidth=0)


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most so many points, each the mean of equally many epochs (the last one of the rest)."""
    step = -(-len(x) // _MOST_POINTS)
    if step <= 1:
        return x, y
    begins = np.arange(0, len(x), step)
    counts = np.diff(np.append(begins, len(x)))
    return np.add.reduceat(x, begins) / counts, np.add.reduceat(y, begins) / counts
