"""How a run ends, as its own process tells it: a small file that is locked for as long as the process lives.

A lock ends with its process, however that ends: the kernel takes it away. So a run whose file says "running" and is
locked is going on, and one whose file says "running" and is not locked was killed. No process number is asked about,
which another process may have by now.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal, get_args

from keisei_lightning.system.stopping import Stopped

__all__ = ["RECORD_NAME", "Ending", "RunRecord", "State", "how_it_ended", "open_files_below", "run_record"]

log = logging.getLogger(__name__)

RECORD_NAME: Final = "run.json"
"""In the run's folder."""

State = Literal["running", "finished", "stopped", "failed", "crashed", "unknown"]
"""``stopped``: by a signal, or pruned by a sweep. ``failed``: an error ended it. ``crashed``: its process ended without
a word. ``unknown``: it cannot be known from here; the reason is told."""

_TRIES, _BETWEEN_TRIES_S = 20, 0.01
_MAX_BYTES = 65_536  # of the file; ours have some hundreds
_LONGEST_REASON = 500  # characters
_LOG_NAME = "train.log"  # which a training keeps open, also one of a version that wrote no record


@dataclass(kw_only=True, slots=True)
class RunRecord:
    """What a run's process says of it.

    Attributes:
        state: ``running``, ``finished``, ``stopped`` or ``failed``.
        reason: of the last two, in a line.
        host: where the process runs or ran.
        pid: its number there.
        started_s: when it began, in seconds since 1970.
        ended_s: when it ended; None: it has not.
        epochs: PPO iterations done when it ended, those before a resume included.
    """

    state: str = "running"
    reason: str = ""
    host: str = ""
    pid: int = 0
    started_s: float = 0.0
    ended_s: float | None = None
    epochs: int | None = None

    @classmethod
    def parse(cls, text: str) -> RunRecord:
        """Read a record.

        Raises:
            ValueError: it is none.
        """
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("state") not in get_args(State):
            raise ValueError("it tells no state")
        ended, epochs = content.get("ended_s"), content.get("epochs")
        record = cls(
            state=content["state"],
            reason=str(content.get("reason", ""))[:_LONGEST_REASON],
            host=str(content.get("host", "")),
            pid=int(content.get("pid", 0)),
            started_s=float(content.get("started_s", 0.0)),
            ended_s=None if ended is None else float(ended),
            epochs=None if epochs is None else int(epochs),
        )
        if not all(math.isfinite(number) for number in (record.started_s, record.ended_s or 0.0)):
            raise ValueError("a time in it is no number")
        return record


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a run ended, or that it has not.

    Attributes:
        state: of the run.
        reason: why it is so, in a line; may be empty.
        record: as the run's process wrote it; None: it wrote none.
    """

    state: State
    reason: str = ""
    record: RunRecord | None = None


@contextlib.contextmanager
def run_record(
    folder: str | os.PathLike[str] | None, epochs: Callable[[], int], *, clock: Callable[[], float] = time.time
) -> Iterator[None]:
    """Context of a run: while it lasts its record says "running" and is locked, then it says how it ended.

    A record that cannot be written is a warning: no training ends because of it.

    Args:
        folder: of the run; made if need be. None: no record is kept.
        epochs: PPO iterations done; asked at the end.
        clock: seconds since 1970; injected by tests.
    """
    if folder is None:
        yield
        return
    record = RunRecord(host=platform.node(), pid=os.getpid(), started_s=clock())
    file: IO[str] | None = None
    try:
        file = _locked(Path(folder))
        _write(file, record)
    except OSError as error:
        log.warning("%s cannot be written (%s): `keisei runs` will not know how this run ended", RECORD_NAME, error)
    try:
        yield
        record.state = "finished"
    except BaseException as error:
        record.state, record.reason = _why(error)
        raise
    finally:
        record.ended_s, record.epochs = clock(), epochs()
        if file is not None:
            with file, contextlib.suppress(OSError):  # a full disk has been told of at the start, or by a checkpoint
                _write(file, record)


def _locked(folder: Path) -> IO[str]:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / RECORD_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    file = os.fdopen(descriptor, "r+", encoding="utf-8")  # the lock lasts as long as it is open
    for attempt in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt == _TRIES - 1:
                file.close()
                raise
            time.sleep(_BETWEEN_TRIES_S)  # a reader holds it for an instant; another run in this folder, for long
        except OSError:  # a file system without locks: the record says at least how the run ended
            return file
        else:
            return file
    raise AssertionError  # the last attempt has raised


def _write(file: IO[str], record: RunRecord) -> None:
    """Replace the content in place: a renamed file would be another one, without the lock."""
    file.seek(0)
    file.write(json.dumps(asdict(record)) + "\n")
    file.flush()  # one write of some hundred bytes: a reader finds the old or the new text at its beginning
    file.truncate()


def _why(error: BaseException) -> tuple[State, str]:
    text = " ".join(str(error).split())
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, Stopped):
        return "stopped", text
    if isinstance(error, KeyboardInterrupt | SystemExit) or type(error).__name__ == "TrialPruned":  # Optuna's
        return "stopped", reason[:_LONGEST_REASON]
    return "failed", reason[:_LONGEST_REASON]


def how_it_ended(folder: str | os.PathLike[str], *, is_complete: bool, open_files: Callable[[], set[str]]) -> Ending:
    """How a run ended, from its record; of a run without one (of version 0.1), from what can be seen.

    Args:
        folder: of the run.
        is_complete: it has done as many epochs as it was to do.
        open_files: files that processes of this machine have open; called only where it matters.
    """
    path = Path(folder, RECORD_NAME)
    try:
        with path.open(encoding="utf-8") as file:
            is_locked = _is_locked(file)
            record = RunRecord.parse(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return _without_record(Path(folder), is_complete=is_complete, open_files=open_files)
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        return Ending(state="unknown", reason=f"{RECORD_NAME} cannot be read ({' '.join(str(error).split())})")
    if record.state != "running":
        known: Any = record.state
        return Ending(state=known, reason=record.reason, record=record)
    if is_locked:
        return Ending(state="running", reason=f"process {record.pid} on {record.host}", record=record)
    if record.host != platform.node():
        reason = f"it ran on {record.host}, and whether it still does cannot be seen from here"
        return Ending(state="unknown", reason=reason, record=record)
    return Ending(state="crashed", reason=f"process {record.pid} ended without a word", record=record)


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    return False


def _without_record(folder: Path, *, is_complete: bool, open_files: Callable[[], set[str]]) -> Ending:
    if str((folder / _LOG_NAME).resolve()) in open_files():
        return Ending(state="running", reason=f"a process has its {_LOG_NAME} open")
    if is_complete:
        return Ending(state="finished", reason="all of its epochs are done")
    return Ending(state="unknown", reason=f"it has no {RECORD_NAME}, and not all of its epochs are done")


def open_files_below(root: str | os.PathLike[str], processes: Path = Path("/proc")) -> set[str]:
    """Files below a folder that processes of this user have open; empty where the kernel does not tell (macOS).

    Args:
        root: the folder.
        processes: where the kernel tells of processes.
    """
    prefix = f"{Path(root).resolve()}{os.sep}"
    found = set()
    with contextlib.suppress(OSError):
        for process in os.listdir(processes):
            if not process.isdecimal():
                continue
            with contextlib.suppress(OSError):  # another user's, or one that has ended meanwhile
                folder = f"{processes}/{process}/fd"
                for descriptor in os.listdir(folder):
                    with contextlib.suppress(OSError):
                        target = os.readlink(f"{folder}/{descriptor}")
                        if target.startswith(prefix):
                            found.add(target)
    return found
