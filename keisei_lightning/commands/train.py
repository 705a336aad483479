"""From a command line to an exit code (``exit_codes.py``): compose, validate, run. Stopped, ``ckpt_path=last`` resumes.

Torch and Lightning are imported only after the configuration has been found good: a mistyped command answers at once.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator, Sequence

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from keisei_lightning.commands.exit_codes import BAD_USAGE, DONE, FAILED, exit_code_of
from keisei_lightning.commands.help_texts import asks_for_help
from keisei_lightning.commands.hydra_checks import Refused, validated
from keisei_lightning.commands.sweep import collected_jobs, print_summary
from keisei_lightning.commands.train_help import help_text
from keisei_lightning.config.compose_errors import COMPOSE_ERRORS, explain
from keisei_lightning.config.quoting import quote_texts
from keisei_lightning.config.schemas import config_dir, register_configs
from keisei_lightning.errors import ConfigError
from keisei_lightning.system.allocator import keep_freed_memory
from keisei_lightning.system.console import say, standard_output
from keisei_lightning.system.openmp import governed_spinning, limit_spinning
from keisei_lightning.system.stopping import Stopped, StopSignals

__all__ = ["Stopped", "main"]

log = logging.getLogger("keisei_lightning")


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says.

    Args:
        argv: Hydra overrides and flags, without the program's name; None takes ``sys.argv``.

    Returns:
        The exit code (:mod:`keisei_lightning.commands.exit_codes`).
    """
    # As it ends, the interpreter looks several times for cycles among all that torch and Lightning have made, which
    # takes two to four seconds: too long for a person who pressed Ctrl-C.
    atexit.register(gc.freeze)
    keep_freed_memory()
    limit_spinning()
    words = _sweep_first(quote_texts(sys.argv[1:] if argv is None else argv))
    with standard_output(), collected_jobs() as jobs, governed_spinning():
        try:
            register_configs()
            if asks_for_help(words):
                sys.stdout.write(help_text(words))
                return DONE
            _check_flags(words)
            with _hydra_raises(), _arguments(words), StopSignals():
                hydra.main(config_path=str(config_dir()), config_name="config", version_base="1.3")(_job)()
        except (Exception, Stopped, Refused) as error:  # noqa: BLE001 - the last line: every ending has an exit code
            return _exit_code(error, words)
        finally:
            if jobs:
                print_summary(jobs)
    return DONE


def _exit_code(error: BaseException, words: Sequence[str]) -> int:
    """Tell the person what happened, unless that has been done, and choose the code."""
    if isinstance(error, Refused):
        error = error.error  # in a multirun the first bad job's, after all jobs
    if getattr(error, "keisei_reported", False):
        return FAILED
    if isinstance(error, COMPOSE_ERRORS):
        say(explain(error, words))
        return BAD_USAGE
    return exit_code_of(error)


def _job(cfg: DictConfig) -> float:
    """One run, or one job of a multirun; returns the objective."""
    try:
        config = validated(cfg)
        from keisei_lightning.app import run

        return run(config)
    except ConfigError as error:
        if HydraConfig.get().mode is not RunMode.MULTIRUN:
            raise Refused(error) from error
        raise
    except Exception as error:
        # Here and not in main: a failed job of a multirun must show why, and the next job runs.
        log.exception("training failed: %s", " ".join(str(error).split()) or type(error).__name__)
        error.keisei_reported = True  # type: ignore[attr-defined]
        raise


def _check_flags(words: Sequence[str]) -> None:
    """Refuse flags that Hydra does not have, in a line; argparse would print its whole usage.

    Raises:
        ConfigError: with a line for each.
    """
    _, unknown = get_args_parser().parse_known_args(list(words))
    if flags := [word for word in unknown if word.startswith("-")]:
        raise ConfigError([f"{flag}: no such flag; options are written KEY=VALUE" for flag in flags])


def _sweep_first(words: Sequence[str]) -> list[str]:
    """``-m`` before all other words: between overrides, Hydra's parser takes those behind it for nothing."""
    flags = [word for word in words if word in ("-m", "--multirun")]
    return [*flags, *(word for word in words if word not in flags)]


@contextlib.contextmanager
def _arguments(words: Sequence[str]) -> Iterator[None]:
    """``hydra.main`` reads ``sys.argv``, takes no arguments, and leaves the run's configuration behind."""
    before, config = sys.argv, HydraConfig.instance().cfg
    sys.argv = [before[0] if before else "keisei", *words]
    try:
        yield
    finally:
        sys.argv, HydraConfig.instance().cfg = before, config


@contextlib.contextmanager
def _hydra_raises() -> Iterator[None]:
    """Hydra prints an exception and exits with 1, unless it is asked for the full error: then it raises it."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


if __name__ == "__main__":
    sys.exit(main())
