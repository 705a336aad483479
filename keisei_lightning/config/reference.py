"""Every key of the configuration, as ``--help`` and the reference page show it. Needs no torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from keisei_lightning.system.options import Declaration

__all__ = ["Key", "Section", "as_yaml", "keys_of", "reference"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One key, in words.

    Attributes:
        name: with its section, such as "parallel.num_workers".
        default: as YAML writes it; empty where there is none.
        legal: what may be given, such as "a whole number, 1 or more, or null".
        sentence: what it does; its unit.
    """

    name: str
    default: str
    legal: str
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One section of the configuration.

    Attributes:
        name: of it; empty for the top level.
        sentence: what it is about.
        keys: its keys, in their order.
    """

    name: str
    sentence: str
    keys: tuple[Key, ...]


def reference() -> Iterator[Section]:
    """All sections of the configuration of ``keisei train``; keys that are sections of their own are left out."""
    from keisei_lightning.config.schemas import SECTIONS  # Hydra, which the help of other commands does not need

    about = {declaration.name: declaration.sentence for declaration in SECTIONS[""]}
    for name, declarations in SECTIONS.items():
        keys = keys_of((each for each in declarations if name or each.name not in SECTIONS), name)
        yield Section(name=name, sentence=about.get(name, "The run."), keys=tuple(keys))


def keys_of(declarations: Iterable[Declaration], section: str = "") -> Iterator[Key]:
    """Keys in words, from their declarations.

    Args:
        declarations: of the options.
        section: that they are in; empty for the top level.
    """
    for declaration in declarations:
        missing = declaration.default is dataclasses.MISSING
        yield Key(
            name=f"{section}.{declaration.name}" if section else declaration.name,
            default="" if missing else as_yaml(declaration.default),
            legal=declaration.legal("null"),
            sentence=declaration.sentence,
        )


def as_yaml(value: Any) -> str:
    """A value as the command line and YAML write it, in one line."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, float):
        return f"{value:g}" if value and not 1e-3 <= abs(value) < 1e6 else str(value)
    return json.dumps(value, default=str)
