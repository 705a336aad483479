"""Shared memory: anonymous, inherited by child processes, aligned to cache lines. This module knows no torch."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import reduction
from typing import Any, Final, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError
from keisei_lightning.system.machine import available_memory

__all__ = ["ALIGNMENT", "LaidOutMemory", "SharedBuffer", "aligned"]

ALIGNMENT: Final = 64
"""Bytes of a cache line. Everything in shared memory begins at a multiple of it: no two writers share a line."""

_LOWER_THESE = "lower num_workers, games_per_worker, plies_per_rollout or slots_per_worker"


def aligned(num_bytes: int) -> int:
    """A number of bytes, rounded up to whole cache lines."""
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


class SharedBuffer:
    """Anonymous shared memory that can be passed to a child process while it is being started.

    It is a file descriptor and a mapping, without a name: nothing is left in ``/dev/shm`` however the processes end,
    and the size of ``/dev/shm`` (64 MiB in many containers) does not limit it. The memory is freed when the last
    process has unmapped it.

    Args:
        num_bytes: size; it is reserved at once, so that a machine without it fails here and not by SIGBUS later.

    Raises:
        ConfigError: the machine cannot reserve this much.
    """

    def __init__(self, num_bytes: int) -> None:
        if num_bytes > (available := available_memory()):  # reserving it would call the out-of-memory killer
            raise ConfigError(
                f"shared memory: {num_bytes / 2**20:.0f} MiB are needed and {available / 2**20:.0f} MiB are available; "
                + _LOWER_THESE
            )
        fd = -1
        try:
            if hasattr(os, "memfd_create"):
                fd = os.memfd_create("keisei", os.MFD_CLOEXEC)
            else:  # macOS: an unlinked file is as anonymous
                with tempfile.TemporaryFile() as file:
                    fd = os.dup(file.fileno())
            os.ftruncate(fd, num_bytes)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, num_bytes)
            self._attach(fd, num_bytes)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            raise ConfigError(
                f"shared memory: {num_bytes / 2**20:.0f} MiB cannot be reserved ({error.strerror}); " + _LOWER_THESE
            ) from error

    def _attach(self, fd: int, num_bytes: int) -> None:
        self._fd = fd
        self.num_bytes = num_bytes
        self._map = mmap.mmap(fd, num_bytes)

    def array(self) -> NDArray[np.uint8]:
        """The whole buffer as uint8 [num_bytes]; it keeps the mapping alive."""
        return np.frombuffer(self._map, dtype=np.uint8)

    def close(self) -> None:
        """Close the descriptor (twice is harmless). Arrays made from the buffer stay valid."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # DupFd works only while multiprocessing is starting a child, which is the only time we pickle a buffer.
        return _rebuild_shared_buffer, (reduction.DupFd(self._fd), self.num_bytes)


class _Layout(Protocol):
    @property
    def num_bytes(self) -> int: ...


L = TypeVar("L", bound=_Layout)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaidOutMemory(Generic[L]):
    """Shared memory and its layout, which travel as one object. Every process receives it when it is started.

    Attributes:
        layout: where the columns lie.
        shared: the memory, reserved by :meth:`reserve`.
    """

    layout: L
    shared: SharedBuffer

    @classmethod
    def reserve(cls, layout: L) -> Self:
        """Reserve the memory for a layout.

        Raises:
            ConfigError: the machine cannot reserve this much.
        """
        return cls(layout=layout, shared=SharedBuffer(layout.num_bytes))


def _rebuild_shared_buffer(duplicated: Any, num_bytes: int) -> SharedBuffer:
    buffer = SharedBuffer.__new__(SharedBuffer)
    buffer._attach(duplicated.detach(), num_bytes)
    buffer.close()  # the mapping is enough: a worker never passes it on
    return buffer
