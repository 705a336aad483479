"""Moves as people type them: by name, by a part of it that is clear, or by a number from a list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile

__all__ = ["find_moves", "move_labels"]

_NUMBER = re.compile(r"0|[1-9]\d*")
_ONE_NUMBER = re.compile(r"(\D*)(0|[1-9]\d*)(\D*)")
_MIN_SUFFIX = 2


def move_labels(names: Sequence[str]) -> dict[str, str]:
    """Numbers by which moves can be chosen.

    Args:
        names: of the legal moves.

    Returns:
        Names by number: where the names differ in a number alone (``x0``, ``x1``, ...) that one, else 1, 2, ...
    """
    found = [_ONE_NUMBER.fullmatch(name) for name in names]
    parts = [match.groups() for match in found if match is not None]
    if parts and len(parts) == len(names) and len({(before, after) for before, _, after in parts}) == 1:
        return {number: name for (_, number, _), name in zip(parts, names, strict=True)}
    return {str(number): name for number, name in enumerate(names, start=1)}


def find_moves(typed: str, names: Sequence[str]) -> list[str]:
    """The moves that somebody may have meant: one where it is clear.

    It is asked in this order, and the first answer counts: is it a name; a number of :func:`move_labels`; a name in
    other letters, small or capital; a name without its punctuation, or without what all names begin with; the beginning
    of names; their end (of two characters or more).

    Args:
        typed: without blanks around it.
        names: of the legal moves.
    """
    if not typed or typed in names:
        return [typed] if typed else []
    if _NUMBER.fullmatch(typed):
        label = move_labels(names).get(typed)
        return [] if label is None else [label]
    if found := [name for name in names if name.casefold() == typed.casefold()]:
        return found
    bare, wanted = [_bare(name) for name in names], _bare(typed)
    if not wanted:
        return []
    shared = _shared(bare)
    return (
        _those(names, (each == wanted for each in bare))
        or _those(names, (each[shared:] == wanted for each in bare))
        or _those(names, (each.startswith(wanted) for each in bare))
        or _those(names, (len(wanted) >= _MIN_SUFFIX and each.endswith(wanted) for each in bare))
    )


def _shared(names: Sequence[str]) -> int:
    """How many characters all names begin with."""
    columns = takewhile(lambda characters: len(set(characters)) == 1, zip(*names, strict=False))
    return sum(1 for _ in columns)


def _bare(name: str) -> str:
    """A name in small letters, without brackets, blanks and commas; marks of drops and promotions stay."""
    return re.sub(r"[^\w+*@=]", "", name.casefold())


def _those(names: Sequence[str], are: Iterable[bool]) -> list[str]:
    return [name for name, is_one in zip(names, are, strict=True) if is_one]
