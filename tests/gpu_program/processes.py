"""One part in a process of its own: bounded in time, and ended with all of its descendants."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

__all__ = ["Ending", "Status", "run_bounded"]

Status = Literal["passed", "failed", "timed out"]

_GRACE_S = 20.0
"""How long a process that was asked to stop may take to save what it has."""

_TAIL_BYTES = 200_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a process ended.

    Attributes:
        status: "timed out": it was killed at its bound.
        exit_status: as a shell would say it; negative: the signal that ended it.
        seconds: that it ran.
        output: the end of what it wrote.
    """

    status: Status
    exit_status: int
    seconds: float
    output: str


def run_bounded(
    command: Sequence[str],
    *,
    bound_s: float,
    log: Path,
    environment: Mapping[str, str],
    folder: Path,
    stops_in_order: bool = False,
) -> Ending:
    """Run a command, at most for so long; nothing of it is alive afterwards.

    Args:
        command: program and arguments.
        bound_s: seconds after which it is killed.
        log: standard output and standard error are appended to this file as they come.
        environment: of the process, all of it.
        folder: where it runs.
        stops_in_order: it runs for as long as it may: at its bound it is asked to stop by SIGTERM, and has passed if it
            then ends as one that was asked (exit status 143).
    """
    start = time.monotonic()
    with log.open("ab") as file:
        offset = file.tell()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        was_asked = timed_out = False
        try:
            try:
                process.wait(bound_s)
            except subprocess.TimeoutExpired:
                if stops_in_order:
                    was_asked = True
                    process.terminate()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_GRACE_S)
                timed_out = process.poll() is None or not stops_in_order
        finally:
            _kill_all(process)
    exit_status = process.returncode
    in_order = exit_status == 0 or (was_asked and exit_status in (128 + signal.SIGTERM, -signal.SIGTERM))
    return Ending(
        status="timed out" if timed_out else "passed" if in_order else "failed",
        exit_status=exit_status,
        seconds=time.monotonic() - start,
        output=_read_from(log, offset),
    )


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill the process, its group, and descendants that have left the group; return when all are gone."""
    members = [found for pid in psutil.pids() if (found := _member(pid, process.pid)) is not None]
    with contextlib.suppress(psutil.Error):
        members += psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for member in members:
        with contextlib.suppress(psutil.Error):
            member.kill()
    process.wait()
    psutil.wait_procs([member for member in members if member.pid != process.pid], timeout=10)


def _member(pid: int, session: int) -> psutil.Process | None:
    """The process of this number, if it is one of this session."""
    try:
        return psutil.Process(pid) if os.getsid(pid) == session else None
    except (psutil.Error, OSError):
        return None


def _read_from(log: Path, offset: int) -> str:
    with log.open("rb") as file:
        file.seek(max(offset, log.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace")
