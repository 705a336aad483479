"""One USI engine process, driven over three pipes without ever blocking on it.

The Universal Shogi Interface (http://hgm.nubati.net/usi.html) exchanges lines of text::

    we send                             the engine sends
    usi                                 option name ... (any number), usiok
    setoption name ... value ...
    isready                             readyok
    usinewgame
    position sfen ... moves ...
    go nodes 1000                       info ... (any number), bestmove 7g7f
    quit                                (ends)

All other lines are ignored. An engine is a third party's program: it may crash, hang, write nonsense or not quit. Each
of these raises :class:`EngineFault` or ends in a kill, and none makes the caller wait longer than its time limit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Final

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.usi.options import UsiOption, option_commands

__all__ = ["EngineFault", "UsiEngine", "wait_for"]

log = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 65_536
_MAX_CHUNKS: Final = 16  # of one read: an engine that never stops writing must not starve the others
_MAX_LINE_BYTES: Final = 1 << 20
_TAIL_LINES: Final = 3  # of its output, and of its error output, in a message
_MAX_LINE_LENGTH: Final = 200  # of such a line
_QUIT_S: Final = 2.0
_TERMINATE_S: Final = 1.0
_KILL_S: Final = 5.0
_EXIT_S: Final = 1.0


class EngineFault(Exception):
    """The engine crashed, was late or broke the protocol; the text says which."""


class UsiEngine:
    """One engine process, which may be started and stopped several times.

    Only :meth:`stop` blocks. Between calls, :func:`wait_for` waits until an engine has something to read.

    The engine ends with this process: its input is closed, however this process ended. It runs in a session of its own,
    so that Ctrl-C in a terminal does not reach it.

    Args:
        command: program and arguments.
        options: values (str, number or bool) of the engine's own options by name; the case of names, and "_" for " ",
            do not matter. They are checked against what the engine declares, because most engines ignore an unknown
            option or value silently.
        title: the engine's name in messages.
        answer_timeout_s: seconds within which the engine must move.
        startup_timeout_s: seconds within which the engine must send each of ``usiok`` and ``readyok``.
    """

    def __init__(
        self,
        command: Sequence[str],
        options: Mapping[str, object],
        *,
        title: str,
        answer_timeout_s: float,
        startup_timeout_s: float,
    ) -> None:
        self._command = tuple(command)
        self._options = dict(options)
        self._title = title
        self._answer_timeout_s = answer_timeout_s
        self._startup_timeout_s = startup_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._awaited = ""  # first word of the awaited line; empty while the engine is idle
        self._timeout_s = 0.0
        self._deadline = 0.0

    @property
    def is_off(self) -> bool:
        """Whether there is no process."""
        return self._process is None

    @property
    def is_idle(self) -> bool:
        """Whether it can be asked for a move."""
        return self._process is not None and not self._awaited

    @property
    def is_busy(self) -> bool:
        """Whether it has yet to answer."""
        return bool(self._awaited)

    @property
    def deadline(self) -> float:
        """When it must have answered, in seconds of ``time.monotonic``."""
        return self._deadline

    def start(self) -> None:
        """Start the process and send ``usi``; it is idle once :meth:`advance` has read ``usiok`` and ``readyok``.

        Raises:
            EngineFault: the program cannot be started.
        """
        try:
            # Unbuffered, because we read and write without waiting, by file descriptor.
            self._process = subprocess.Popen(
                self._command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise EngineFault(f"the engine cannot be started: {error}") from error
        assert self._process.stdin
        assert self._process.stdout
        assert self._process.stderr
        self._input = self._process.stdin
        self._output = _LineReader(self._process.stdout)
        self._errors = _LineReader(self._process.stderr)
        self._last_output: deque[str] = deque(maxlen=_TAIL_LINES)
        self._last_errors: deque[str] = deque(maxlen=_TAIL_LINES)
        self._declared: list[UsiOption] = []
        self._unsent = bytearray()
        os.set_blocking(self._input.fileno(), False)
        self._send("usi", awaited="usiok", timeout_s=self._startup_timeout_s)

    def ask(self, position: str, go: str) -> None:
        """Ask an idle engine for a move.

        Args:
            position: a USI ``position`` command.
            go: a USI ``go`` command.

        Raises:
            EngineFault: the engine has ended since its last answer.
        """
        self._receive()  # lines that came before the question are no answer to it
        if self._output.ended:
            raise self._ended()
        self._send(position, go, awaited="bestmove", timeout_s=self._answer_timeout_s)

    def advance(self) -> str | None:
        """Send and receive what is possible without blocking.

        Returns:
            The engine's answer to :meth:`ask` (a move, or ``resign``), once; None while there is none.

        Raises:
            EngineFault: the engine has ended or is late.
            ConfigError: the engine has no such option, or does not allow its value.
        """
        self._flush()
        for line in self._receive():
            word, _, rest = line.partition(" ")
            if word == "option" and self._awaited == "usiok":
                if option := UsiOption.parse(rest):
                    self._declared.append(option)
            elif word and word == self._awaited:
                self._awaited = ""
                if word == "bestmove":
                    return (rest.split() or [""])[0]
                if word == "usiok":
                    self._send(*self._commands(), "isready", awaited="readyok", timeout_s=self._startup_timeout_s)
                else:
                    self._send("usinewgame", awaited="", timeout_s=0.0)
        if self._output.ended:
            raise self._ended()
        if self._awaited and time.monotonic() >= self._deadline:
            raise EngineFault(f"the engine sends no {self._awaited} within {self._timeout_s:g} s{self._tail()}")
        return None

    def register(self, selector: selectors.BaseSelector) -> None:
        """Register the pipes that this engine is read from or written to."""
        selector.register(self._output.pipe, selectors.EVENT_READ)
        if not self._errors.ended:
            selector.register(self._errors.pipe, selectors.EVENT_READ)
        if self._unsent:
            selector.register(self._input, selectors.EVENT_WRITE)

    def stop(self, *, send_quit: bool = True) -> None:
        """End the process by ``quit``, then SIGTERM, then SIGKILL, and reap it. May be repeated.

        Args:
            send_quit: begin with ``quit``.
        """
        process, self._process = self._process, None
        self._awaited = ""
        if process is None:
            return
        if send_quit:
            with contextlib.suppress(OSError):  # it may have ended, or not read its input
                os.write(self._input.fileno(), b"quit\n")
        self._input.close()
        if not (send_quit and _ends_within(process, _QUIT_S)):
            if send_quit:
                log.warning("%s: the engine (process %d) does not quit and is terminated", self._title, process.pid)
            for number, timeout_s in ((signal.SIGTERM, _TERMINATE_S), (signal.SIGKILL, _KILL_S)):
                if process.poll() is None:
                    os.killpg(process.pid, number)
                if _ends_within(process, timeout_s):
                    break
            else:
                log.error("%s: the engine (process %d) cannot be killed", self._title, process.pid)
        self._output.pipe.close()
        self._errors.pipe.close()

    def _send(self, *lines: str, awaited: str, timeout_s: float) -> None:
        self._unsent += "".join(f"{line}\n" for line in lines).encode()
        self._awaited, self._timeout_s = awaited, timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._flush()

    def _flush(self) -> None:
        if not self._unsent:
            return
        try:
            sent = os.write(self._input.fileno(), self._unsent)
        except BlockingIOError:
            sent = 0
        except BrokenPipeError:
            sent = len(self._unsent)  # it has closed its input: the end of its output, or the deadline, follows
        del self._unsent[:sent]

    def _receive(self) -> list[str]:
        # Its output first: once that has ended, everything that it wrote to the other pipe is there as well.
        lines = self._output.read()
        self._last_output.extend(line for line in lines if line)
        self._last_errors.extend(line for line in self._errors.read() if line)
        return lines

    def _commands(self) -> list[str]:
        """The ``setoption`` commands."""
        try:
            return option_commands(self._options, self._declared)
        except ConfigError as error:
            raise ConfigError([f"{self._title}: {line}" for line in error.errors]) from None

    def _ended(self) -> EngineFault:
        assert self._process is not None
        if not _ends_within(self._process, _EXIT_S):
            return EngineFault(f"the engine closed its output{self._tail()}")
        status = self._process.returncode
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        return EngineFault(f"the engine ended {how}{self._tail()}")

    def _tail(self) -> str:
        """The last lines of both outputs, with an unfinished one: they may tell why the engine failed."""
        parts = []
        for where, lines, rest in (
            ("it last wrote", self._last_output, self._output.rest),
            ("it last wrote to its error output", self._last_errors, self._errors.rest),
        ):
            if last := [*lines, *([rest] if rest else [])][-_TAIL_LINES:]:
                parts.append(f"; {where}: {' / '.join(map(_shortened, last))}")
        return "".join(parts)


def wait_for(engines: Iterable[UsiEngine]) -> None:
    """Wait until one of these engines has sent something or is late; return at once where none is busy."""
    busy = [engine for engine in engines if engine.is_busy]
    if not busy:
        return
    with selectors.DefaultSelector() as selector:
        for engine in busy:
            engine.register(selector)
        selector.select(max(0.0, min(engine.deadline for engine in busy) - time.monotonic()))


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


class _LineReader:
    """Lines from a pipe; an unfinished line is kept until its end arrives.

    Attributes:
        pipe: the readable end.
        ended: the other end is closed. An unfinished line is dropped then: half a move may be another legal move.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self.pipe = pipe
        self.ended = False
        self._rest = b""
        os.set_blocking(pipe.fileno(), False)

    @property
    def rest(self) -> str:
        """The unfinished line."""
        return self._rest.decode("utf-8", "replace").strip()

    def read(self) -> list[str]:
        """The complete lines that have arrived; does not block."""
        chunks = [self._rest]
        for _ in range(_MAX_CHUNKS):
            try:
                chunk = os.read(self.pipe.fileno(), _CHUNK_BYTES)
            except BlockingIOError:
                break
            if not chunk:
                self.ended = True
                break
            chunks.append(chunk)
        *lines, rest = b"".join(chunks).split(b"\n")
        self._rest = rest if len(rest) <= _MAX_LINE_BYTES else b""  # no line of the protocol is as long
        return [line.decode("utf-8", "replace").strip() for line in lines]


def _shortened(line: str) -> str:
    return line if len(line) <= _MAX_LINE_LENGTH else f"{line[:_MAX_LINE_LENGTH]} ..."
