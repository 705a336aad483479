"""Refusing a bad configuration before Hydra makes the folder of its run, so that nothing is left of it.

A run is checked once: what the callback has found good is what the job runs (:func:`validated`).
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from keisei_lightning.config.option_checks import folder_errors
from keisei_lightning.config.validation import ValidatedConfig, validate
from keisei_lightning.errors import ConfigError
from keisei_lightning.system.options import spelled
from keisei_lightning.system.paths import path_errors
from keisei_lightning.system.rank_place import present_place

__all__ = ["RefuseFirst", "Refused", "validated"]

_checked: ContextVar[ValidatedConfig | None] = ContextVar("keisei_checked_config", default=None)
"""What the callback has checked for the run that is about to begin: Hydra has no other way to hand it to the job."""


class Refused(BaseException):
    """A bad configuration in a single run. It passes Hydra, which would print a line of its own.

    Args:
        error: what is wrong with it.
    """

    def __init__(self, error: ConfigError) -> None:
        self.error = error
        super().__init__(str(error))


def validated(cfg: DictConfig) -> ValidatedConfig:
    """The configuration of a job, checked: by the callback for a single run, here and now for a job of a sweep.

    Args:
        cfg: as Hydra hands it to the job.

    Raises:
        ConfigError: a line for each error.
    """
    return _checked.get() or validate(cfg)


class RefuseFirst(Callback):
    """Hydra callback: checks a run before its folder is made; each job of a sweep is checked when its turn comes.

    Args:
        **kwargs: Hydra's; none is used.
    """

    def __init__(self, **kwargs: Any) -> None:
        pass

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check a single run.

        Raises:
            Refused: it cannot work. (Hydra turns an ``Exception`` into a warning.)
        """
        HydraConfig.instance().set_config(config)  # so that ${hydra:...} resolves, as it will in the job
        cfg = copy.deepcopy(config)
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
        with _refusing():
            checked = validate(cfg)
            with read_write(config), open_dict(config):
                config.results_dir = checked.cfg.results_dir
                config.ckpt_path = checked.cfg.ckpt_path  # what the run's folder keeps is what was resumed from
            _check_hydra(config, "hydra.run.dir")
        _checked.set(checked)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check a sweep: that one process leads it, its sweeper and its folder.

        Raises:
            Refused: a launcher has started several processes, the sweeper needs what is not installed, or nothing can
                be written to the folder.
        """
        _checked.set(None)
        with _refusing(), contextlib.suppress(OmegaConfBaseException):  # its name may depend on what is swept over
            _refuse_ranks()
            if errors := list(_sweeper_errors(config)):
                raise ConfigError(errors)
            if errors := list(folder_errors(config)):
                raise ConfigError(errors)
            _check_hydra(config, "hydra.sweep.dir")


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise Refused(error) from error


def _refuse_ranks() -> None:
    """Refuse a sweep that each rank of a launcher would run for itself.

    Raises:
        ConfigError: this process is such a rank.
    """
    place = present_place()
    if place is not None and place.is_external:
        raise ConfigError(
            f"-m, hparams_search: must not be given under {place.launcher}; a sweep starts the ranks of each of its "
            "jobs itself: python train.py -m trainer.devices=2 ..."
        )


def _sweeper_errors(config: DictConfig) -> Iterator[str]:
    """Whether our own sweeper has what it needs, and options that it can work with."""
    sweeper = config.hydra.sweeper
    if not str(sweeper.get("_target_")).startswith("hydra_plugins.keisei_optuna_sweeper."):
        return
    if importlib.util.find_spec("optuna") is None:
        yield "hparams_search=optuna: Optuna is not installed; install keisei-lightning[sweep]"
    for key in ("storage", "study_name"):
        if not isinstance(sweeper[key], str) or not sweeper[key]:
            yield f"hydra.sweeper.{key}={spelled(sweeper[key], none='null')}: must be a word, one or more characters"
    if not isinstance(sweeper.seed, int | None):
        yield f"hydra.sweeper.seed={sweeper.seed}: must be a whole number, or null"
    for key in ("n_trials", "n_jobs"):
        if not isinstance(sweeper[key], int) or sweeper[key] < 1:
            yield f"hydra.sweeper.{key}={sweeper[key]}: must be a whole number, 1 or more"
    if sweeper.direction not in ("maximize", "minimize"):
        yield f"hydra.sweeper.direction={sweeper.direction}: must be maximize or minimize"


def _check_hydra(config: DictConfig, key: str) -> None:
    """Whether the folder that Hydra is about to make can be made, and is not the one that paths are seen from.

    Raises:
        ConfigError: it cannot, or it has no name; or Hydra is told to change into it.
    """
    if config.hydra.job.chdir:
        raise ConfigError("hydra.job.chdir=true: must be false (paths are seen from where the command was typed)")
    try:
        folder = str(OmegaConf.select(config, key))
    except OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{key}: cannot be resolved ({reason}); must be a folder that can be written to") from error
    if errors := list(path_errors(key, folder)):
        raise ConfigError(errors)
