"""The summary of a multirun: one line for each job, and proof that a job left no process to the next."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from keisei_lightning.errors import ConfigError

__all__ = ["SweepJob", "SweepSummary", "collected_jobs", "left_processes", "print_summary"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepJob:
    """What became of one job.

    Attributes:
        overrides: as given for this job, a word each.
        objective: what it returned (the final score against its first opponent), NaN if it failed.
        folder: where its results are.
        status: ``done``, ``bad configuration`` or ``failed``, with the reason's first line.
    """

    overrides: tuple[str, ...]
    objective: float
    folder: str
    status: str


def left_processes() -> list[str]:
    """Name the child processes of this one that are not multiprocessing's own servers.

    The fork server and the resource tracker live as long as this process; the next job uses them again.
    """
    import multiprocessing.forkserver
    import multiprocessing.resource_tracker

    servers = {
        multiprocessing.forkserver._forkserver._forkserver_pid,  # type: ignore[attr-defined]
        multiprocessing.resource_tracker._resource_tracker._pid,  # type: ignore[attr-defined]
    }
    left = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.pid not in servers:
                left.append(f"{child.pid} ({child.name()}, {child.status()})")
        except psutil.NoSuchProcess:  # gone between the two calls
            continue
    return left


class SweepSummary(Callback):
    """Hydra callback: notes how each job of a multirun ended, and what it left running.

    The table is printed by whoever opened :func:`collected_jobs`: Hydra does not call ``on_multirun_end`` when a job
    has failed, which is when the table is wanted most.

    Args:
        **kwargs: Hydra's; none is used.
    """

    def __init__(self, **kwargs: Any) -> None:
        pass

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note how a job ended, and report what it left running."""
        jobs = _jobs.get()
        if jobs is None or config.hydra.mode is not RunMode.MULTIRUN:
            return
        if left := left_processes():
            log.error("the job left processes running: %s", ", ".join(left))
        value = job_return._return_value
        done = job_return.status is JobStatus.COMPLETED and isinstance(value, int | float)
        jobs.append(
            SweepJob(
                overrides=tuple(job_return.overrides or ()),
                objective=float(value) if done else math.nan,
                folder=_short(str(config.hydra.runtime.output_dir)),
                status="done" if done else _reason(value),
            )
        )


_jobs: ContextVar[list[SweepJob] | None] = ContextVar("keisei_sweep_jobs", default=None)


@contextlib.contextmanager
def collected_jobs() -> Iterator[list[SweepJob]]:
    """Context in which :class:`SweepSummary` adds each job that has ended to the list."""
    jobs: list[SweepJob] = []
    token = _jobs.set(jobs)
    try:
        yield jobs
    finally:
        _jobs.reset(token)


def print_summary(jobs: Sequence[SweepJob]) -> None:
    """Print the jobs as a table, the best one first, those without a result last.

    Args:
        jobs: of one multirun; of their overrides only those that differ are shown.
    """
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    title = f"{len(jobs)} jobs, best first (objective: score against the first of evaluation.opponents)"
    table = Table(title=title, title_justify="left")
    for name in ("overrides", "objective", "status", "folder"):
        table.add_column(name, overflow="fold", justify="right" if name == "objective" else "left")
    for job in sorted(jobs, key=lambda job: math.inf if math.isnan(job.objective) else -job.objective):
        objective = "-" if math.isnan(job.objective) else f"{job.objective:.4f}"
        own = " ".join(word for word in job.overrides if word not in common)
        table.add_row(own or "-", objective, job.status, job.folder)
    Console(highlight=False, markup=False).print(table)


def _reason(value: object) -> str:
    if not isinstance(value, BaseException):
        return f"failed: returned {value!r}"
    word = "bad configuration" if isinstance(value, ConfigError) else "failed"
    lines = str(value).splitlines()
    return f"{word}: {lines[0] if lines else type(value).__name__}"


def _short(folder: str) -> str:
    """A folder as seen from here, where that is shorter."""
    path = Path(folder)
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else folder
