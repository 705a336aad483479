"""The metrics of a run: ``csv/metrics.csv``, as Lightning's CSV logger writes it."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["METRICS_FILE", "cells_of", "newest_metrics", "number_in", "read_history"]

METRICS_FILE: Final = "csv/metrics.csv"
"""In the run's folder."""

_PIECE: Final = 65_536
_MAX_HEADER: Final = 1_048_576


def newest_metrics(path: str | os.PathLike[str], *, until: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """The newest value of each metric, read from the file's end backwards.

    Args:
        path: of the file.
        until: whether enough has been found; more is read until then.

    Returns:
        By name. Cells that are no finite numbers, and rows that are not whole, are left out.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no header.
    """
    with open(path, "rb") as file:
        names = _header(file.readline(_MAX_HEADER))
        begin = file.tell()
        end = file.seek(0, os.SEEK_END)
        size = _PIECE
        while True:
            start = max(begin, end - size)
            file.seek(start)
            lines = file.read(end - start).decode("utf-8", "replace").splitlines()
            found: dict[str, float] = {}
            # The first line of a piece may be the end of a longer one.
            for row in _rows(names, reversed(lines if start == begin else lines[1:])):
                found = row | found
                if until(found):
                    return found
            if start == begin:
                return found
            size *= 4


def read_history(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """All metrics: a row for each epoch, in their order.

    Args:
        path: of the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no header.
    """
    with open(path, "rb") as file:
        names = _header(file.readline(_MAX_HEADER))
        lines = file.read().decode("utf-8", "replace").splitlines()
    by_epoch: dict[float, dict[str, float]] = {}
    for row in _rows(names, lines):
        by_epoch.setdefault(row.get("epoch", -1.0), {}).update(row)
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def _header(line: bytes) -> list[str]:
    names = cells_of(line.decode("utf-8", "replace").strip())
    if not {"epoch", "step"} & set(names):
        raise ValueError(f"{Path(METRICS_FILE).name} has no header")
    return names


def _rows(names: Sequence[str], lines: Iterator[str] | Sequence[str]) -> Iterator[dict[str, float]]:
    for line in lines:
        cells = cells_of(line)
        if len(cells) == len(names):
            yield {
                name: number for name, cell in zip(names, cells, strict=True) if (number := number_in(cell)) is not None
            }


def cells_of(line: str) -> list[str]:
    """The cells of a line; none where one is longer than csv allows."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def number_in(cell: str) -> float | None:
    """The number in a cell; None: there is none, or it is not finite."""
    try:
        number = float(cell) if cell else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
