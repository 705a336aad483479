"""Which names in ``/dev/shm`` are a test's own: other programs, and other test runs, keep theirs there too."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.shared_memory
import os
from collections.abc import Iterable
from pathlib import Path

import psutil

__all__ = ["PREFIX", "SHARED_MEMORY", "mark_shared_memory", "own_shared_memory", "shared_memory_of"]

SHARED_MEMORY = Path("/dev/shm")
PREFIX = f"t{os.getpid():x}_"
"""What the names begin with that this test run makes."""


def mark_shared_memory() -> None:
    """Give what this process names in shared memory the prefix.

    Semaphores of ``multiprocessing``'s children carry it too: they inherit the configuration of their parent.
    """
    multiprocessing.current_process()._config["semprefix"] = f"/{PREFIX}"  # type: ignore[attr-defined]
    multiprocessing.shared_memory._SHM_NAME_PREFIX = f"/{PREFIX}"  # type: ignore[attr-defined]


def shared_memory_of(pids: Iterable[int]) -> set[str]:
    """Names in shared memory that these processes map or hold open (processes that have ended: none)."""
    used: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            used |= {line.split(maxsplit=5)[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()}
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    used.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    folder = f"{SHARED_MEMORY}/"
    return {path.removeprefix(folder).removesuffix(" (deleted)") for path in used if path.startswith(folder)}


def own_shared_memory(before: Iterable[str] = ()) -> set[str]:
    """Names there now and not ``before`` that this test run has made: with its prefix, or in use by its processes."""
    if not SHARED_MEMORY.is_dir():
        return set()
    if not (new := set(os.listdir(SHARED_MEMORY)) - set(before)):
        return set()
    ours = shared_memory_of([os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))])
    return {name for name in new if name.removeprefix("sem.").startswith(PREFIX) or name in ours}
