"""From a command line to an exit code (``exit_codes.py``): compose, validate, run. Stopped, ``ckpt_path=last`` resumes.

Torch and Lightning are imported only after the configuration has been found good: a mistyped command answers at once.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import pickle
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from keisei_lightning.commands.exit_codes import BAD_USAGE, DONE, FAILED, exit_code_of
from keisei_lightning.commands.help_texts import asks_for_help
from keisei_lightning.commands.hydra_checks import Refused, validated
from keisei_lightning.commands.rank_words import words_of_rank
from keisei_lightning.commands.sweep import SweepJob, collected_jobs, is_pruned, print_summary
from keisei_lightning.commands.train_help import help_text
from keisei_lightning.config.compose_errors import COMPOSE_ERRORS, explain
from keisei_lightning.config.quoting import quote_texts
from keisei_lightning.config.ranks import PortableConfig, hydra_logging, ranks_to_start
from keisei_lightning.config.schemas import config_dir, register_configs
from keisei_lightning.errors import ConfigError, RankError
from keisei_lightning.launching import run_ranks
from keisei_lightning.launching.outcomes import is_lost_peer
from keisei_lightning.launching.phases import present_phase
from keisei_lightning.system.allocator import keep_freed_memory
from keisei_lightning.system.console import say, standard_output
from keisei_lightning.system.openmp import governed_spinning, limit_spinning
from keisei_lightning.system.rank_place import present_place
from keisei_lightning.system.start_method import use_known_start_method
from keisei_lightning.system.stopping import Stopped, StopSignals

__all__ = ["Stopped", "main"]

log = logging.getLogger("keisei_lightning")

_LET_IT_SPEAK_S = 5.0
"""torchrun ends all ranks when one has ended: the rank that tells the error must have done so."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says.

    Args:
        argv: Hydra overrides and flags, without the program's name; None takes ``sys.argv``.

    Returns:
        The exit code (:mod:`keisei_lightning.commands.exit_codes`).
    """
    _prepare_process()
    words = _sweep_first(quote_texts(sys.argv[1:] if argv is None else argv))
    with standard_output(), governed_spinning():
        jobs: list[SweepJob] = []
        try:
            register_configs()
            if asks_for_help(words):
                sys.stdout.write(help_text(words))
                return DONE
            _check_flags(words)
            with (
                words_of_rank(words, present_place()) as own_words,
                _hydra_raises(),
                _arguments(own_words),
                StopSignals(),
                collected_jobs() as jobs,
            ):
                hydra.main(config_path=str(config_dir()), config_name="config", version_base="1.3")(_job)()
        except (Exception, Stopped, Refused) as error:  # noqa: BLE001 - the last line: every ending has an exit code
            return _exit_code(error, words)
        finally:
            if jobs:
                print_summary(jobs)
    return DONE


def _prepare_process() -> None:
    """What every process that trains does first: the command's, and those of a sweep's launcher. May be repeated."""
    # As it ends, the interpreter looks several times for cycles among all that torch and Lightning have made, which
    # takes two to four seconds: too long for a person who pressed Ctrl-C.
    atexit.register(gc.freeze)
    keep_freed_memory()
    limit_spinning()
    use_known_start_method()


def _exit_code(error: BaseException, words: Sequence[str]) -> int:
    """Tell the person what happened, unless that has been done, and choose the code."""
    if isinstance(error, Refused):
        error = error.error  # in a multirun the first bad job's, after all jobs
    if getattr(error, "keisei_reported", False):
        return FAILED
    place = present_place()
    if place is not None and not place.speaks and (code := _known_code(error)) is not None:
        if code == BAD_USAGE:  # all ranks of this machine have found the same, and one tells it
            time.sleep(_LET_IT_SPEAK_S)
        return code
    if isinstance(error, COMPOSE_ERRORS):
        say(explain(error, words))
        return BAD_USAGE
    return exit_code_of(error)


def _known_code(error: BaseException) -> int | None:
    """The exit code of what happens to all ranks alike; None: it may be of this rank alone."""
    if isinstance(error, Stopped):
        return error.exit_code
    return BAD_USAGE if isinstance(error, (ConfigError, *COMPOSE_ERRORS)) else None


def _job(cfg: DictConfig) -> float:
    """One run, or one job of a multirun, which a launcher may start in a process of its own; returns the objective."""
    _prepare_process()
    with StopSignals():
        return _objective(cfg)


def _objective(cfg: DictConfig) -> float:
    place = present_place()
    try:
        config = validated(cfg)
        if (num_ranks := ranks_to_start(config.cfg)) > 1:  # without torch: only the ranks need it
            return run_ranks(partial(_train_as_rank, config.portable(), hydra_logging()), num_ranks)
        from keisei_lightning.app import run

        return run(config)
    except ConfigError as error:
        if HydraConfig.get().mode is not RunMode.MULTIRUN:
            raise Refused(error) from error
        raise
    except RankError as error:  # where the parent waited says nothing
        log.error("training failed: %s%s", error, error.__cause__ or "")
        error.keisei_reported = True  # type: ignore[attr-defined]
        raise
    except Exception as error:
        if place is not None and is_lost_peer(error):  # what ended that one, it says itself, or its launcher does
            log.error("training failed: another rank is gone or did not answer, while %s", present_phase())
            log.debug("the reason", exc_info=True)
            error.keisei_reported = True  # type: ignore[attr-defined]
            raise
        if is_pruned(error):
            log.info("pruned: %s", error)
            raise
        # Here and not in main: a failed job of a multirun must show why, and the next job runs.
        log.exception("training failed: %s", " ".join(str(error).split()) or type(error).__name__)
        error = _portable(error)
        error.keisei_reported = True  # type: ignore[attr-defined]
        raise error


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same, if another process could not read it (a launcher's, of a sweep)."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - a third party's class may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _train_as_rank(portable: PortableConfig, logging_config: Mapping[str, Any] | None) -> float:
    """What each rank of this machine runs."""
    from keisei_lightning.app import run_as_rank

    return run_as_rank(portable, logging_config)


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
