"""Lines in and lines out, over pipes that may end, break or carry anything."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Iterator
from typing import Final

__all__ = ["MAX_LINE_BYTES", "LineReader", "LineWriter"]

MAX_LINE_BYTES: Final = 1 << 20
"""A longer line is dropped; a game of a thousand moves takes a few thousand bytes."""

_CHUNK_BYTES: Final = 1 << 16


class LineReader:
    """Lines of a file descriptor, until it ends or :meth:`close` is called from any thread.

    Args:
        descriptor: readable.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._wake_reader, self._wake_writer = os.pipe()
        self._is_closed = False

    def close(self) -> None:
        """End :meth:`lines`, also where it waits."""
        self._is_closed = True
        with contextlib.suppress(OSError):  # lines() has ended already
            os.write(self._wake_writer, b"x")

    def lines(self) -> Iterator[str | None]:
        """Each line without its end; what is no UTF-8 is replaced; None for a line that is too long."""
        rest, is_too_long = bytearray(), False
        try:
            while not self._is_closed:
                readable, _, _ = select.select([self._descriptor, self._wake_reader], [], [])
                if self._descriptor not in readable:
                    return
                try:
                    chunk = os.read(self._descriptor, _CHUNK_BYTES)
                except OSError:  # a terminal that is gone
                    chunk = b""
                if not chunk:
                    if rest and not is_too_long:
                        yield rest.decode("utf-8", "replace")
                    return
                *complete, last = chunk.split(b"\n")
                for part in complete:
                    rest += part
                    line = None if is_too_long or len(rest) > MAX_LINE_BYTES else rest.decode("utf-8", "replace")
                    rest, is_too_long = bytearray(), False
                    yield line
                rest += last
                if len(rest) > MAX_LINE_BYTES:
                    rest, is_too_long = bytearray(), True
        finally:
            os.close(self._wake_reader)
            os.close(self._wake_writer)


class LineWriter:
    """Writes lines whole, from any thread, and each at once; from the first write that fails it drops all.

    Args:
        descriptor: writable.
        reader: is closed when a write has failed: nobody listens any more.
    """

    def __init__(self, descriptor: int, reader: LineReader) -> None:
        self._descriptor, self._reader = descriptor, reader
        self._lock = threading.Lock()
        self.has_failed = False
        """Whether nobody can be told anything any more."""

    def write(self, *lines: str) -> None:
        """Write some lines, one after another.

        Args:
            lines: line breaks within one are blanks.
        """
        text = "".join(f"{' '.join(line.splitlines())}\n" for line in lines)
        data = memoryview(text.encode("utf-8", "replace"))
        with self._lock:
            while data and not self.has_failed:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except OSError:  # a broken pipe, a closed descriptor, a full disk
                    self.has_failed = True
        if self.has_failed:
            self._reader.close()
