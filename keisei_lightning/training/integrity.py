"""Checkpoints as files: which there are, and whether one is whole. Needs no torch and runs no code of the file.

A checkpoint is a zip archive, as ``torch.save`` writes it, and has a CRC-32 of each of its entries. ``torch.load`` does
not check them, so that a flipped bit in a weight goes unnoticed. Here they are checked.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

__all__ = ["checkpoint_files", "corruption", "create_locked", "remove_stale_temporaries", "temporary_path"]

log = logging.getLogger(__name__)

_TEMPORARIES = ".*.ckpt.*.tmp"


def corruption(path: str | os.PathLike[str]) -> str | None:
    """Find corruption of a checkpoint file.

    Args:
        path: a file. It is read once: about a second for a gigabyte.

    Returns:
        What is wrong, such as "corrupt: the checksum of ... is wrong"; None: every byte is as it was written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except zipfile.BadZipFile as error:
        return f"corrupt or truncated: {error}"
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, struct.error, zlib.error) as error:
        # What zipfile raises where a flipped bit changes the meaning of a field.
        return f"corrupt: {error or type(error).__name__}"
    return None if bad is None else f"corrupt: the checksum of {bad} is wrong"


def checkpoint_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Candidates for ``ckpt_path=last``, best first: the newest ``last.ckpt``, then all others, newest first.

    Args:
        folder: of all runs of one name.

    Returns:
        Empty where there is no ``last.ckpt``.
    """
    files = sorted(Path(folder).rglob("*.ckpt"), key=_modified, reverse=True)
    last = next((file for file in files if file.name == "last.ckpt"), None)
    return [] if last is None else [last, *(file for file in files if file != last)]


def _modified(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:  # removed by a run that is still training
        return 0


def temporary_path(target: Path) -> Path:
    """Where this process writes what will become ``target``: in the same folder, so that a rename is enough."""
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")


def create_locked(path: Path) -> IO[bytes]:
    """Create a temporary file that no clean-up takes away while it is open in this process.

    Another process may clean up between the creation and the lock: then the file is made anew.
    """
    while True:
        file = path.open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # a clean-up holds it for an instant
        except OSError:  # a file system without locks: no clean-up can take one either
            return file
        if _is_at(path, file):
            return file
        file.close()


def _is_at(path: Path, file: IO[bytes]) -> bool:
    """Whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def remove_stale_temporaries(folder: Path, *, recursive: bool = False) -> None:
    """Delete the half-written checkpoints of processes that were killed.

    A process that is writing holds a lock on its file, which ends with the process: files in use are not touched.

    Args:
        folder: where to look.
        recursive: look in the folders below as well.
    """
    for file in folder.rglob(_TEMPORARIES) if recursive else folder.glob(_TEMPORARIES):
        with contextlib.suppress(OSError), file.open("rb") as stale:  # OSError: it is being written, or it is gone
            fcntl.flock(stale, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(file, stale):  # another clean-up was quicker, and its place is taken
                continue
            file.unlink()
            log.info("removed %s, which a killed process left half-written", file)
