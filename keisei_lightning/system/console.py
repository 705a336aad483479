"""What a person sees: log lines above the progress bar, a table at the start, a summary at the end.

And what happens where nobody sees it: a run whose output has no reader any more (``| head``, a ``tee`` that Ctrl-C has
ended, a terminal that was closed, a full disk) is not ended by that.
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
    """A standard stream that drops what cannot be written, from the first failure on.

    Everything but writing is the stream's own.

    Args:
        stream: standard output or standard error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        """Why nothing is written any more."""

    def write(self, text: str) -> int:
        """Write, if somebody reads; text that the stream's encoding lacks is written with escapes."""
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        """Flush, if somebody reads."""
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
    """Context in which printing never fails: not to a broken pipe, and not where a stream was closed (``>&-``).

    Returns:
        Standard output; its ``failure`` tells whether everything has been printed.
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
    """Open the standard streams that are closed, to nowhere: else the next file that is opened would be one of them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free is this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process


def say(*lines: str) -> None:
    """Tell something on standard error, a line each.

    Args:
        lines: what to tell; control characters, which a file's or a folder's name may have, are shown as escapes.
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
    """Take library chatter off the screen that tells a user of this program nothing; each line says why."""
    # The loader hands out minibatches of a rollout that worker processes have played: it needs no workers of its own.
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    # torchrl's own deprecated classes, as it is imported.
    warnings.filterwarnings("ignore", message=r"Creating .* which inherits from WeightUpdaterBase is deprecated")
    # A run of few optimiser steps is no mistake here (smoke, quickstart).
    warnings.filterwarnings("ignore", message=r".*smaller than the logging interval.*")
    # A run that resumes from another one has a folder of its own: which old checkpoints were kept there is no matter.
    warnings.filterwarnings("ignore", message=r"The dirpath has changed from")
    # A deprecation inside Lightning, of torch's own tree functions.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated")
    # Lightning prints its log lines itself, besides handing them on: each would be on the screen twice.
    for name in ("lightning", "lightning.fabric", "lightning.pytorch"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # "GPU available: False", "TPU available: ...", tips to use other products: the start table says what is used.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.rank_zero").setLevel(logging.WARNING)
    # Matplotlib tells how it builds its font cache.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)


def print_table(title: str, rows: Mapping[str, object] | Iterable[tuple[str, object]]) -> None:
    """Print two columns, names and values; values are printed as they are, whole.

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
