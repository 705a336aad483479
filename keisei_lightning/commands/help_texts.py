"""What ``--help`` shows of options: each with its default, what it does, and what is legal. No Hydra is loaded."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

from keisei_lightning.system.options import Declaration, declared

__all__ = ["asks_for_help", "describe", "options_help", "yaml_word"]

_FLAGS = ("-h", "--help", "help")

_WIDTH, _LONGEST = 110, 24


def asks_for_help(words: list[str]) -> bool:
    """Whether a command line asks for help (``--hydra-help`` is Hydra's)."""
    return any(word in _FLAGS for word in words)


def options_help(options: type) -> str:
    """A paragraph for each option that a dataclass declares.

    Args:
        options: the class.
    """
    heads = {declaration: f"{declaration.name}={yaml_word(declaration.default)}" for declaration in declared(options)}
    width = min(_LONGEST, max(map(len, heads.values())))
    lines = []
    for declaration, head in heads.items():
        indent = " " * (width + 4)
        text = textwrap.fill(describe(declaration), _WIDTH, initial_indent=indent, subsequent_indent=indent)
        first = f"  {head:<{width}}  "
        lines.append(first + text.removeprefix(indent) if len(head) <= width else f"  {head}\n{text}")
    return "\n".join(lines)


def describe(declaration: Declaration) -> str:
    """What an option does, and what is legal."""
    return f"{declaration.sentence} ({declaration.legal('null')})"


def yaml_word(value: Any) -> str:
    """A value as it is typed."""
    if value is dataclasses.MISSING:
        return "???"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(yaml_word, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
