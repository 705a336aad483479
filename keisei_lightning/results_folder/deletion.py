"""Deleting a run: one folder inside the results, never through a link, and never under a run that is going on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from keisei_lightning.errors import ConfigError
from keisei_lightning.results_folder.ending import how_it_ended, open_files_below
from keisei_lightning.results_folder.finding import find_runs
from keisei_lightning.system.paths import one_line

__all__ = ["check_deletable", "delete_run"]


def check_deletable(run: Path, results: str | os.PathLike[str]) -> None:
    """Whether a run may be deleted.

    Args:
        run: its folder.
        results: the folder of all runs.

    Raises:
        ConfigError: it is no run's folder, lies outside of the results or behind a link, or the run is going on.
    """
    name = one_line(str(run))
    real, root = run.resolve(), Path(results).resolve()
    if root == real or not real.is_relative_to(root):
        raise ConfigError(f"{name}: must lie inside of {results} (folder=... names another folder of results)")
    inside = Path(os.path.abspath(run))
    links = [
        place for place in (inside, *inside.parents) if place.is_symlink() and place.resolve().is_relative_to(root)
    ]
    if any(place.resolve() != root for place in links):
        raise ConfigError(f"{name}: is a link, which is not followed; delete what it leads to by its own name")
    if find_runs(run) != [run]:
        raise ConfigError(f"{name}: is no run's folder")
    ending = how_it_ended(run, is_complete=False, open_files=lambda: open_files_below(run))
    if ending.state == "running":
        raise ConfigError(f"{name}: is going on ({ending.reason}); stop it first")


def delete_run(run: Path, results: str | os.PathLike[str]) -> None:
    """Delete a run's folder with all that is in it. A link in it is deleted, not what it leads to.

    Args:
        run: its folder.
        results: the folder of all runs.

    Raises:
        ConfigError: see :func:`check_deletable`.
        OSError: something in it cannot be deleted.
    """
    check_deletable(run, results)
    shutil.rmtree(run)
