"""``keisei runs list`` and ``keisei runs disk``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict

from keisei_lightning.commands.runs.options import DiskOptions, ListOptions
from keisei_lightning.commands.runs.text import columns, count, date, number, print_json, print_lines, share, size
from keisei_lightning.commands.runs.text import to_json as summary_to_json
from keisei_lightning.errors import ConfigError
from keisei_lightning.results_folder import RunSummary, disk_use, find_runs, summarize_runs

__all__ = ["disk_runs", "list_runs"]

_HEADING = ("began", "state", "epochs", "plies", "score", "against", "rating", "minutes", "disk", "run")


def list_runs(options: ListOptions) -> None:
    """Print a line for each run.

    Raises:
        ConfigError: there is no such folder.
    """
    _check_folder(options)
    runs = summarize_runs(options.root)
    if options.json:
        print_json([summary_to_json(run) for run in runs])
    elif not runs:
        print_lines([f"no runs in {options.folder}"])
    else:
        print_lines(columns([_HEADING, *map(_cells, runs)], left=(0, 1, 5, 9)))
        print_lines([line for run in runs for line in _notes(run)])


def _cells(run: RunSummary) -> tuple[str, ...]:
    epochs = "-" if run.epochs is None else f"{run.epochs}/{count(run.max_epochs)}"
    return (
        date(run.started_s),
        run.state,
        epochs,
        count(run.plies),
        share(run.score),
        "" if run.score is None else run.opponent or "",
        number(run.rating),
        number(run.minutes, 1),
        size(run.disk.total),
        run.name,
    )


def _notes(run: RunSummary) -> Iterator[str]:
    if run.state in ("stopped", "failed", "crashed", "unknown") and run.reason:
        yield f"{run.name}: {run.state}: {run.reason}"
    yield from (f"{run.name}: {problem}" for problem in run.problems)


def disk_runs(options: DiskOptions) -> None:
    """Print what each run takes of the disk, the largest last.

    Raises:
        ConfigError: there is no such folder.
    """
    _check_folder(options)
    uses = {run.relative_to(options.root).as_posix(): disk_use(run) for run in find_runs(options.root)}
    free = shutil.disk_usage(options.root).free
    if options.json:
        runs = [{"name": name, "total": use.total, **asdict(use)} for name, use in uses.items()]
        print_json({"runs": runs, "free": free})
        return
    rows = [("checkpoints", "logs", "rest", "all", "run")]
    for name, use in sorted(uses.items(), key=lambda item: item[1].total):
        rows.append((size(use.checkpoints), size(use.logs), size(use.rest), size(use.total), name))
    total = sum(use.total for use in uses.values())
    lines = columns(rows, left=(4,)) if uses else []
    runs_word = "run" if len(uses) == 1 else "runs"
    print_lines([*lines, f"{len(uses)} {runs_word} in {options.folder}: {size(total)}; free on its disk: {size(free)}"])


def _check_folder(options: ListOptions | DiskOptions) -> None:
    if not options.root.is_dir():
        raise ConfigError(f"folder={options.folder}: there is no such folder")
