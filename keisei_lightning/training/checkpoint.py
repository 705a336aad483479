"""Atomic checkpoints: how Lightning writes and reads them.

What they say about themselves, and the function that loads every one of them, is in ``checkpoint_header.py``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import CheckpointIO

from keisei_lightning.system.stopping import temporary_file, uninterruptible
from keisei_lightning.training.checkpoint_header import load_checked, refused_global
from keisei_lightning.training.integrity import corruption, create_locked, remove_stale_temporaries, temporary_path
from keisei_lightning.training.saveable import first_unsaveable

__all__ = ["AtomicCheckpointIO", "UnsaveableStateError"]


class UnsaveableStateError(TypeError):
    """A checkpoint holds something that could not be read back without running code.

    Args:
        path: the file that was not written.
        content: what it holds, and where.

    Attributes:
        reason: the same, with what a checkpoint may hold.
    """

    def __init__(self, path: Path, content: str) -> None:
        self.reason = f"{content}; states must be made of numbers, strings, lists, dictionaries and tensors"
        super().__init__(f"{path}: the checkpoint was not saved, since it could not be loaded again: {self.reason}")


class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint beside its target, reads it back, then renames it: a reader sees the old file or the new one.

    Lightning's own ignores a permission error, and moves its temporary file across file systems, which is a plain copy.
    Here every error is raised, and no temporary file is left behind; one that a process left which was killed during a
    save is deleted by the next save into that folder.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to ``path``; it is on the disk when this returns.

        Raises:
            OSError: it cannot be written, or not be read back; an older file at ``path`` is as it was.
            UnsaveableStateError: it holds something that could not be read back without running code.
            TypeError: ``storage_options``, which are not supported.
        """
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO has no storage_options")
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_stale_temporaries(target.parent)
            with (
                uninterruptible(),
                temporary_file(temporary_path(target)) as temporary,
                create_locked(temporary) as file,
            ):
                _write(checkpoint, file)
                _check_written(temporary, target, checkpoint)
                os.replace(temporary, target)
        except OSError as error:
            raise type(error)(error.errno, f"{error.strerror} (the checkpoint was not saved)", str(target)) from error
        _sync_directory(target.parent)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Callable[[Any, Any], Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint; no code in it is run.

        Raises:
            FileNotFoundError: there is no such file.
            ConfigError: it is corrupt, or holds more than primitives and tensors.
            ValueError: ``weights_only=False``, which would run code from the file.
        """
        if weights_only is False:
            raise ValueError(f"weights_only=False: refused for {path}, it would run code from the file; leave it out")
        if not Path(path).is_file():
            raise FileNotFoundError(f"checkpoint file not found: {path}")
        loaded: dict[str, Any] = load_checked(path, map_location=map_location)
        return loaded

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)


class _ErrorRecordingFile:
    """A file for ``torch.save`` that keeps the error of a failed write: torch reports only a wrong position."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _write(checkpoint: dict[str, Any], file: IO[bytes]) -> None:
    """Write all of it to the disk.

    Raises:
        OSError: the disk is full, say.
    """
    recorder = _ErrorRecordingFile(file)
    try:
        torch.save(checkpoint, recorder)  # type: ignore[arg-type]  # torch calls no more than these two
        file.flush()
        os.fsync(file.fileno())
    except RuntimeError as error:
        if recorder.error is None:
            raise
        raise recorder.error from error


def _check_written(temporary: Path, target: Path, checkpoint: dict[str, Any]) -> None:
    """Read back what was written: an unreadable checkpoint must be known now, not when it is needed."""
    if (problem := corruption(temporary)) is not None:
        raise OSError(errno.EIO, f"what was written cannot be read back, it is {problem}")
    try:
        torch.load(temporary, map_location="cpu", weights_only=True, mmap=True)  # mapped: no weight is read twice
    except pickle.UnpicklingError as error:
        raise UnsaveableStateError(target, first_unsaveable(checkpoint) or refused_global(error)) from error


def _sync_directory(directory: Path) -> None:
    """Flush a rename to the disk, where the system can (POSIX)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
