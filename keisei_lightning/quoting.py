"""Words of a command line whose brackets Hydra would take for function calls: games and players by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["quote_calls"]

_KEYS = frozenset({"env.game", "evaluation.opponents", "game", "opponents"})
"""Keys whose values may be games of OpenSpiel or players, ``hex(board_size=5)`` or ``[random,alpha_beta(depth=5)]``."""

_HYDRA_FUNCTIONS = frozenset(
    ("bool", "choice", "float", "glob", "int", "interval", "range", "shuffle", "sort", "str", "tag")
)

_QUOTED_OR_CALL = re.compile(
    r"""(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
    r"""|(?P<call>(?P<name>[A-Za-z_]\w*)\((?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^()'"]|\([^()]*\))*\))"""
)


def quote_calls(words: Sequence[str]) -> list[str]:
    """Put quotation marks around what only looks like a function call of Hydra's.

    Args:
        words: of a command line, such as ``env.game=hex(board_size=5)`` or ``opponents=[random,alpha_beta(depth=5)]``
            (the shell takes the user's own quotation marks away).

    Returns:
        The same words, with ``env.game="hex(board_size=5)"``. Other keys' values, Hydra's own functions and what has
        quotation marks already stay as they are.
    """
    return [_quote(word) for word in words]


def _quote(word: str) -> str:
    key, equals, value = word.partition("=")
    if key.lstrip("+") not in _KEYS:
        return word

    def replace(found: re.Match[str]) -> str:
        if found["quoted"] or found["name"] in _HYDRA_FUNCTIONS:
            return found[0]
        return _quoted(found["call"])

    return key + equals + _QUOTED_OR_CALL.sub(replace, value)


def _quoted(text: str) -> str:
    if '"' not in text:
        return f'"{text}"'
    # Hydra takes a backslash for itself only where it stands before a quotation mark.
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", text)
    return f"'{escaped}'"
