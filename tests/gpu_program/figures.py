"""Reads what a part has left: a measurement's JSON, a training's metrics, pytest's report, a match's results."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Figures", "newest", "of_checkpoint_match", "of_measurement", "of_smoke", "of_tests", "of_training"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a part has measured so far.

    Attributes:
        key: what it comes down to, by name.
        rows: the measurements.
    """

    key: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()


def newest(folder: Path, pattern: str) -> Path | None:
    """The newest file of this pattern below a folder."""
    return max(folder.glob(pattern), key=lambda file: file.stat().st_mtime_ns, default=None)


def of_measurement(work: Path, output: str) -> Figures:
    """Of a program that writes ``result.json`` after every row."""
    file = work / "result.json"
    if not file.is_file():
        return Figures()
    content = json.loads(file.read_text(encoding="utf-8"))
    return Figures(content["figures"], content["rows"])


def of_smoke(work: Path, output: str) -> Figures:
    """Of a sweep over modes: a row for each."""
    rows = []
    for file in sorted(work.glob("**/metrics.csv")):
        run = next(folder for folder in file.parents if folder.name.startswith("job_"))
        overrides = (run / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")
        mode = re.search(r"^- parallel=(\w+)", overrides, re.MULTILINE)
        last = _last_values(file)
        rows.append(
            {
                "mode": mode[1] if mode else run.name,
                "plies": last.get("self_play/plies"),
                "first_ratio": last.get("train/first_ratio"),
                "score_vs_random": last.get("eval/score_vs_random"),
            }
        )
    return Figures({"modes": len(rows)}, rows)


def of_tests(work: Path, output: str) -> Figures:
    """Of pytest: counts, and a row for each test that did not pass."""
    file = work / "tests.xml"
    if not file.is_file():  # killed: its lines tell how far it came
        ended = re.findall(r"::(\S+) (PASSED|FAILED|ERROR|SKIPPED)", output)
        rows = [{"test": name, "outcome": outcome.lower()} for name, outcome in ended if outcome != "PASSED"]
        return Figures({"tests": len(ended), "failures": len(rows)}, rows)
    suite = next(ElementTree.parse(file).getroot().iter("testsuite"))
    counts = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    rows = [
        {"test": case.get("name"), "outcome": problem.tag, "message": str(problem.get("message")).split("\n")[0][:200]}
        for case in suite.iter("testcase")
        for problem in case
        if problem.tag in ("failure", "error", "skipped")
    ]
    return Figures(counts, rows)


def of_training(work: Path, output: str) -> Figures:
    """Of ``train.py``: where it came to, and a row for each evaluation."""
    file = newest(work, "**/metrics.csv")
    if file is None:
        return Figures()
    last, rows = _last_values(file), []
    with file.open(encoding="utf-8", newline="") as lines:
        plies = 0.0
        for line in csv.DictReader(lines):
            plies = float(line.get("self_play/plies") or plies)
            scores = {key: float(line[key]) for key in line if _is_score(key) and line[key]}
            if scores:
                rows.append({"epoch": int(line["epoch"]), "plies": plies, **scores})
    key = {name: last[metric] for name, metric in _TRAINING.items() if metric in last}
    return Figures(key | {name.removeprefix("eval/"): last[name] for name in last if _is_score(name)}, rows)


_TRAINING = {
    "plies": "self_play/plies",
    "plies_per_s": "self_play/plies_per_s",
    "learner_wait_s": "self_play/learner_wait_s",
    "first_ratio": "train/first_ratio",
    "kl": "train/kl_approx",
}


def _is_score(name: str) -> bool:
    return re.fullmatch(r"eval/score_vs_\w+?(?<!_low)(?<!_high)", name) is not None


def of_checkpoint_match(work: Path, output: str) -> Figures:
    """Of ``keisei eval``: a row for each opponent."""
    file = work / "match" / "results.csv"
    if not file.is_file():
        return Figures()
    with file.open(encoding="utf-8", newline="") as lines:
        rows: list[dict[str, Any]] = list(csv.DictReader(lines))
    return Figures({f"score_vs_{row['opponent']}": float(row["score"]) for row in rows}, rows)


def _last_values(file: Path) -> dict[str, float]:
    """Of each column of a metrics file the last number that it holds."""
    last: dict[str, float] = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            last |= {name: float(value) for name, value in line.items() if value}
    return last
