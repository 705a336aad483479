"""The screen and the keyboard of a game: a terminal, or pipes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Final

from keisei_lightning.commands.play.completion import LineCompletion
from keisei_lightning.play.words import Line, Style
from keisei_lightning.system.stopping import Stopped
from keisei_lightning.system.waking import woken_by_signals

__all__ = ["Interrupts", "Terminal", "wants_colour"]

_COLOURS: Final[dict[Style, str]] = {"title": "1", "note": "2", "error": "31"}

_ECHO: Final = 4  # a terminal shows Ctrl-C as ^C


def wants_colour(colour: str) -> bool:
    """Whether colours are to be shown.

    Args:
        colour: "always", "never" or "auto".
    """
    if colour != "auto":
        return colour == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


class Terminal:
    """Shows lines and asks for them; with a terminal on both sides lines can be edited, and earlier ones come again.

    Args:
        colour: show colours.

    Attributes:
        completion: what TAB completes.
    """

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour
        self._is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self.completion = LineCompletion(is_on=self._is_terminal)
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="backslashreplace")  # what cannot be read is no move, and no error

    def show(self, lines: Iterable[Line]) -> None:
        """Print lines."""
        for line in lines:
            text = line.text if _can_show(line.text) else line.ascii_text or line.text
            code = _COLOURS.get(line.style) if self._colour else None
            sys.stdout.write(f"\x1b[{code}m{text}\x1b[0m\n" if code else f"{text}\n")
        sys.stdout.flush()

    def ask(self, prompt: str) -> str | None:
        """A line; None: there is no further one, or nobody sees what is asked any more (``| head``).

        Raises:
            Stopped: Ctrl-C.
        """
        if getattr(sys.stdout, "failure", None) is not None:  # of the commands' own stream, see system.console
            return None
        try:
            with woken_by_signals():
                if self._is_terminal:
                    return input(prompt)
                sys.stdout.write(prompt)
                sys.stdout.flush()
                line = sys.stdin.readline()
            if not line:
                raise EOFError
            text = line.rstrip("\r\n")
            sys.stdout.write(f"{text}\n")  # a pipe does not echo what it brings
            return text
        except EOFError:
            sys.stdout.write("\n")
            return None
        except Stopped:
            sys.stdout.write("\n")
            raise

    @contextlib.contextmanager
    def thinking(self, name: str, *, can_stop: bool = True) -> Iterator[None]:
        """Context that tells on a terminal who thinks.

        Args:
            name: of who does.
            can_stop: whether Ctrl-C makes it move at once.
        """
        if not self._is_terminal:
            yield
            return
        told = f"{name} thinks{'; Ctrl-C: move now' if can_stop else ''}"
        sys.stdout.write(told)
        sys.stdout.flush()
        try:
            yield
        finally:
            sys.stdout.write(f"\r{' ' * (len(told) + _ECHO)}\r")
            sys.stdout.flush()


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


class Interrupts:
    """Context in which a first Ctrl-C ends the thinking, and not the program. Outside the main thread it does nothing.

    Attributes:
        was_asked: whether Ctrl-C came since the thinking began.
    """

    def __init__(self) -> None:
        self.was_asked = False
        self._thinks = False
        self._before: object = None

    @contextlib.contextmanager
    def thinking(self) -> Iterator[None]:
        """Context that a first Ctrl-C does not interrupt."""
        self.was_asked, self._thinks = False, True
        try:
            yield
        finally:
            self._thinks = False

    def going(self) -> bool:
        """Whether the thinking goes on."""
        return not self.was_asked

    def __enter__(self) -> Interrupts:
        is_main = threading.current_thread() is threading.main_thread()
        # An ignored signal stays ignored: a shell ignores SIGINT for its background jobs.
        if is_main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._before = signal.signal(signal.SIGINT, self._asked)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]

    def _asked(self, signum: int, _frame: FrameType | None) -> None:
        if not self._thinks or self.was_asked:
            raise Stopped(signum)
        self.was_asked = True
