"""Refusing a bad configuration before Hydra makes the folder of its run, so that nothing is left of it."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from keisei_lightning.errors import ConfigError
from keisei_lightning.validation import folder_faults, resolve, validate

__all__ = ["RefuseFirst", "Refused", "check"]


class Refused(BaseException):
    """A bad configuration in a single run. It passes Hydra, which would print a line of its own.

    Args:
        error: what is wrong with it.
    """

    def __init__(self, error: ConfigError) -> None:
        self.error = error
        super().__init__(str(error))


def check(cfg: DictConfig) -> None:
    """Resolve and validate a configuration.

    Args:
        cfg: a composed configuration; it is changed in place.

    Raises:
        ConfigError: with one line for each fault.
    """
    resolve(cfg)
    validate(cfg)


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
        cfg = copy.deepcopy(config)
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
        try:
            check(cfg)
        except ConfigError as error:
            raise Refused(error) from error
        with read_write(config), open_dict(config):
            config.ckpt_path = cfg.ckpt_path  # chosen once: it may have taken a while, and said something

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the folder of a sweep.

        Raises:
            Refused: nothing can be written there.
        """
        with contextlib.suppress(OmegaConfBaseException):  # its name may depend on what is swept over
            if faults := list(folder_faults(config)):
                raise Refused(ConfigError(faults))
