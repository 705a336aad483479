"""What a training leaves in its folder, read while it is written: curves, the league's table, its log. No torch.

A curve's file is read on from where it was left. Lightning writes it anew when a metric comes that it has no column
for; then, or when it has become shorter, it is read from its start again.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

__all__ = ["CurveReader", "RunFolder", "find_runs", "read_tail"]

_MAX_DEPTH: Final = 4
_MAX_RUNS: Final = 500
_MAX_ENTRIES: Final = 20_000
_MAX_POINTS: Final = 2000
_MAX_CONFIG_BYTES: Final = 200_000
_CHUNK: Final = 1 << 20
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_METRICS = Path("csv/metrics.csv")
_CONFIG = Path(".hydra/config.yaml")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one training.

    Attributes:
        path: of it.
        root: that it was found in; no file outside is read, whatever links say.
    """

    path: Path
    root: Path

    @property
    def key(self) -> str:
        """What a client calls it."""
        return hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]

    @property
    def name(self) -> str:
        """Its path in the results folder, for people."""
        relative = self.path.relative_to(self.root).as_posix()
        text = self.path.name if relative == "." else relative
        return text.encode("utf-8", "replace").decode()

    @property
    def game(self) -> str:
        """The game that it trains; empty: it does not tell."""
        env = self.config().get("env")
        game = env.get("game") if isinstance(env, dict) else None
        return game if isinstance(game, str) and len(game) < 200 else ""

    @property
    def changed_at(self) -> float:
        """Seconds since 1970 of its newest file of those that are read here; 0: there is none."""
        files = (_METRICS, _CONFIG, Path("train.log"))
        return max((stat.st_mtime for file in files if (stat := self._stat(file)) is not None), default=0.0)

    def file(self, relative: str | Path) -> Path | None:
        """One of its files; None: it is not there, or a link leads out of the root."""
        path = self.path / relative
        try:
            inside = path.resolve(strict=True).is_relative_to(self.root)
        except (OSError, RuntimeError):
            return None
        return path if inside and path.is_file() else None

    def checkpoints(self) -> list[Path]:
        """Its checkpoints, the last one first, then the newest."""
        with contextlib.suppress(OSError):
            files = [file for file in (self.path / "checkpoints").glob("*.ckpt") if self.file(file)]
            return sorted(files, key=lambda file: (file.stem != "last", -file.stat().st_mtime))
        return []

    def config_text(self) -> str:
        """Its configuration as YAML; empty: it has none."""
        file = self.file(_CONFIG)
        return "" if file is None else _read(file, _MAX_CONFIG_BYTES)

    def config(self) -> dict[str, Any]:
        """The same as values, not to be changed; empty: it cannot be read."""
        stat = self._stat(_CONFIG)
        return {} if stat is None else _config(self, stat.st_mtime_ns)

    def league(self) -> list[dict[str, str]]:
        """Rows of the last period in its league's table: the opponents, and what came of the games with them."""
        file = self.file("league.csv")
        if file is None:
            return []
        rows = [row for row in csv.DictReader(io.StringIO(_read(file, _CHUNK))) if None not in row]
        last = rows[-1].get("period") if rows else None
        return [{key: value or "" for key, value in row.items()} for row in rows if row.get("period") == last][:100]

    def _stat(self, relative: Path) -> os.stat_result | None:
        file = self.file(relative)
        return None if file is None else file.stat()


@lru_cache(maxsize=2 * _MAX_RUNS)
def _config(run: RunFolder, changed_ns: int) -> dict[str, Any]:
    """A configuration's values, read once for each time that the file has changed."""
    try:
        values = yaml.load(run.config_text(), Loader=_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def find_runs(root: Path) -> list[RunFolder]:
    """Folders of trainings below a folder, the one that has changed last first. Links are not followed.

    Args:
        root: the results folder; need not be there.
    """
    root = root.resolve()
    found = [RunFolder(path, root) for path in _walk(root)]
    return sorted(found, key=lambda run: (-run.changed_at, run.name))[:_MAX_RUNS]


def _walk(root: Path) -> Iterator[Path]:
    left, seen = [(root, 0)], 0
    while left:
        folder, depth = left.pop()
        if (folder / _METRICS).is_file() or (folder / _CONFIG).is_file():
            yield folder
            continue
        if depth == _MAX_DEPTH:
            continue
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            seen += 1
            if seen > _MAX_ENTRIES:
                return
            if entry.is_dir(follow_symlinks=False):
                left.append((Path(entry.path), depth + 1))


class CurveReader:
    """Reads a file of metrics on and on, and keeps a bounded number of its rows.

    Attributes:
        generation: changes when the rows before are no longer those that were given.
    """

    def __init__(self, max_points: int = _MAX_POINTS) -> None:
        self._max_points = max_points
        self.generation = 0
        self._begin(b"")

    def _begin(self, header: bytes) -> None:
        self._header, self._offset, self._seen, self._stride = header, len(header), 0, 1
        self._names = next(csv.reader([header.decode("utf-8", "replace")]), []) if header else []
        self._rows: list[list[float | None]] = []
        self._latest: list[float | None] = []
        self.generation += 1

    def read(self, file: Path | None) -> None:
        """Read what has been added to the file; None: there is none yet."""
        if file is None:
            return
        with file.open("rb") as stream:
            header = stream.readline(_CHUNK)
            if not header.endswith(b"\n"):
                return  # it is being written anew
            if header != self._header or os.fstat(stream.fileno()).st_size < self._offset:
                self._begin(header)
            stream.seek(self._offset)
            while chunk := stream.read(_CHUNK):
                whole = chunk[: chunk.rfind(b"\n") + 1]
                if not whole:
                    return
                self._add(whole)
                self._offset += len(whole)
                stream.seek(self._offset)

    def since(self, generation: int, row: int) -> dict[str, Any]:
        """Rows for a client that has those before.

        Args:
            generation: of the rows that it has.
            row: how many it has.

        Returns:
            ``generation``, ``row`` (the number of the first one), ``columns`` by name, and ``latest``: the last number
            of each.
        """
        first = row if generation == self.generation else 0
        rows = self._rows[first:]
        columns = {name: [values[place] for values in rows] for place, name in enumerate(self._names)}
        latest = dict(zip(self._names, self._latest, strict=False))
        return {"generation": self.generation, "row": first, "columns": columns, "latest": latest}

    def _add(self, lines: bytes) -> None:
        for cells in csv.reader(io.StringIO(lines.decode("utf-8", "replace"))):
            if len(cells) != len(self._names):
                continue
            values = [_number(cell) for cell in cells]
            before = self._latest or values
            self._latest = [old if new is None else new for new, old in zip(values, before, strict=True)]
            # An evaluation is rare: its row is kept, whatever the stride.
            is_rare = any(v is not None and n.startswith("eval/") for n, v in zip(self._names, values, strict=True))
            if self._seen % self._stride == 0 or is_rare:
                self._rows.append(values)
            self._seen += 1
            if len(self._rows) > self._max_points:
                self._rows = self._rows[::2]
                self._stride *= 2
                self.generation += 1


def read_tail(file: Path | None, max_bytes: int) -> str:
    """The last whole lines of a text; empty: there is no file."""
    if file is None:
        return ""
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - max_bytes))
        text = stream.read(max_bytes)
    if size > max_bytes:
        text = text.partition(b"\n")[2]
    return text.decode("utf-8", "replace")


def _read(file: Path, max_bytes: int) -> str:
    with file.open("rb") as stream:
        return stream.read(max_bytes).decode("utf-8", "replace")


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
