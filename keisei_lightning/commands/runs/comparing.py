"""``keisei runs compare``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keisei_lightning.commands.runs.options import CompareOptions
from keisei_lightning.commands.runs.scores import best_scores, history_of
from keisei_lightning.commands.runs.text import columns, count, number, print_json, print_lines, share, to_json
from keisei_lightning.results_folder import (
    RunSummary,
    different_options,
    flattened,
    read_options,
    resolve_run,
    summarize_run,
)
from keisei_lightning.system.options import spelled

__all__ = ["compare_runs"]


def compare_runs(options: CompareOptions) -> None:
    """Print runs beside each other.

    Raises:
        ConfigError: there is no such run.
    """
    paths = [resolve_run(word, options.root) for word in options.runs]
    runs = [summarize_run(path, options.root) for path in paths]
    configured, problems = _options_of(paths)
    different = different_options(configured)
    speeds = [_speed(path) for path in paths]
    scores = [best_scores(path) for path in paths]
    if options.json:
        content = [
            {
                **to_json(run),
                "median_plies_per_s": speed,
                "scores": {name: asdict(best) for name, best in own.items()},
            }
            for run, speed, own in zip(runs, speeds, scores, strict=True)
        ]
        print_json({"runs": content, "different_options": different, "problems": problems})
        return
    letters = [_letter(place) for place in range(len(runs))]
    print_lines([f"{letter}  {run.name}" for letter, run in zip(letters, runs, strict=True)])
    rows = [("", *letters), *_facts(runs, speeds)]
    for name in dict.fromkeys(name for own in scores for name in own):
        found = [own.get(name) for own in scores]
        for what in ("newest", "best"):
            values = [None if one is None else float(getattr(one, what)) for one in found]
            shown = [number(value) if name == "rating" else share(value) for value in values]
            rows.append((f"{name}, {what}", *shown))
    print_lines(["", *columns(rows, left=(0,))])
    if different:
        cells = [(name, *(_cell(value) for value in values)) for name, values in different.items()]
        print_lines(["", *columns([("options that differ", *letters), *cells], left=(0,))])
    else:
        print_lines(["", "no option differs"])
    print_lines([f"{letters[place]}: {problem}" for place, problem in problems.items()])


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else f"R{place + 1}"


def _facts(runs: Sequence[RunSummary], speeds: Sequence[float | None]) -> list[tuple[str, ...]]:
    return [
        ("state", *(run.state for run in runs)),
        ("game", *(run.game or "-" for run in runs)),
        ("epochs", *(count(run.epochs) for run in runs)),
        ("plies", *(count(run.plies) for run in runs)),
        ("minutes", *(number(run.minutes, 1) for run in runs)),
        ("plies/s, median epoch", *(number(speed) for speed in speeds)),
    ]


def _speed(path: Path) -> float | None:
    """Plies per second, the median over all epochs: the first ones begin with the start of workers."""
    speeds = [row["self_play/plies_per_s"] for row in history_of(path) if "self_play/plies_per_s" in row]
    return statistics.median(speeds) if speeds else None


def _options_of(paths: Sequence[Path]) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """The options of each run, and why those of a run cannot be read, by its place."""
    found, problems = [], {}
    for place, path in enumerate(paths):
        try:
            options = read_options(path)
            flattened(options)  # refuses a file that repeats sections without end
        except (OSError, ValueError) as error:
            options, problems[place] = {}, " ".join(str(error).split())
        found.append(options)
    return found, problems


def _cell(value: Any) -> str:
    text = spelled(value, none="null")
    return text if len(text) <= 40 else f"{text[:39]}…"
