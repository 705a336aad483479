"""``keisei runs show``."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keisei_lightning.commands.runs.options import ShowOptions
from keisei_lightning.commands.runs.resuming import command_of, resume_line
from keisei_lightning.commands.runs.scores import best_scores
from keisei_lightning.commands.runs.text import (
    columns,
    count,
    date,
    number,
    print_json,
    print_lines,
    share,
    size,
    to_json,
)
from keisei_lightning.errors import ConfigError
from keisei_lightning.results_folder import RunSummary, read_options, resolve_run, summarize_run

__all__ = ["show_runs"]


def show_runs(options: ShowOptions) -> None:
    """Print all that a run's folder tells.

    Raises:
        ConfigError: there is no such run.
    """
    path = resolve_run(options.runs[0], options.root)
    run = summarize_run(path, options.root)
    scores = best_scores(path)
    if options.json:
        print_json({**to_json(run), "scores": {name: asdict(best) for name, best in scores.items()}})
        return
    rows = [*_rows(run), *((name, str(best)) for name, best in scores.items()), *_words(path)]
    rows += [("problem", problem) for problem in run.problems]
    cells = [(name, str(value)) for name, value in rows if value not in (None, "")]
    print_lines([run.name, *columns(cells, left=(0, 1))])


def _rows(run: RunSummary) -> list[tuple[str, Any]]:
    epochs = None if run.epochs is None else f"{run.epochs} of {count(run.max_epochs)}"
    disk = f"{size(run.disk.total)} (checkpoints {size(run.disk.checkpoints)}, logs {size(run.disk.logs)})"
    return [
        ("state", f"{run.state}: {run.reason}" if run.reason else run.state),
        ("folder", run.path),
        ("game", run.game),
        ("network", _network(run.path)),
        ("began", date(run.started_s)),
        ("minutes", number(run.minutes, 1)),
        ("epochs", epochs),
        ("plies", None if run.plies is None else count(run.plies)),
        ("plies/s", None if run.plies_per_s is None else number(run.plies_per_s)),
        ("score", None if run.score is None else f"{share(run.score)} against {run.opponent}"),
        ("rating", None if run.rating is None else f"{run.rating:.0f} Elo"),
        ("disk", disk),
    ]


def _network(path: Path) -> str | None:
    """Section ``model`` of its options, in a line."""
    try:
        model = read_options(path).get("model")
    except (OSError, ValueError):
        return None
    if not isinstance(model, dict):
        return None
    return ", ".join(f"{key}={value}" for key, value in model.items() if key != "_target_")[:200]


def _words(path: Path) -> list[tuple[str, Any]]:
    """What began the run, what is in its folder, and what resumes it."""
    try:
        began = shlex.join(command_of(path))
    except ConfigError:
        began = ""
    try:
        resume = resume_line(path)
    except ConfigError as error:
        resume = f"not possible: {error.errors[0]}"
    with os.scandir(path) as entries:
        files = sorted(entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in entries)
    return [("command", began), ("files", ", ".join(files)), ("resume with", resume)]
