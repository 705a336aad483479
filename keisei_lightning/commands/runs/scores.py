"""Newest and best scores of a run, from its metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from keisei_lightning.commands.runs.text import share
from keisei_lightning.results_folder import read_history
from keisei_lightning.results_folder.metrics import METRICS_FILE
from keisei_lightning.results_folder.summary import SCORE_PREFIX

__all__ = ["RATING", "Best", "best_scores", "history_of"]

RATING = "eval/rating"


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """The newest and the highest value of a score or a rating.

    Attributes:
        newest: of all evaluations.
        best: of all evaluations; the first of equals.
        best_epoch: after how many epochs.
        is_rating: in Elo; else from 0 to 1.
    """

    newest: float
    best: float
    best_epoch: int
    is_rating: bool = False

    def __str__(self) -> str:
        shown = (lambda value: f"{value:.0f} Elo") if self.is_rating else share
        return f"newest {shown(self.newest)}, best {shown(self.best)} after {self.best_epoch} epochs"


def history_of(run: Path) -> list[dict[str, float]]:
    """All metrics of a run; nothing where there are none that can be read.

    Args:
        run: its folder.
    """
    try:
        return read_history(run / METRICS_FILE)
    except (OSError, ValueError):
        return []


def best_scores(run: Path) -> dict[str, Best]:
    """By what it is against, such as ``score against random``; a rating is ``rating``.

    Args:
        run: its folder.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    for row in history_of(run):
        for name, value in row.items():
            is_score = name.startswith(SCORE_PREFIX) and not name.endswith(("_low", "_high"))
            if is_score or name == RATING:
                series.setdefault(name, []).append((value, row.get("epoch", -1.0) + 1))
    found = {}
    for name, values in series.items():
        best, epoch = max(values, key=lambda pair: pair[0])
        label = "rating" if name == RATING else f"score against {name.removeprefix(SCORE_PREFIX)}"
        found[label] = Best(newest=values[-1][0], best=best, best_epoch=int(epoch), is_rating=name == RATING)
    return found
