"""Ends what is left of a Ray cluster that was started for a learner when the learner has ended, in whatever way.

Ray ends most of its processes with the one that has started them, but two of its helpers go on for a minute, and its
folder stays for ever. A guard is a process of its own, which a SIGKILL of the learner does not reach: it waits at a
pipe from the learner, which the system closes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

__all__ = ["ClusterGuard"]

_CLEAR_S = 60.0  # only ends what would go on for ever: nothing survives a SIGKILL
_LOOK_AGAIN_S = 0.1


class ClusterGuard:
    """Guards one cluster, from now on.

    Args:
        folder: in which the cluster, and no other, keeps its files; it is removed at the end.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        read_fd, self._write_fd = os.pipe()
        # By its path: it needs nothing of this package. In a session of its own: Ctrl-C is for the learner.
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(folder)],
            stdin=read_fd,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read_fd)

    def end(self) -> None:
        """End what is left of the cluster, and the guard; returns when there is nothing."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._write_fd, b"\0")  # closing is not enough: a forked child may have the pipe too
        os.close(self._write_fd)
        if self._process.wait() < 0:  # somebody has killed it
            _clear(self._folder)


def _processes_of(folder: Path) -> list[psutil.Process]:
    """Ray's processes that have files open in a folder; not those of others, who may read its logs."""
    return [process for process in psutil.process_iter() if _is_of(process, folder)]


def _is_of(process: psutil.Process, folder: Path) -> bool:
    try:
        words = " ".join(process.cmdline())
        is_rays = words.startswith("ray::") or str(folder) in words
        return is_rays and any(Path(file.path).is_relative_to(folder) for file in process.open_files())
    except psutil.Error:  # it has ended, or is another user's
        return False


def _clear(folder: Path) -> None:
    deadline = time.monotonic() + _CLEAR_S
    while True:
        processes = _processes_of(folder)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if not processes:
            shutil.rmtree(folder, ignore_errors=True)  # who ends just now may still write there: then once more
            if not folder.exists():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{folder} cannot be removed: after {_CLEAR_S:g} s, {len(processes)} processes use it")
        time.sleep(_LOOK_AGAIN_S)


if __name__ == "__main__":
    sys.stdin.buffer.read(1)  # until the learner says so, or has ended
    _clear(Path(sys.argv[1]))
