"""The summary of a multirun: one line for each job, and proof that a job left no process to the next.

::

    a launcher of this process:   job --> on_job_end --> in memory ----------+
    a launcher of other ones:     job --> on_job_end --> SWEEP/.jobs/N.json --+--> the table, when the sweep ends

Launchers such as joblib's, submitit's and Ray's run jobs in processes that share nothing with this one but the files,
and the callback itself, which they send there as it was when the sweep began.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
import signal
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from keisei_lightning.errors import ConfigError
from keisei_lightning.system.stopping import Stopped

__all__ = ["SweepJob", "SweepSummary", "collected_jobs", "is_pruned", "left_processes", "print_summary"]

log = logging.getLogger(__name__)

_JOBS_FOLDER = ".jobs"
"""In the folder of the sweep: a file for each job that ran in another process."""

_UNFINISHED = "not finished"
_RAY = "hydra_plugins.hydra_ray_launcher."


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepJob:
    """What became of one job.

    Attributes:
        overrides: as given for this job, a word each.
        objective: what it returned (the final score against its first opponent), NaN if it failed.
        folder: where its results are.
        status: ``done``; ``pruned``, ``bad configuration`` or ``failed`` with the reason's first line; ``not finished``
            where the process was stopped or killed.
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


@dataclass(slots=True)
class _Sweep:
    """What the process that a sweep was started in knows of it."""

    pid: int
    jobs: list[SweepJob] = field(default_factory=list)
    folder: Path | None = None


_current: ContextVar[_Sweep | None] = ContextVar("keisei_sweep", default=None)


class SweepSummary(Callback):
    """Hydra callback: notes how each job of a multirun ended, and what it left running.

    The table is printed by whoever opened :func:`collected_jobs`: Hydra does not call ``on_multirun_end`` when a job
    has failed, which is when the table is wanted most.

    Args:
        **kwargs: Hydra's; none is used.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._folder: Path | None = None
        self._argv: list[str] = []

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note where jobs in other processes shall leave their results."""
        with contextlib.suppress(OmegaConfBaseException):  # Hydra will say so itself
            self._folder = Path(str(config.hydra.sweep.dir)).absolute() / _JOBS_FOLDER
            self._argv = sys.argv
            for old in self._folder.glob("*.json"):  # of a sweep into the same folder
                old.unlink()
        if (sweep := _current.get()) is not None:
            sweep.folder = self._folder
        is_ray = str(config.hydra.launcher.get("_target_")).startswith(_RAY)
        if is_ray and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            # Ray's waits swallow what a signal's handler raises, but for this one's KeyboardInterrupt.
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Of a job in another process, note that it has begun."""
        if config.hydra.mode is not RunMode.MULTIRUN or _jobs_of_this_process() is not None:
            return
        # As in a process of multiprocessing: the command that resumes a run is made of this.
        sys.argv = self._argv
        self._write(config, _job(config, list(config.hydra.overrides.task), math.nan, _UNFINISHED))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note how a job ended, and report what it left running."""
        jobs = _jobs_of_this_process()
        if config.hydra.mode is not RunMode.MULTIRUN or (jobs is None and self._folder is None):
            return
        if left := left_processes():
            log.error("the job left processes running: %s", ", ".join(left))
        value = job_return._return_value
        done = job_return.status is JobStatus.COMPLETED and isinstance(value, int | float)
        status = "done" if done else _reason(value)
        job = _job(config, job_return.overrides or (), float(value) if done else math.nan, status)
        if jobs is None:
            self._write(config, job)
        else:
            jobs.append(job)

    def _write(self, config: DictConfig, job: SweepJob) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{config.hydra.job.num}.json"
        whole = file.with_suffix(".tmp")
        whole.write_text(json.dumps({"process": _this_process(), "job": asdict(job)}), encoding="utf-8")
        whole.replace(file)


def _job(config: DictConfig, overrides: Sequence[str], objective: float, status: str) -> SweepJob:
    folder = _short(str(config.hydra.runtime.output_dir))
    return SweepJob(overrides=tuple(overrides), objective=objective, folder=folder, status=status)


def _jobs_of_this_process() -> list[SweepJob] | None:
    """Where to note a job if the sweep was started in this process; a forked one has a copy that nobody reads."""
    sweep = _current.get()
    return None if sweep is None or sweep.pid != os.getpid() else sweep.jobs


@contextlib.contextmanager
def collected_jobs() -> Iterator[list[SweepJob]]:
    """Context in which :class:`SweepSummary` adds each job that has ended to the list.

    Those of other processes are added when the context ends. If a signal ends it, they are asked to stop.

    Raises:
        Stopped: a signal came; the list has been completed.
    """
    sweep = _Sweep(os.getpid())
    token = _current.set(sweep)
    try:
        yield sweep.jobs
    except (Stopped, KeyboardInterrupt) as error:
        if sweep.folder is not None:
            _stop_jobs(sweep.folder)
        if isinstance(error, Stopped):
            raise
        raise Stopped(signal.SIGINT) from None
    finally:
        _current.reset(token)
        if sweep.folder is not None:
            sweep.jobs += [job for _, job in _read(sweep.folder)]


def _read(folder: Path) -> Iterator[tuple[dict[str, Any], SweepJob]]:
    """The jobs of other processes, each with its process."""
    for file in sorted(folder.glob("*.json"), key=lambda file: int(file.stem)):
        noted = json.loads(file.read_text(encoding="utf-8"))
        yield noted["process"], SweepJob(**noted["job"] | {"overrides": tuple(noted["job"]["overrides"])})


def _this_process() -> dict[str, Any]:
    process = psutil.Process()
    return {"machine": platform.node(), "pid": process.pid, "started_s": process.create_time()}


def _stop_jobs(folder: Path) -> None:
    """Ask the jobs on this machine to stop: some launchers leave theirs to themselves. Each saves, and ends."""
    for process, job in _read(folder):
        if job.status != _UNFINISHED or process["machine"] != platform.node():
            continue
        with contextlib.suppress(psutil.Error):
            running = psutil.Process(process["pid"])
            if running.create_time() == process["started_s"]:
                running.terminate()


def is_pruned(error: BaseException) -> bool:
    """Whether a job has ended because its trial was pruned (Optuna's ``TrialPruned``), which is no failure."""
    optuna = sys.modules.get("optuna")  # whoever raised its exception has imported it
    return optuna is not None and isinstance(error, optuna.TrialPruned)


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
    word = "pruned" if is_pruned(value) else "bad configuration" if isinstance(value, ConfigError) else "failed"
    lines = str(value).splitlines()
    return f"{word}: {lines[0] if lines else type(value).__name__}"


def _short(folder: str) -> str:
    """A folder as seen from here, where that is shorter."""
    path = Path(folder)
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else folder
