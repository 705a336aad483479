"""What came of it, as JSON for programs and as Markdown for people; both are written anew after every part."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["PartResult", "Report", "key_figures"]

JSON_NAME, MARKDOWN_NAME, LOG_NAME = "gpu.json", "gpu.md", "gpu.log"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartResult:
    """What came of one part.

    Attributes:
        name: of the part.
        what: it does.
        command: as it would be typed in the checkout.
        status: "passed", "failed", "timed out" or "left out" (there was no time for it).
        bound_s: seconds that it might take.
        seconds: that it took.
        exit_status: negative: the signal that ended it; None: it was not started.
        figures: what it comes down to, by name.
        rows: measurements, by name.
        last_lines: of its output, where it did not pass.
    """

    name: str
    what: str
    command: str
    status: str
    bound_s: float
    seconds: float
    exit_status: int | None
    figures: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    last_lines: Sequence[str] = ()


class Report:
    """The results so far, and where they are written.

    Args:
        folder: gets the two files.
        head: machine, versions and source, by name.
    """

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self._folder = folder
        self.head = dict(head)
        self.results: list[PartResult] = []

    def add(self, result: PartResult) -> None:
        """Take in what came of a part, and write everything."""
        self.results.append(result)
        self.write()

    def write(self) -> None:
        """Write both files, each whole or not at all."""
        content = {"head": self.head, "parts": [asdict(result) for result in self.results]}
        _replace(self._folder / JSON_NAME, json.dumps(content, indent=1) + "\n")
        _replace(self._folder / MARKDOWN_NAME, "\n".join(self._markdown()) + "\n")

    def _markdown(self) -> list[str]:
        lines = ["# Tests and measurements on an accelerator", ""]
        lines += [f"- {name.replace('_', ' ')}: {_text(value)}" for name, value in self.head.items()]
        lines += ["", "| part | result | seconds | key figures |", "|---|---|---|---|"]
        lines += [
            f"| {result.name} | {result.status} | {result.seconds:.0f} of {result.bound_s:.0f} | "
            f"{_cell(key_figures(result))} |"
            for result in self.results
        ]
        for result in self.results:
            lines += ["", f"## {result.name}: {result.what}", "", f"`{result.command}`"]
            lines += _table(result.rows)
            if result.last_lines:
                lines += ["", f"{result.status} (exit status {result.exit_status}); its last lines:", "", "```"]
                lines += [*result.last_lines, "```"]
        return lines


def key_figures(result: PartResult) -> str:
    """A part's figures in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in result.figures.items())


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [
        "",
        "| " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|" + "---|" * len(names),
        *("| " + " | ".join(_cell(_text(row.get(name))) for name in names) + " |" for row in rows),
    ]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(path.suffix + ".tmp")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)
