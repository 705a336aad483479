"""What ``--help`` shows of options: each with its default, what it does, and what is legal. No Hydra is loaded."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from keisei_lightning.config.reference import as_yaml
from keisei_lightning.system.options import Declaration, declared

__all__ = ["asks_for_help", "describe", "options_help", "paragraphs"]

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
    return paragraphs([(f"{key.name}={as_yaml(key.default)}", describe(key)) for key in declared(options)])


def paragraphs(heads: Sequence[tuple[str, str]], *, longest: int = _LONGEST) -> str:
    """Words with what is said of each in a column beside them.

    Args:
        heads: each word, such as "games=400", and what is said of it.
        longest: a longer word has its text below.
    """
    width = min(longest, max((len(head) for head, _ in heads), default=0))
    indent = " " * (width + 4)
    lines = []
    for head, text in heads:
        filled = textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        if len(head) <= width:
            lines.append(f"  {head:<{width}}  {filled.removeprefix(indent)}".rstrip())
        else:
            lines += [f"  {head}", *filled.splitlines()]
    return "\n".join(lines)


def describe(key: Declaration) -> str:
    """What an option does, and what is legal."""
    return f"{key.sentence} ({key.legal('null')})"
