"""What a person sees: log lines above the progress bar, a table at the start, a summary at the end."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Mapping

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["ConsoleHandler", "print_table", "quiet_libraries"]


class ConsoleHandler(logging.Handler):
    """Writes log lines to whatever standard error is at that moment.

    While a rich progress bar is on the screen it stands in for ``sys.stderr`` and prints lines above itself; a handler
    that remembered the stream it was made with would write into the bar.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a warning or worse says so."""
        try:
            prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
            sys.stderr.write(f"{prefix}{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - logging must never end a training run
            self.handleError(record)


def quiet_libraries() -> None:
    """Take library chatter off the screen that tells a user of this program nothing; each line says why."""
    # The loader hands out minibatches of a rollout that worker processes have played: it needs no workers of its own.
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    # torchrl's own deprecated classes, as it is imported.
    warnings.filterwarnings("ignore", message=r"Creating .* which inherits from WeightUpdaterBase is deprecated")
    # A run of few optimiser steps is no mistake here (smoke, quickstart).
    warnings.filterwarnings("ignore", message=r".*smaller than the logging interval.*")
    # A run that goes on from another one has a folder of its own: which old checkpoints were kept there is no matter.
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
