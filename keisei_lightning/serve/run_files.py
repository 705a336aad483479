"""What clients may see of a training's folder: its configuration, the league's table, its log, its state. No torch."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from keisei_lightning.results_folder import find_runs, how_it_ended, read_options
from keisei_lightning.results_folder.ending import RECORD_NAME
from keisei_lightning.results_folder.metrics import METRICS_FILE
from keisei_lightning.results_folder.options_of_run import OPTIONS_FILE
from keisei_lightning.training.live_file import LIVE_NAME, LiveState

__all__ = ["RunFolder", "read_tail", "run_folders"]

_MAX_RUNS: Final = 500
_MAX_FOLDERS: Final = 20_000
_MAX_CONFIG_BYTES: Final = 200_000
_MAX_LEAGUE_BYTES: Final = 1 << 20
_MAX_LIVE_BYTES: Final = 1 << 22
_MAX_LIVE_AGE_S: Final = 60.0  # of a run that cannot be seen to be alive


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
        files = (METRICS_FILE, OPTIONS_FILE, "train.log", LIVE_NAME)
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
        file = self.file(OPTIONS_FILE)
        return "" if file is None else _read(file, _MAX_CONFIG_BYTES)

    def config(self) -> dict[str, Any]:
        """The same as values, not to be changed; empty: it cannot be read."""
        stat = self._stat(OPTIONS_FILE)
        return {} if stat is None else _config(self, stat.st_mtime_ns)

    def league(self) -> list[dict[str, str]]:
        """Rows of the last period in its league's table: the opponents, and what came of the games with them."""
        file = self.file("league.csv")
        if file is None:
            return []
        try:
            rows = [row for row in csv.DictReader(io.StringIO(_read(file, _MAX_LEAGUE_BYTES))) if None not in row]
        except csv.Error:  # a cell is longer than csv allows
            return []
        last = rows[-1].get("period") if rows else None
        return [{key: value or "" for key, value in row.items()} for row in rows if row.get("period") == last][:100]

    def live(self) -> tuple[LiveState, float] | None:
        """What is going on in it, and how many seconds ago that was; None: it has ended, or does not tell."""
        stat = self._stat(LIVE_NAME)
        if stat is None or stat.st_size > _MAX_LIVE_BYTES:
            return None
        age_s = max(0.0, time.time() - stat.st_mtime)
        state = "unknown"  # a Trainer of somebody's own keeps no record
        if self.file(RECORD_NAME) is not None:
            state = how_it_ended(self.path, is_complete=False, open_files=set).state
        if state != "running" and (state != "unknown" or age_s > _MAX_LIVE_AGE_S):
            return None
        with contextlib.suppress(OSError, ValueError):  # it has just been removed, or is not ours
            return LiveState.parse(_read(self.path / LIVE_NAME, _MAX_LIVE_BYTES)), age_s
        return None

    def _stat(self, relative: str) -> os.stat_result | None:
        file = self.file(relative)
        with contextlib.suppress(OSError):  # it has just been removed
            return None if file is None else file.stat()
        return None


@lru_cache(maxsize=2 * _MAX_RUNS)
def _config(run: RunFolder, changed_ns: int) -> dict[str, Any]:
    """A configuration's values, read once for each time that the file has changed."""
    try:
        return read_options(run.path)
    except (OSError, ValueError):
        return {}


def run_folders(root: Path) -> list[RunFolder]:
    """Folders of trainings below a folder, the one that has changed last first. Links are not followed.

    Args:
        root: the results folder; need not be there.
    """
    root = root.resolve()
    found = [RunFolder(path, root) for path in find_runs(root, max_folders=_MAX_FOLDERS)]
    return sorted(found, key=lambda run: (-run.changed_at, run.name))[:_MAX_RUNS]


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
