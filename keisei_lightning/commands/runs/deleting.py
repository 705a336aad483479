"""``keisei runs delete``."""

from __future__ import annotations

import sys

from keisei_lightning.commands.runs.options import DeleteOptions
from keisei_lightning.commands.runs.text import print_lines, size
from keisei_lightning.errors import ConfigError, KeiseiError
from keisei_lightning.results_folder import delete_run, disk_use, resolve_run
from keisei_lightning.results_folder.deletion import check_deletable
from keisei_lightning.system.paths import one_line
from keisei_lightning.system.waking import woken_by_signals

__all__ = ["delete_runs"]


def delete_runs(options: DeleteOptions) -> None:
    """Delete runs, after asking for each; where one may not be deleted, none is.

    Raises:
        ConfigError: with a line for each that may not be deleted; or nobody can be asked.
        KeiseiError: a file cannot be deleted.
    """
    runs = list(dict.fromkeys(resolve_run(word, options.root) for word in options.runs))
    errors: list[str] = []
    for run in runs:
        try:
            check_deletable(run, options.root)
        except ConfigError as error:
            errors += error.errors
    if errors:
        raise ConfigError(errors)
    if not options.yes and not sys.stdin.isatty():
        raise ConfigError("runs delete: asks before it deletes, and there is nobody to ask; yes=true deletes at once")
    for run in runs:
        what = f"{one_line(str(run))} ({size(disk_use(run).total)})"
        if not options.yes and not _agreed(f"delete {what}? [y/N] "):
            print_lines([f"kept {what}"])
            continue
        try:
            delete_run(run, options.root)
        except OSError as error:
            raise KeiseiError(f"{run}: cannot be deleted ({error})") from error
        print_lines([f"deleted {what}"])


def _agreed(question: str) -> bool:
    sys.stdout.write(question)
    sys.stdout.flush()
    with woken_by_signals():
        return sys.stdin.readline().strip().lower() in ("y", "yes")
