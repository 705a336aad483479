"""What can be said of a run in a line."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from keisei_lightning.results_folder.disk import DiskUse, disk_use
from keisei_lightning.results_folder.ending import Ending, State, how_it_ended, open_files_below
from keisei_lightning.results_folder.finding import find_runs
from keisei_lightning.results_folder.metrics import METRICS_FILE, newest_metrics
from keisei_lightning.results_folder.options_of_run import OPTIONS_FILE, read_sections
from keisei_lightning.training.metric_names import metric_name

__all__ = ["SCORE_PREFIX", "RunSummary", "summarize_run", "summarize_runs"]

SCORE_PREFIX = "eval/score_vs_"
_SECTIONS = ("env", "evaluation", "trainer")
_FILES = ("train.log", METRICS_FILE, "checkpoints/last.ckpt", "curves.png")
"""Files that a training writes until its end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """A run in a line; what is not known is None.

    Attributes:
        path: its folder.
        name: its folder as seen from the folder of all runs, such as ``shogi/2026-11-27_19-43-22-573933``.
        state: see :data:`~keisei_lightning.results_folder.ending.State`.
        reason: why it is in this state, in a line; may be empty.
        game: what it plays.
        started_s: when it began, in seconds since 1970.
        minutes: from its beginning to its newest file, or to its end.
        epochs: PPO iterations done, those before a resume included.
        max_epochs: that it was to do.
        plies: delivered, those before a resume included.
        plies_per_s: of the newest epoch.
        opponent: whom the score is against, as metrics name them.
        score: the newest one against the first opponent, from 0 to 1.
        rating: the newest one, in Elo; only with a ladder.
        disk: what its files take.
        problems: what could not be read, a line each.
    """

    path: Path
    name: str
    state: State
    reason: str = ""
    game: str | None = None
    started_s: float | None = None
    minutes: float | None = None
    epochs: int | None = None
    max_epochs: int | None = None
    plies: int | None = None
    plies_per_s: float | None = None
    opponent: str | None = None
    score: float | None = None
    rating: float | None = None
    disk: DiskUse = field(default_factory=DiskUse)
    problems: tuple[str, ...] = ()


def summarize_runs(folder: str | os.PathLike[str]) -> list[RunSummary]:
    """All runs below a folder, in the order in which they began.

    Args:
        folder: such as ``results``.
    """
    open_files = cache(lambda: open_files_below(folder))
    runs = [summarize_run(run, folder, open_files=open_files) for run in find_runs(folder)]
    return sorted(runs, key=lambda run: (run.started_s or 0.0, run.name))


def summarize_run(
    run: Path, folder: str | os.PathLike[str], *, open_files: Callable[[], set[str]] | None = None
) -> RunSummary:
    """Read a run.

    Args:
        run: its folder.
        folder: of all runs.
        open_files: files that processes have open; None: it is looked up where it matters.
    """
    problems: list[str] = []
    options = _told(problems, lambda: read_sections(run, _SECTIONS), {}, OPTIONS_FILE)
    opponent = _first_opponent(options)
    metrics = _metrics(run, opponent, problems)
    if opponent is None:
        names = (name for name in metrics if name.startswith(SCORE_PREFIX) and not name.endswith(("_low", "_high")))
        opponent = next((name.removeprefix(SCORE_PREFIX) for name in names), None)
    epochs = int(metrics["epoch"]) + 1 if "epoch" in metrics else None
    max_epochs = _whole(_section(options, "trainer").get("max_epochs"))
    ending = how_it_ended(
        run,
        is_complete=None not in (epochs, max_epochs) and (epochs or 0) >= (max_epochs or 0),
        open_files=open_files or (lambda: open_files_below(run)),
    )
    if ending.record is not None and ending.record.epochs is not None:
        epochs = max(epochs or 0, ending.record.epochs)
    started_s, ended_s = _times(run, ending)
    game = _section(options, "env").get("game")
    return RunSummary(
        path=run,
        name=os.path.relpath(run, folder),
        state=ending.state,
        reason=ending.reason,
        game=game if isinstance(game, str) else None,
        started_s=started_s,
        minutes=None if started_s is None or ended_s is None else max(0.0, (ended_s - started_s) / 60.0),
        epochs=epochs,
        max_epochs=max_epochs,
        plies=_whole(metrics.get("self_play/plies")),
        plies_per_s=metrics.get("self_play/plies_per_s"),
        opponent=opponent,
        score=metrics.get(f"{SCORE_PREFIX}{opponent}"),
        rating=metrics.get("eval/rating"),
        disk=disk_use(run),
        problems=tuple(problems),
    )


def _told(problems: list[str], read: Callable[[], Any], otherwise: Any, name: str) -> Any:
    """What a function reads; what it cannot read is told."""
    try:
        return read()
    except FileNotFoundError:
        return otherwise
    except OSError as error:
        problems.append(f"{name}: {error.strerror or error}")
    except ValueError as error:
        problems.append(" ".join(str(error).split()))
    return otherwise


def _metrics(run: Path, opponent: str | None, problems: list[str]) -> dict[str, float]:
    """The newest metrics; the score may be many epochs old, and the rating too, where there is one at all."""

    def has_all(found: dict[str, float]) -> bool:
        scored = f"{SCORE_PREFIX}{opponent}" in found or f"{SCORE_PREFIX}{opponent}_low" in found
        return scored and "self_play/plies" in found and "epoch" in found

    return dict(_told(problems, lambda: newest_metrics(run / METRICS_FILE, until=has_all), {}, METRICS_FILE))


def _first_opponent(options: dict[str, Any]) -> str | None:
    opponents = _section(options, "evaluation").get("opponents")
    first = opponents[0] if isinstance(opponents, list) and opponents else opponents
    return metric_name(first) if isinstance(first, str) else None


def _section(options: dict[str, Any], name: str) -> dict[str, Any]:
    section = options.get(name)
    return section if isinstance(section, dict) else {}


def _whole(value: Any) -> int | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return int(value) if is_number else None


def _times(run: Path, ending: Ending) -> tuple[float | None, float | None]:
    """When the run began and when it ended, or wrote last."""
    record = ending.record
    written = [time for name in _FILES if (time := _modified(run / name)) is not None]
    began = record.started_s if record is not None else _modified(run / OPTIONS_FILE)
    if began is None:
        began = min(written, default=None)
    ended = record.ended_s if record is not None and record.ended_s is not None else max(written, default=began)
    return began, ended


def _modified(file: Path) -> float | None:
    try:
        return os.lstat(file).st_mtime
    except OSError:
        return None
