"""What every measurement says about where it was taken, and how it is printed."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from keisei_lightning.machine import available_cpus

__all__ = ["describe_machine", "print_report"]


def describe_machine() -> dict[str, Any]:
    """Date, processor, CPUs and the versions that matter."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            processor = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor,
        "cpus": available_cpus(),
        "python": platform.python_version(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("keisei-lightning", "torch", "torchrl", "tensordict", "rsshogi")
        },
    }


def print_report(title: str, rows: Sequence[Mapping[str, Any]], *, as_json: bool, notes: Sequence[str] = ()) -> None:
    """Print rows of equal keys as a table or as JSON."""
    machine = describe_machine()
    console = Console()
    if as_json:
        console.print_json(json.dumps({"bench": title, "machine": machine, "rows": rows}))
        return
    # One line a measure, one column a row: it fits into 80 columns however many measures there are.
    first, *measures = rows[0]
    table = Table(title=title, caption="\n".join(notes), caption_justify="left")
    table.add_column(first.replace("_", " "))
    for row in rows:
        table.add_column(str(row[first]), justify="right")
    for measure in measures:
        values = (row[measure] for row in rows)
        table.add_row(
            measure.replace("_", " "),
            *(f"{value:,}" if isinstance(value, int | float) else str(value) for value in values),
        )
    console.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    console.print(
        f"{machine['date']}, {machine['processor']}, {machine['cpus']} CPUs, Python {machine['python']}, {versions}"
    )
