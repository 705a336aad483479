"""Every key of the configuration, as ``--help`` and the reference page show it. Needs no torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from keisei_lightning.system.options import Declaration

__all__ = ["Section", "as_yaml", "reference"]


class Section(NamedTuple):
    """One section of the configuration.

    Attributes:
        name: of it; empty for the top level.
        sentence: what it is about.
        keys: its options, named with the section, in their order.
    """

    name: str
    sentence: str
    keys: tuple[Declaration, ...]


def reference() -> Iterator[Section]:
    """All sections of the configuration of ``keisei train``; keys that are sections of their own are left out."""
    from keisei_lightning.config.schemas import SECTIONS  # Hydra, which the help of other commands does not need

    about = {declaration.name: declaration.sentence for declaration in SECTIONS[""]}
    for name, options in SECTIONS.items():
        prefix = f"{name}." if name else ""
        keys = [
            dataclasses.replace(each, name=prefix + each.name) for each in options if name or each.name not in SECTIONS
        ]
        yield Section(name, about.get(name, "The run."), tuple(keys))


def as_yaml(value: Any) -> str:
    """A value as the command line and YAML write it, in one line; empty for a default that there is not."""
    if value is dataclasses.MISSING:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, float):
        return f"{value:g}" if value and not 1e-3 <= abs(value) < 1e6 else str(value)
    return json.dumps(value, default=str)
