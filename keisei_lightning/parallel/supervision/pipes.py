"""Pipes: a reader that never waits for the rest of a message, and pipe ends that can be passed to a child process."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["MessageReader", "PipeEnd"]

_LENGTH = struct.Struct("!i")
_CHUNK_BYTES = 65_536
_MAX_CHUNKS = 64  # of one read: a worker that never stops sending must not keep the learner from the others


class MessageReader:
    """Reads the messages that come through one end of a ``multiprocessing.Pipe``.

    ``Connection.recv`` waits until a message is complete. Its sender may have been stopped or killed while it sent the
    message, and one such worker must not block the learner. So this reads what is available, and keeps incomplete
    messages for the next call. The format on the wire is that of ``Connection.send``: four bytes of length
    (big-endian), then the pickle.

    Args:
        connection: the readable end; its owner closes it.
    """

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._buffer = bytearray()

    def read(self) -> list[Any]:
        """Every complete message that has come; does not block.

        Raises:
            EOFError: the other end is closed, and all messages have been read. An incomplete message is dropped.
            OSError: this end is closed.
            pickle.UnpicklingError: the bytes are no message.
        """
        ended = False
        for _ in range(_MAX_CHUNKS):
            if ended or not self._connection.poll():
                break
            try:
                chunk = os.read(self._connection.fileno(), _CHUNK_BYTES)
            except ConnectionResetError:  # it ended without reading what was sent; its own messages were read before
                chunk = b""
            self._buffer += chunk
            ended = not chunk
        messages = self._take_complete()
        if ended and not messages:
            raise EOFError
        return messages

    def _take_complete(self) -> list[Any]:
        messages, start = [], 0
        while len(self._buffer) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer, start)
            if size < 0:  # how a message of 2 GiB begins: no such message is ever sent
                raise pickle.UnpicklingError("a message of impossible length")
            begin, end = start + _LENGTH.size, start + _LENGTH.size + size
            if len(self._buffer) < end:
                break
            messages.append(pickle.loads(self._buffer[begin:end]))
            start = end
        del self._buffer[:start]
        return messages


class PipeEnd:
    """One end of a pipe, which can be passed to a child process while that is being started."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor; twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild_pipe_end, (reduction.DupFd(self._fd),)


def _rebuild_pipe_end(duplicated: Any) -> PipeEnd:
    return PipeEnd(duplicated.detach())
