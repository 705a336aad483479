"""The help of ``keisei train``: groups, options and keys, as Hydra's own help tells them, in a third of its time.

Hydra copies the whole repository of configurations once for each group and option that it lists; here the folders are
listed. The template is the one of ``conf/config.yaml``; each key has beside it its present
value, what it does, and what is legal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from string import Template
from typing import Any

from omegaconf import Container, DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from keisei_lightning.commands.compose import compose_training
from keisei_lightning.commands.help_texts import describe, paragraphs
from keisei_lightning.config.reference import as_yaml, reference
from keisei_lightning.config.schemas import SCHEMAS, config_groups
from keisei_lightning.system.options import Declaration

__all__ = ["help_text"]

_LONGEST = 34


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
    """Each section with its keys: the present value, what the key does, and what is legal."""
    for section in reference():
        declared = {key.name.rpartition(".")[2]: key for key in section.keys}
        values = cfg[section.name] if section.name else cfg
        heads = [
            (f"{section.name}.{name}={value}" if section.name else f"{name}={value}", text)
            for name, value, text in _in_words(values, declared)
            if section.name or name in declared
        ]
        yield f"{section.name}: {section.sentence}".removeprefix(": ")
        yield paragraphs(heads, longest=_LONGEST) + "\n"


def _in_words(values: DictConfig, declared: Mapping[str, Declaration]) -> Iterator[tuple[str, str, str]]:
    """Name, present value and description of each key; one of a third party has no description."""
    plain: Any = OmegaConf.to_container(values, resolve=False)
    for name in (*(name for name in declared if name in plain), *(name for name in plain if name not in declared)):
        value = plain[name]
        with suppress(OmegaConfBaseException):  # what is missing, or means something only in a run
            value = values[name]
        yield name, _short(value), describe(declared[name]) if name in declared else ""


def _short(value: object) -> str:
    """A value in one line; of a class with its keys, the class."""
    if isinstance(value, DictConfig) and "_target_" in value:
        return f"{{_target_: {value['_target_']}, ...}}"
    plain = OmegaConf.to_container(value) if isinstance(value, Container) else value
    return as_yaml(plain)
