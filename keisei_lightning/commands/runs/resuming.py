"""``keisei runs resume``: the command that resumes a run, for a shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from keisei_lightning.commands.runs.options import ResumeOptions
from keisei_lightning.config.quoting import override_word, resumed_words
from keisei_lightning.errors import ConfigError
from keisei_lightning.results_folder import read_options, resolve_run, summarize_run
from keisei_lightning.results_folder.options_of_run import read_overrides, working_folder
from keisei_lightning.system.paths import one_line
from keisei_lightning.training.integrity import checkpoint_files, corruption

__all__ = ["command_of", "newest_whole_checkpoint", "resume_line", "resume_runs"]


def resume_runs(options: ResumeOptions) -> None:
    """Print the command, and nothing else: ``eval "$(keisei runs resume last)"`` runs it.

    Raises:
        ConfigError: there is no such run, or nothing to resume from.
    """
    run = resolve_run(options.runs[0], options.root)
    print(resume_line(run, epochs=options.epochs))  # noqa: T201 - as it is: an escape would be another command


def command_of(run: Path) -> list[str]:
    """The words of the command that began a run.

    Args:
        run: its folder.

    Raises:
        ConfigError: it was no ``keisei train``, or its words cannot be read.
    """
    try:
        options, words = read_options(run), read_overrides(run)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{one_line(str(run))}: how it was begun cannot be read ({error})") from error
    if not {"env", "trainer"} <= options.keys():
        raise ConfigError(f"{one_line(str(run))}: was begun by a program of somebody's own; resume it by its ckpt_path")
    if any(not word.isprintable() for word in words):
        raise ConfigError(f"{one_line(str(run))}: its words hold control characters")
    return ["keisei", "train", *words]


def resume_line(run: Path, *, epochs: int | None = None) -> str:
    """The command that resumes a run, quoted for a shell, in the folder where the run was begun.

    Args:
        run: its folder.
        epochs: ``trainer.max_epochs``; None: twice as many if all are done, else as before.

    Raises:
        ConfigError: the run is going on, or it has no whole checkpoint, or how it was begun is not known.
    """
    summary = summarize_run(run, run.parent)
    if summary.state == "running":
        raise ConfigError(f"{one_line(str(run))}: is going on ({summary.reason}); stop it first")
    program, verb, *task = command_of(run)
    checkpoint = newest_whole_checkpoint(run)
    is_done = summary.epochs is not None and summary.max_epochs is not None and summary.epochs >= summary.max_epochs
    if epochs is None and is_done and summary.max_epochs is not None:
        epochs = 2 * summary.max_epochs
    folder = working_folder(run)
    here = Path.cwd()
    place = folder if folder is not None and folder.is_dir() else here
    absolute = checkpoint.resolve()
    path = os.path.relpath(absolute, place) if absolute.is_relative_to(place) else str(absolute)
    if not f"{path}{place}".isprintable():
        raise ConfigError(f"{one_line(str(run))}: its path holds control characters, which no command should have")
    words = [override_word("ckpt_path", path)]
    if epochs is not None:
        words.append(f"trainer.max_epochs={epochs}")
    command = shlex.join([program, verb, *resumed_words(task, words)])
    return command if place == here else f"cd {shlex.quote(str(place))} && {command}"


def newest_whole_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run that is whole.

    Args:
        run: its folder.

    Raises:
        ConfigError: there is none.
    """
    files = checkpoint_files(run / "checkpoints") or sorted((run / "checkpoints").glob("*.ckpt"), reverse=True)
    for file in files:
        if corruption(file) is None:
            return file
    reason = "its checkpoints are corrupt" if files else "it has no checkpoint"
    raise ConfigError(f"{one_line(str(run))}: {reason}, so that nothing can be read from it")
