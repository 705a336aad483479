"""The terminal: log lines above the progress bar, tables, and standard streams that never end a run.

A run goes on if its output has no reader any more (``| head``, a ``tee`` that Ctrl-C ended, a closed terminal) or no
place (a full disk).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["ConsoleHandler", "Output", "bar_on_screen", "print_table", "quiet_libraries", "say", "standard_output"]


class Output:
    """A standard stream that drops its output from the first write that fails.

    All other operations are those of the stream.

    Args:
        stream: standard output or standard error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        """The first failure; None: everything has been written."""

    def write(self, text: str) -> int:
        """Write, unless a write has failed; characters that the encoding lacks are escaped."""
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        """Flush, unless a write has failed."""
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failure = error
        # What is still in its buffer must go somewhere, or the interpreter fails as it ends (exit code 120).
        with contextlib.suppress(OSError, ValueError):  # a stream in memory has no descriptor
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        """All else, such as ``isatty`` and ``fileno``."""
        return getattr(self._stream, name)


@contextlib.contextmanager
def standard_output() -> Iterator[Output]:
    """Context in which printing never fails, even to a broken pipe or a closed stream (``>&-``).

    Returns:
        Standard output; its ``failure`` is None if everything was printed.
    """
    _open_closed()
    before = sys.stdout, sys.stderr
    out, err = Output(sys.stdout), Output(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        if (sys.stdout, sys.stderr) == (out, err):  # a progress bar that a signal has ended may have left its own
            sys.stdout, sys.stderr = before
        if out.failure is not None and out.failure.errno != errno.EPIPE:
            say(f"standard output: {out.failure.strerror}; what was printed after that is lost")


def _open_closed() -> None:
    """Open closed standard streams to the null device: the next file would get their descriptors otherwise."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free is this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process


def say(*lines: str) -> None:
    """Print lines to standard error, each with the program's name.

    Args:
        lines: control characters, which a file's or a folder's name may have, are escaped.
    """
    for line in lines:
        text = "".join(
            character.encode("unicode_escape").decode()
            if unicodedata.category(character) in ("Cc", "Cs")
            else character
            for character in line
        )
        sys.stderr.write(f"keisei: {text}\n")


class ConsoleHandler(logging.StreamHandler[TextIO]):
    """Writes log lines to standard error; a warning or worse says so."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, such as "warning: [worker 3.0] ..."."""
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return prefix + super().format(record)


@contextlib.contextmanager
def bar_on_screen(bar: Progress) -> Iterator[None]:
    """Context in which a progress bar is shown, and log lines are printed above it.

    While a bar is live, rich replaces ``sys.stdout`` and ``sys.stderr``; a log handler that was made before holds the
    real ones, and would write into the middle of the bar.

    Args:
        bar: not started; one that is disabled changes nothing.
    """
    real = sys.stdout, sys.stderr
    try:
        bar.start()
        with _redirected_handlers(zip(real, (sys.stdout, sys.stderr), strict=True)):
            yield
    finally:
        bar.stop()


@contextlib.contextmanager
def _redirected_handlers(streams: Iterable[tuple[TextIO, TextIO]]) -> Iterator[None]:
    """Context in which all log handlers of a stream write to another one.

    Args:
        streams: pairs of a stream and its replacement.
    """
    replacements = {id(real): replacement for real, replacement in streams if real is not replacement}
    loggers = [
        logging.getLogger(),
        *(x for x in logging.root.manager.loggerDict.values() if isinstance(x, logging.Logger)),
    ]
    redirected = []
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if isinstance(handler, logging.StreamHandler) and id(handler.stream) in replacements:
            redirected.append((handler, handler.stream))
            handler.setStream(replacements[id(handler.stream)])
    try:
        yield
    finally:
        for handler, stream in redirected:
            handler.setStream(stream)


def quiet_libraries() -> None:
    """Silence library messages that mean nothing to a user of this program."""
    # The loader hands out minibatches of a rollout that worker processes have played: it needs no workers of its own.
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    # torchrl's own deprecated classes, as it is imported.
    warnings.filterwarnings("ignore", message=r"Creating .* which inherits from WeightUpdaterBase is deprecated")
    # A run of few optimiser steps is intended here (smoke, quickstart).
    warnings.filterwarnings("ignore", message=r".*smaller than the logging interval.*")
    # A run that resumes from another one has a folder of its own: which old checkpoints were kept there is no matter.
    warnings.filterwarnings("ignore", message=r"The dirpath has changed from")
    # A deprecation inside Lightning, of torch's own tree functions.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated")
    # Lightning prints its log lines and passes them on: each would be on the screen twice.
    for name in ("lightning", "lightning.fabric", "lightning.pytorch"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # "GPU available: False", "TPU available: ...", tips to use other products: the start table says what is used.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.rank_zero").setLevel(logging.WARNING)
    # "Initializing distributed", and a line of dashes: the start table tells the number of ranks.
    logging.getLogger("lightning.fabric.utilities.distributed").setLevel(logging.WARNING)
    # Matplotlib logs that it builds its font cache.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)


def print_table(title: str, rows: Mapping[str, object] | Iterable[tuple[str, object]]) -> None:
    """Print two columns, names and values; no value is wrapped or cut.

    Args:
        title: a line above the table.
        rows: pairs; a value of None leaves its row out.
    """
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    pairs = [(name, str(value)) for name, value in dict(rows).items() if value is not None]
    for name, value in pairs:
        table.add_row(Text(name), Text(value))
    console = Console(highlight=False, markup=False)
    # A path that is broken over two lines cannot be copied: the terminal wraps lines better than a table does.
    needed = sum(max((cell_len(pair[column]) for pair in pairs), default=0) for column in (0, 1)) + 4
    console.width = max(console.width, needed)
    console.print(table)
