"""How runs are printed: columns of plain text, and numbers for people."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from keisei_lightning.results_folder import RunSummary
from keisei_lightning.system.paths import one_line

__all__ = ["columns", "count", "date", "number", "print_json", "print_lines", "share", "size", "to_json"]

_GAP = "  "


def columns(rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> list[str]:
    """Rows of cells as lines with aligned columns; the last column is as wide as its cells.

    Args:
        rows: of equally many cells; the first one is the heading.
        left: numbers of columns that are aligned at their left.
    """
    widths = [max(cell_len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        _GAP.join(
            cell + " " * (width - cell_len(cell)) if place in left else " " * (width - cell_len(cell)) + cell
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def print_lines(lines: Sequence[str]) -> None:
    """Print lines; control characters, which a file may hold, are escaped."""
    sys.stdout.write("".join(f"{one_line(line)}\n" for line in lines))


def print_json(content: Any) -> None:
    """Print JSON for another program."""
    sys.stdout.write(json.dumps(content, indent=1) + "\n")


def to_json(run: RunSummary) -> dict[str, Any]:
    """A run for JSON."""
    content = dataclasses.asdict(run)
    return {key: str(value) if isinstance(value, Path) else value for key, value in content.items()}


def count(value: int | None) -> str:
    """A whole number; a dash where it is not known."""
    return "-" if value is None else f"{value:,}"


def number(value: float | None, digits: int = 0) -> str:
    """A number; a dash where it is not known."""
    return "-" if value is None else f"{value:,.{digits}f}"


def share(value: float | None) -> str:
    """A proportion in percent; a dash where it is not known."""
    # Rounded: a float32 of 0.2765 is a little less, and would be shown as 27.6 %.
    return "-" if value is None else f"{round(value, 6):.1%}"


def date(seconds: float | None) -> str:
    """A time since 1970 as date and time of this place; a dash where it is not known."""
    if seconds is None or not math.isfinite(seconds) or not 0 <= seconds < 2**40:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def size(num_bytes: int) -> str:
    """Bytes in a unit that suits them."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"
