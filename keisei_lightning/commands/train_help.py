"""The help of ``keisei train``: groups, options and keys, as Hydra's own help tells them, in a third of its time.

Hydra copies the whole repository of configurations once for each group and option that it lists; here the folders are
listed. The template is the one of ``conf/config.yaml``; each key has beside it what it does and what is legal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import Template

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from keisei_lightning.commands.compose import compose_training
from keisei_lightning.commands.help_texts import describe
from keisei_lightning.config.reference import reference
from keisei_lightning.config.schemas import SCHEMAS, config_groups

__all__ = ["help_text"]

_COLUMN = 36


def help_text(words: Sequence[str]) -> str:
    """What ``--help`` shows: overrides on the same command line show in the values.

    Args:
        words: of the command line.

    Raises:
        HydraException: the configuration cannot be put together; also the others of
            :data:`~keisei_lightning.config.compose_errors.COMPOSE_ERRORS`.
    """
    cfg = compose_training([word for word in words if not word.startswith("-")], with_hydra=True)
    template = Template(cfg.hydra.help.template)
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    return template.substitute(APP_CONFIG_GROUPS=_groups(), CONFIG="\n".join(_described(cfg))).rstrip() + "\n"


def _groups() -> str:
    """A line for each group with its options, and one for the schemas that a group of one's own may start from."""
    groups = {**config_groups(), "schema": sorted(SCHEMAS)}
    return "\n".join(f"{name}: {', '.join(options)}" for name, options in sorted(groups.items())) + "\n"


def _described(cfg: DictConfig) -> Iterator[str]:
    """The configuration as YAML, with a comment for each key that is declared."""
    keys = {key.name: key for section in reference() for key in section.keys}
    section = ""
    for line in OmegaConf.to_yaml(cfg).splitlines():
        found = re.match(r"(  )?(\w+):", line)
        if found and not found[1]:
            section = found[2]
        key = keys.get(f"{section}.{found[2]}" if found[1] else found[2]) if found else None
        yield line if key is None else f"{line:<{_COLUMN}}  # {describe(key)}"
