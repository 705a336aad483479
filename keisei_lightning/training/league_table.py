"""What a league leaves to look at: who scored what against whom, and ratings over time, as a table and a picture.

A row of the table is the learner in one *period*, from one snapshot to the next; a column is an opponent. The learner
of a period is rated as the snapshot that it became, so that rows and columns are connected: ratings are those of
Bradley and Terry (:mod:`keisei_lightning.evaluation.bradley_terry`), on Elo's scale. The learner changes within a
period, and plays with exploration, so that they are no substitute for matches (``keisei eval``).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from keisei_lightning.evaluation.bradley_terry import fit_without_bias
from keisei_lightning.training.files import write_whole

__all__ = ["LEARNER_NAME", "LeagueTable", "Period", "draw_league"]

LEARNER_NAME = "learner"
"""The name of the period that has not ended."""

_ELO = 400.0 / math.log(10.0)
_ANCHOR = "random"
_SHOWN = 24  # periods and opponents in the picture: the newest ones
_LONGEST_NAME = 32  # characters in the picture: an engine's name has its command in it
_COLUMNS = ("period", "epoch", "plies", "opponent", "wins", "draws", "losses", "void", "score", "elo", "opponent_elo")


@dataclass(kw_only=True, slots=True)
class Period:
    """The learner between two snapshots.

    Attributes:
        name: of the snapshot that it became.
        epoch: PPO iterations at its end.
        plies: delivered until then.
        results: its wins, draws, losses and games without a result, by the opponent's name.
    """

    name: str
    epoch: int
    plies: int
    results: dict[str, list[int]] = field(default_factory=dict)


class LeagueTable:
    """All periods of a run.

    Attributes:
        periods: that have ended, in their order.
    """

    def __init__(self) -> None:
        self.periods: list[Period] = []
        self._before: dict[str, list[int]] = {}  # totals at the start of the present period

    def present(self, totals: Mapping[str, Sequence[int]], *, epoch: int, plies: int) -> Period:
        """The period that has not ended.

        Args:
            totals: of all periods: wins, draws, losses and games without a result, by the opponent's name.
            epoch: PPO iterations until now.
            plies: delivered until now.
        """
        results = {
            name: [new - old for new, old in zip(counts, self._before.get(name, [0] * 4), strict=True)]
            for name, counts in totals.items()
        }
        met = {name: counts for name, counts in results.items() if any(counts)}
        return Period(name=LEARNER_NAME, epoch=epoch, plies=plies, results=met)

    def end(self, period: Period, name: str, totals: Mapping[str, Sequence[int]]) -> None:
        """End the present period: the learner becomes a snapshot of this name."""
        period.name = name
        self.periods.append(period)
        self._before = {opponent: list(counts) for opponent, counts in totals.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and text."""
        return {"periods": [asdict(period) for period in self.periods], "before": self._before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a :meth:`state_dict`."""
        self.periods = [Period(**period) for period in state["periods"]]
        self._before = {name: list(counts) for name, counts in state["before"].items()}

    def rate(self, present: Period) -> dict[str, float]:
        """Elo of every period and opponent that games connect with the newest period.

        ``random`` is 0, or else the first opponent that was ever met.

        Args:
            present: the period that has not ended.
        """
        periods = [period for period in (*self.periods, present) if _games(period)]
        if not periods:
            return {}
        opponents = list(dict.fromkeys(name for period in periods for name in period.results))
        names = list(dict.fromkeys([*(period.name for period in periods), *opponents]))
        points = np.zeros((len(names), len(names)))
        for period in periods:
            row = names.index(period.name)
            for name, (wins, draws, losses, _) in period.results.items():
                column = names.index(name)
                points[row, column] += wins + draws / 2
                points[column, row] += losses + draws / 2
        connected = _connected(points + points.T, names.index(periods[-1].name))
        names = [name for name, is_in in zip(names, connected, strict=True) if is_in]
        anchor = names.index(_ANCHOR if _ANCHOR in names else next(name for name in opponents if name in names))
        strengths = _ELO * fit_without_bias(points[np.ix_(connected, connected)], anchor)
        return dict(zip(names, strengths.tolist(), strict=True))

    def write(self, folder: Path, present: Period) -> list[Path]:
        """Write ``league.csv`` and ``league.png``, each whole; nothing before the first game.

        Args:
            folder: where to; made if need be.
            present: the period that has not ended.

        Returns:
            The files.

        Raises:
            OSError: one cannot be written; what was there is as it was.
        """
        periods = [period for period in (*self.periods, present) if _games(period)]
        if not periods:
            return []
        ratings = self.rate(present)
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / "league.csv", folder / "league.png"]
        write_whole(files[0], _as_csv(periods, ratings).encode())
        write_whole(files[1], _as_png(periods, ratings))
        return files


def _games(period: Period) -> int:
    """Games with a result."""
    return sum(sum(counts[:3]) for counts in period.results.values())


def _connected(games: NDArray[np.float64], start: int) -> NDArray[np.bool_]:
    """Bool [n]: who is connected with a player, directly or through others."""
    reached: NDArray[np.bool_] = np.arange(len(games)) == start
    for _ in range(len(games)):
        reached = reached | (games[reached] > 0).any(axis=0)
    return reached


def _score(counts: Sequence[int]) -> float:
    """Points per game with a result; NaN without one."""
    wins, draws, losses, _ = counts
    games = wins + draws + losses
    return (wins + draws / 2) / games if games else math.nan


def _as_csv(periods: Sequence[Period], ratings: Mapping[str, float]) -> str:
    def rounded(number: float | None, digits: int) -> str:
        return "" if number is None or math.isnan(number) else f"{number:.{digits}f}"

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for period in periods:
        for name, counts in period.results.items():
            elos = (rounded(ratings.get(each), 1) for each in (period.name, name))
            writer.writerow([period.name, period.epoch, period.plies, name, *counts, rounded(_score(counts), 4), *elos])
    return text.getvalue()


def draw_league(periods: Sequence[Period], ratings: Mapping[str, float]) -> Figure:
    """Draw who scored what against whom, and ratings over time.

    Args:
        periods: in their order, each with games.
        ratings: Elo by the name of a period or of an opponent; who is not rated is left out.
    """
    figure = Figure(figsize=(15, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    payoff, elo = figure.subplots(1, 2)
    _draw_payoff(payoff, periods[-_SHOWN:])
    _draw_elo(elo, periods, ratings)
    return figure


def _as_png(periods: Sequence[Period], ratings: Mapping[str, float]) -> bytes:
    figure = draw_league(periods, ratings)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    return picture.getvalue()


def _draw_payoff(axes: Axes, periods: Sequence[Period]) -> None:
    names = list(dict.fromkeys(name for period in periods for name in period.results))[-_SHOWN:]
    scores = np.array([[_score(period.results.get(name, [0] * 4)) for name in names] for period in periods])
    axes.set_title("points per game of the learner, by period and opponent")
    picture = axes.imshow(scores, vmin=0.0, vmax=1.0, cmap="RdYlGn", aspect="auto")
    axes.set_xticks(range(len(names)), [_shortened(name) for name in names], rotation=90, fontsize=7)
    axes.set_yticks(range(len(periods)), [period.name for period in periods], fontsize=7)
    axes.figure.colorbar(picture, ax=axes, shrink=0.6)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _draw_elo(axes: Axes, periods: Sequence[Period], ratings: Mapping[str, float]) -> None:
    rated = [period for period in periods if period.name in ratings]
    own = {period.name for period in periods}
    axes.set_title("Elo of the learner, by period")
    axes.plot([period.plies for period in rated], [ratings[period.name] for period in rated], marker="o", markersize=3)
    for name, rating in ratings.items():
        if name not in own:
            axes.axhline(rating, color="0.6", linewidth=0.8, linestyle=":")
            axes.annotate(_shortened(name), (0.01, rating), xycoords=("axes fraction", "data"), fontsize=7, va="bottom")
    axes.set_xlabel("plies")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
