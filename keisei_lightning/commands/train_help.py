"""The help of ``train.py``: groups, options and keys, as Hydra's own help tells them, in a third of its time.

Hydra copies the whole repository of configurations once for each group and option that it lists; here the folders are
listed. The template is the one of ``conf/config.yaml``.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict, read_write

from keisei_lightning.config.schemas import SCHEMAS, config_dir, config_groups

__all__ = ["asks_for_help", "help_text"]

_FLAGS = ("-h", "--help")


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether a command line asks for our help (``--hydra-help`` is Hydra's)."""
    return any(word in _FLAGS for word in words)


def help_text(words: Sequence[str]) -> str:
    """What ``--help`` shows: overrides on the same command line show in the values.

    Args:
        words: of the command line; the schemas must be registered.

    Raises:
        HydraException: the configuration cannot be put together; also the others of
            :data:`~keisei_lightning.config.compose_errors.COMPOSE_ERRORS`.
    """
    overrides = [word for word in words if not word.startswith("-")]
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3", job_name="train"):
        cfg = compose("config", overrides=overrides, return_hydra_config=True)
    template = Template(cfg.hydra.help.template)
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    return template.substitute(APP_CONFIG_GROUPS=_groups(), CONFIG=OmegaConf.to_yaml(cfg)).rstrip() + "\n"


def _groups() -> str:
    """A line for each group with its options, and one for the schemas that a group of one's own may start from."""
    groups = {**config_groups(), "schema": sorted(SCHEMAS)}
    return "\n".join(f"{name}: {', '.join(options)}" for name, options in sorted(groups.items())) + "\n"
