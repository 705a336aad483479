"""Which folders are runs, and which one a person means."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Final

from keisei_lightning.errors import ConfigError
from keisei_lightning.results_folder.ending import RECORD_NAME
from keisei_lightning.system.paths import one_line
from keisei_lightning.system.registry import nearest

__all__ = ["LAST", "find_runs", "name_of", "resolve_run"]

LAST: Final = "last"
"""The run that began last."""

_MARKS: Final = (RECORD_NAME, ".hydra/config.yaml", "csv/metrics.csv", "checkpoints/last.ckpt")
"""A folder that has one of these is a run's."""

_DEEPEST = 6  # folders below the results; a run is two or three below
_SHOWN = 8  # candidates in a message


def find_runs(folder: str | os.PathLike[str], *, max_folders: int | None = None) -> list[Path]:
    """The folders of all runs below a folder, or that folder itself if it is a run's.

    Links are not followed, and nothing below a run is looked at.

    Args:
        folder: such as ``results``.
        max_folders: look at so many folders at the most, since it may be any folder; None: at all.

    Returns:
        Sorted by path; empty where there is no such folder.
    """
    return sorted(_below(os.fspath(folder), 0, count() if max_folders is None else iter(range(max_folders))))


def _below(folder: str, depth: int, looks: Iterator[int]) -> Iterator[Path]:
    if next(looks, None) is None:
        return
    if any(os.path.lexists(os.path.join(folder, mark)) for mark in _MARKS):
        yield Path(folder)
        return
    if depth == _DEEPEST:
        return
    try:
        with os.scandir(folder) as entries:
            inner = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # not there, or it may not be read
        return
    for path in inner:
        yield from _below(path, depth + 1, looks)


def resolve_run(word: str, folder: str | os.PathLike[str]) -> Path:
    """The run that somebody means.

    Args:
        word: the path of its folder, a part of its name that only this run has (``shogi/2026-11-27_19-43``), or
            ``last``: the one that began last.
        folder: of all runs.

    Raises:
        ConfigError: there is none, or there are several.
    """
    typed = Path(os.path.expanduser(word))
    if word != LAST and typed.is_dir():
        if (inside := find_runs(typed)) == [typed]:
            return typed
        if inside:
            return _only(word, inside, folder)
    runs = find_runs(folder)
    if not runs:
        raise ConfigError(f"{one_line(word)}: there are no runs in {folder}; name another folder by folder=...")
    if word == LAST:
        return max(runs, key=_began)
    names = {name_of(run, folder): run for run in runs}
    if word.strip("/") in names:
        return names[word.strip("/")]
    found = [run for name, run in names.items() if name.startswith(word)]
    found = found or [run for name, run in names.items() if word in name]
    if not found:
        hint = nearest(word, [part for name in names for part in (name, *name.split("/"))])
        raise ConfigError(f"{one_line(word)}: no run in {folder} has this in its name{hint}")
    return _only(word, found, folder)


def _only(word: str, found: Sequence[Path], folder: str | os.PathLike[str]) -> Path:
    if len(found) == 1:
        return found[0]
    names = [one_line(name_of(run, folder)) for run in sorted(found, key=_began)[-_SHOWN:]]
    more = "" if len(found) == len(names) else f" and {len(found) - len(names)} others"
    raise ConfigError(f"{one_line(word)}: may be any of {', '.join(names)}{more}; give more of its name")


def name_of(run: Path, folder: str | os.PathLike[str]) -> str:
    """A run's folder as seen from the folder of all runs.

    Args:
        run: its folder.
        folder: of all runs.
    """
    return os.path.relpath(run, folder)


def _began(run: Path) -> float:
    """When a run began, in seconds since 1970: Hydra writes its options before all else, and never again."""
    for mark in (".hydra/config.yaml", *_MARKS):
        try:
            return os.lstat(run / mark).st_mtime
        except OSError:
            continue
    return 0.0
