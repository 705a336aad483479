"""What every measurement says about where it was taken, and how it is printed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from keisei_lightning.system.machine import available_cpus
from keisei_lightning.system.processor import processor_name

__all__ = ["describe_machine", "print_report", "table_of"]


def describe_machine() -> dict[str, Any]:
    """Date, processor, CPUs and the versions that matter; where there is a GPU, its name, memory, driver and CUDA."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor_name(),
        "cpus": available_cpus(),
        **_describe_gpu(),
        "python": platform.python_version(),
        "versions": {
            name: _version(name) for name in ("keisei-lightning", "torch", "torchrl", "tensordict", "rsshogi")
        },
    }


def _describe_gpu() -> dict[str, str]:
    """The first CUDA device that this process may use, and what drives it; nothing where there is none."""
    try:
        import torch  # here: whoever only prints rows need not wait for it
    except ImportError:  # who plays exported policies need not have it
        return {}
    if not torch.cuda.is_available():
        return {}
    device = torch.cuda.get_device_properties(0)
    count = torch.cuda.device_count()
    return {
        "gpu": f"{f'{count} x ' if count > 1 else ''}{device.name}, {device.total_memory / 2**30:.0f} GiB",
        "cuda": f"{torch.version.cuda}, driver {_driver()}",
    }


def _driver() -> str:
    """Version of NVIDIA's kernel driver; the kernel module tells it, or (in some containers only) ``nvidia-smi``."""
    text = ""
    with contextlib.suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    if not text:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found[0] if found else "unknown"


def _version(name: str) -> str:
    """Of an installed package; ours may be a checkout that was never installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def print_report(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
    write: str | Path | None = None,
    notes: Sequence[str] = (),
    one_line_a_row: bool = False,
    columns: Sequence[str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Print rows of equal keys as a table or as JSON.

    Args:
        title: what was measured.
        rows: what came of it.
        as_json: for programs; else a table for people.
        write: a file that gets the JSON too.
        notes: below the table.
        one_line_a_row: many rows of few measures; else each row is a column, which fits into 80 characters however many
            measures there are.
        columns: keys that the table has, the first one included; None: all. The JSON has all.
        extra: for the JSON alone.
    """
    machine = describe_machine()
    console = Console()
    report = json.dumps({"bench": title, "machine": machine, "rows": rows, "notes": notes, **(extra or {})}, indent=1)
    if write is not None:
        file = Path(write)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(report + "\n", encoding="utf-8")
    if as_json:
        console.print_json(report)
        return
    console.print(table_of(title, rows, one_line_a_row=one_line_a_row, columns=columns))
    for note in notes:
        console.print(note, markup=False, highlight=False)
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f", {machine['gpu']}, CUDA {machine['cuda']}" if "gpu" in machine else ""
    console.print(
        f"{machine['date']}, {machine['processor']}, {machine['cpus']} CPUs{gpu}, "
        f"Python {machine['python']}, {versions}"
    )


def table_of(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    one_line_a_row: bool = False,
    columns: Sequence[str] | None = None,
) -> Table:
    """Rows of equal keys as a table.

    Args:
        title: what was measured.
        rows: what came of it.
        one_line_a_row: as :func:`print_report` takes it.
        columns: as :func:`print_report` takes them.
    """
    first, *measures = columns or rows[0]
    table = Table(title=title, title_justify="left")
    table.add_column(first.replace("_", " "))
    if one_line_a_row:
        for measure in measures:
            table.add_column(measure.replace("_", " "), justify="right", overflow="fold")
        for row in rows:
            table.add_row(*(_text(row[key]) for key in (first, *measures)))
        return table
    for row in rows:
        table.add_column(str(row[first]), justify="right")
    for measure in measures:
        table.add_row(measure.replace("_", " "), *(_text(row[measure]) for row in rows))
    return table


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
