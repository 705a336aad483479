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
    """Names in shared memory that these processes map or hold open (processes that have ended: none).

    Files are told by device and inode: a semaphore is mapped under another name before it gets its own.
    """
    names = {}
    for entry in os.scandir(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else ():
        with contextlib.suppress(OSError):
            status = entry.stat()
            names[status.st_dev, status.st_ino] = entry.name
    used: set[tuple[int, int]] = set()
    for pid in pids if names else ():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                _, _, _, device, inode, *path = line.split(maxsplit=5)
                if path and path[0].startswith(f"{SHARED_MEMORY}/"):
                    major, minor = (int(number, 16) for number in device.split(":"))
                    used.add((os.makedev(major, minor), int(inode)))
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"/proc/{pid}/fd/{descriptor}")
                    used.add((status.st_dev, status.st_ino))
    return {name for file, name in names.items() if file in used}


def own_shared_memory(before: Iterable[str] = ()) -> set[str]:
    """Names there now and not ``before`` that this test run has made: with its prefix, or in use by its processes."""
    if not SHARED_MEMORY.is_dir():
        return set()
    if not (new := set(os.listdir(SHARED_MEMORY)) - set(before)):
        return set()
    ours = shared_memory_of([os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))])
    return {name for name in new if name.removeprefix("sem.").startswith(PREFIX) or name in ours}
