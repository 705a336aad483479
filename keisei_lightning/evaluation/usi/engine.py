"""One engine that speaks USI, behind three pipes, without ever waiting for it.

The Universal Shogi Interface (http://hgm.nubati.net/usi.html) is a conversation in lines of text::

    we say                              the engine answers
    usi                                 option name ... (any number), usiok
    setoption name ... value ...
    isready                             readyok
    usinewgame
    position sfen ... moves ...
    go nodes 1000                       info ... (any number), bestmove 7g7f
    quit                                (ends)

Whatever else it says is commentary and passed over. An engine is somebody else's program: it may crash, hang, talk
nonsense or refuse to quit. Each of these is an :class:`EngineFault` or ends in a kill; none of them makes us wait for
longer than the time that its caller has set.
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
_MAX_CHUNKS: Final = 16  # of one reading: an engine that never stops talking must not keep us from the others
_MAX_LINE_BYTES: Final = 1 << 20
_LAST_WORDS: Final = 3  # lines of its output, and of its error output, that a message repeats
_MAX_LETTERS: Final = 200  # of such a line
_QUIT_S: Final = 2.0
_TERMINATE_S: Final = 1.0
_KILL_S: Final = 5.0
_EXIT_S: Final = 1.0


class EngineFault(Exception):
    """The engine did something that it must not; the text says what."""


class UsiEngine:
    """One engine process; it may be started, stopped and started again.

    No method waits, except :meth:`stop`. Between them, :func:`wait_for` waits until there is something to do.

    The engine ends when we do: it sees the end of its input, however we ended. It is in a session of its own, so that
    Ctrl-C in a terminal reaches us and not the engine.

    Args:
        command: program and arguments.
        options: texts, numbers and truth values of the engine's own options by name; case of names, and "_" for " ",
            do not matter. They are compared with what the engine declares: most engines pass over an option or a value
            that they do not know, without a word.
        title: who it is, in messages.
        answer_timeout_s: seconds that a move may take.
        startup_timeout_s: seconds that each of the two answers at the start may take.
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
        self._awaited = ""  # the word that we wait for; empty while the engine owes nothing
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
        """Whether it owes an answer."""
        return bool(self._awaited)

    @property
    def deadline(self) -> float:
        """Time of ``time.monotonic`` in seconds, by which it must have answered."""
        return self._deadline

    def start(self) -> None:
        """Start the process and greet it; it is idle when :meth:`advance` has seen both of its answers.

        Raises:
            EngineFault: the program cannot be run.
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
        self._last_output: deque[str] = deque(maxlen=_LAST_WORDS)
        self._last_errors: deque[str] = deque(maxlen=_LAST_WORDS)
        self._declared: list[UsiOption] = []
        self._unsent = bytearray()
        os.set_blocking(self._input.fileno(), False)
        self._say("usi", awaited="usiok", timeout_s=self._startup_timeout_s)

    def ask(self, position: str, go: str) -> None:
        """Ask an idle engine for a move.

        Args:
            position: a USI ``position`` command.
            go: a USI ``go`` command.

        Raises:
            EngineFault: it has ended since its last answer.
        """
        self._hear()  # what it said unasked is no answer
        if self._output.ended:
            raise self._ended()
        self._say(position, go, awaited="bestmove", timeout_s=self._answer_timeout_s)

    def advance(self) -> str | None:
        """Go on with the conversation as far as it goes without waiting.

        Returns:
            The engine's answer to :meth:`ask` (a move, or ``resign``), once; None while there is none.

        Raises:
            EngineFault: it has ended or is late.
            ConfigError: it has no such option, or not with that value.
        """
        self._send()
        for line in self._hear():
            word, _, rest = line.partition(" ")
            if word == "option" and self._awaited == "usiok":
                if option := UsiOption.parse(rest):
                    self._declared.append(option)
            elif word and word == self._awaited:
                self._awaited = ""
                if word == "bestmove":
                    return (rest.split() or [""])[0]
                if word == "usiok":
                    self._say(*self._commands(), "isready", awaited="readyok", timeout_s=self._startup_timeout_s)
                else:
                    self._say("usinewgame", awaited="", timeout_s=0.0)
        if self._output.ended:
            raise self._ended()
        if self._awaited and time.monotonic() >= self._deadline:
            raise EngineFault(f"the engine says no {self._awaited} within {self._timeout_s:g} s{self._epitaph()}")
        return None

    def register(self, selector: selectors.BaseSelector) -> None:
        """Name everything that this engine may have to do with us."""
        selector.register(self._output.pipe, selectors.EVENT_READ)
        if not self._errors.ended:
            selector.register(self._errors.pipe, selectors.EVENT_READ)
        if self._unsent:
            selector.register(self._input, selectors.EVENT_WRITE)

    def stop(self, *, politely: bool = True) -> None:
        """End the process and reap it: by ``quit``, by SIGTERM, by SIGKILL, whatever it takes. May be repeated.

        Args:
            politely: begin with ``quit``.
        """
        process, self._process = self._process, None
        self._awaited = ""
        if process is None:
            return
        if politely:
            with contextlib.suppress(OSError):  # it may be gone, or not be listening: that is what the rest is for
                os.write(self._input.fileno(), b"quit\n")
        self._input.close()
        if not (politely and _ends_within(process, _QUIT_S)):
            if politely:
                log.warning("%s: the engine (process %d) does not quit and is terminated", self._title, process.pid)
            for number, patience_s in ((signal.SIGTERM, _TERMINATE_S), (signal.SIGKILL, _KILL_S)):
                if process.poll() is None:
                    os.killpg(process.pid, number)
                if _ends_within(process, patience_s):
                    break
            else:
                log.error("%s: the engine (process %d) cannot be killed", self._title, process.pid)
        self._output.pipe.close()
        self._errors.pipe.close()

    def _say(self, *lines: str, awaited: str, timeout_s: float) -> None:
        self._unsent += "".join(f"{line}\n" for line in lines).encode()
        self._awaited, self._timeout_s = awaited, timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._send()

    def _send(self) -> None:
        if not self._unsent:
            return
        try:
            sent = os.write(self._input.fileno(), self._unsent)
        except BlockingIOError:
            sent = 0
        except BrokenPipeError:
            sent = len(self._unsent)  # it listens no more: the end of its output, or the clock, will tell
        del self._unsent[:sent]

    def _hear(self) -> list[str]:
        # Its output first: where that has ended, all that it wrote to the other pipe is there as well.
        lines = self._output.read()
        self._last_output.extend(line for line in lines if line)
        self._last_errors.extend(line for line in self._errors.read() if line)
        return lines

    def _commands(self) -> list[str]:
        """The ``setoption`` commands."""
        try:
            return option_commands(self._options, self._declared)
        except ConfigError as error:
            raise ConfigError([f"{self._title}: {fault}" for fault in error.faults]) from None

    def _ended(self) -> EngineFault:
        assert self._process is not None
        if not _ends_within(self._process, _EXIT_S):
            return EngineFault(f"the engine closed its output{self._epitaph()}")
        status = self._process.returncode
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        return EngineFault(f"the engine ended {how}{self._epitaph()}")

    def _epitaph(self) -> str:
        """What it wrote last, to both of its outputs, with half a line where it ended in one: that may tell why."""
        said = []
        for where, lines, rest in (
            ("it last wrote", self._last_output, self._output.rest),
            ("it last wrote to its error output", self._last_errors, self._errors.rest),
        ):
            if last := [*lines, *([rest] if rest else [])][-_LAST_WORDS:]:
                said.append(f"; {where}: {' / '.join(map(_shortened, last))}")
        return "".join(said)


def wait_for(engines: Iterable[UsiEngine]) -> None:
    """Wait until one of these engines has something for us, or is late; returns at once where none is busy."""
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
    """The lines that come through a pipe; half a line is kept until the rest is there.

    Attributes:
        pipe: the readable end.
        ended: the other end is closed. Half a line is no line then: half a move may be another move.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self.pipe = pipe
        self.ended = False
        self._rest = b""
        os.set_blocking(pipe.fileno(), False)

    @property
    def rest(self) -> str:
        """The half of a line that has come so far."""
        return self._rest.decode("utf-8", "replace").strip()

    def read(self) -> list[str]:
        """The whole lines that are there; does not wait."""
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
        self._rest = rest if len(rest) <= _MAX_LINE_BYTES else b""  # a line as long as that holds nothing for us
        return [line.decode("utf-8", "replace").strip() for line in lines]


def _shortened(line: str) -> str:
    return line if len(line) <= _MAX_LETTERS else f"{line[:_MAX_LETTERS]} ..."
