"""What ``--help`` shows of options: each with its default, what it does, and what is legal. No Hydra is loaded."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from keisei_lightning.config.reference import Key, keys_of
from keisei_lightning.system.options import declared

__all__ = ["asks_for_help", "describe", "options_help"]

_FLAGS = ("-h", "--help", "help")

_WIDTH, _LONGEST = 110, 24


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether a command line asks for help (``--hydra-help`` is Hydra's)."""
    return any(word in _FLAGS for word in words)


def options_help(options: type) -> str:
    """A paragraph for each option that a dataclass declares.

    Args:
        options: the class.
    """
    heads = [(f"{key.name}={key.default}", describe(key)) for key in keys_of(declared(options))]
    width = min(_LONGEST, max(len(head) for head, _ in heads))
    indent = " " * (width + 4)
    lines = []
    for head, text in heads:
        filled = textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)
        is_short = len(head) <= width
        lines.append(f"  {head:<{width}}  {filled.removeprefix(indent)}" if is_short else f"  {head}\n{filled}")
    return "\n".join(lines)


def describe(key: Key) -> str:
    """What an option does, and what is legal."""
    return f"{key.sentence} ({key.legal})"
