"""A command on a terminal of its own, typed by a test: lines in, and what the screen shows."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 300.0

__all__ = ["Screen"]


class Screen:
    """Context with a running ``keisei`` on a pseudo-terminal of 80 columns.

    Args:
        words: after ``keisei``.
        folder: where it runs.
        environment: further variables.
        program: what Python runs in place of ``keisei``.
    """

    def __init__(
        self,
        words: list[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "keisei_lightning"),
    ) -> None:
        self._own, terminal = pty.openpty()
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80", **(environment or {})}
        try:
            self.process = subprocess.Popen(
                [sys.executable, *program, *words],
                cwd=folder,
                env=variables,
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
            )
        finally:
            os.close(terminal)
        self.shown = ""
        self._bytes = b""
        self._seen = 0  # characters of it, up to the end of what was read for last

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._own)

    def read_until(self, pattern: str) -> str:
        """Read on to the end of a regular expression; what was read up to there, without colours."""
        begin, deadline = self._seen, time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self.shown[begin:])) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.shown[begin:]!r}"
            assert self._read(), f"it ended without {pattern!r}: {self.shown[begin:]!r}"
        self._seen = begin + found.end()
        return self.shown[begin : self._seen]

    def type(self, line: str) -> None:
        """Type a line."""
        self.press(f"{line}\n")

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._own, keys.encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self, *, end_of_input: bool = False) -> int:
        """Read to the end, after Ctrl-D if it is asked for; the exit code."""
        if end_of_input:
            os.write(self._own, b"\x04")
        deadline = time.monotonic() + PATIENCE_S
        while self._read():
            assert time.monotonic() < deadline, self.shown
        return self.process.wait(timeout=PATIENCE_S)

    def _read(self) -> bool:
        """Read what there is, for a moment; whether there may be more."""
        ready, _, _ = select.select([self._own], [], [], 0.1)
        if not ready:
            return True
        try:
            data = os.read(self._own, 65536)
        except OSError:  # Linux says so when the other side is closed
            return False
        self._bytes += data  # all anew: a code or a character may come in two parts
        text = self._bytes.decode(errors="replace").replace("\r\n", "\n")
        self.shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text)
        return bool(data)
