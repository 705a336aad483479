"""How an option is declared: once, as a field of a frozen dataclass beside the component that uses it.

::

    @dataclass(frozen=True, kw_only=True)
    class SupervisionOptions(Options):
        heartbeat_s: float = option(10.0, "A worker that is silent for this long is replaced.", low=0.5)

Everything else is derived from the declaration: what is legal, Hydra's schemas, ``--help`` and the reference page
(:func:`declared`). A type is written as the annotation writes it: ``int``, ``float``, ``bool``, ``str``,
``int | None``, ``Literal["a", "b"]``, ``list[str]``; anything else is not checked here. Sentences write None as null,
as a configuration does.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal

from keisei_lightning.errors import ConfigError
from keisei_lightning.system.registry import nearest

__all__ = [
    "Bounds",
    "Declaration",
    "Options",
    "SeedOptions",
    "declared",
    "option",
    "spelled",
    "with_keywords",
]

_METADATA: Final = "keisei_lightning.option"

_KINDS: Final[dict[str, str]] = {
    "bool": "true or false",
    "dict[str, Any]": "a section of keys",
    "float": "a number",
    "int": "a whole number",
    "list[int]": "a list of whole numbers",
    "list[str]": "a list of words",
    "str": "a word",
}
"""Types in a person's words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """An interval of legal numbers.

    Attributes:
        low: its lower end.
        high: its upper end.
        open_low: the lower end itself is not legal.
        open_high: the upper end itself is not legal.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def contain(self, value: Any) -> bool:
        """Whether a value is a finite number inside."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        low, high = _plain(self.low), _plain(self.high)
        if self.low == -math.inf:
            return f"less than {high}" if self.open_high else f"{high} or less"
        above = f"more than {low}" if self.open_low else f"{low} or more"
        if self.high == math.inf:
            return above
        if not self.open_low and not self.open_high:
            return f"from {low} to {high}"
        return f"{above} and {'less than' if self.open_high else 'at most'} {high}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """One option, as it is declared.

    Attributes:
        name: of the field.
        kinds: its types, without None.
        may_be_none: None is legal.
        default: its value where it is not given; ``dataclasses.MISSING`` where it must be.
        sentence: what it does; its unit.
        bounds: of a number; None: any finite one.
        choices: legal words; empty: any.
        pattern: regular expression of legal words; empty: any.
        form: what ``pattern`` means, for a person, such as "cpu or cuda:N".
        is_even: only even numbers are legal.
    """

    name: str
    kinds: tuple[Any, ...]
    may_be_none: bool
    default: Any
    sentence: str
    bounds: Bounds | None
    choices: tuple[str, ...]
    pattern: str = ""
    form: str = ""
    is_even: bool = False

    def allows(self, value: Any) -> bool:
        """Whether a value is legal."""
        if value is None:
            return self.may_be_none
        if isinstance(value, list) and (items := self._items):
            return all(items.allows(item) for item in value)
        if self.choices and not isinstance(value, bool | int | float):
            return value in self.choices
        if not any(_is_of(value, kind) for kind in self.kinds):
            return False
        if self.pattern and not re.fullmatch(self.pattern, str(value)):
            return False
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return (self.bounds is None or self.bounds.contain(value)) and not (self.is_even and value % 2)

    @property
    def _items(self) -> Declaration | None:
        """What each item of a list is, where nothing else than a list is legal."""
        is_list = len(self.kinds) == 1 and typing.get_origin(self.kinds[0]) is list
        return dataclasses.replace(self, kinds=typing.get_args(self.kinds[0]), may_be_none=False) if is_list else None

    def legal(self, none: str = "None") -> str:
        """What may be given, such as "a whole number, from 1 to 64, or None".

        Args:
            none: how None is written.
        """
        if items := self._items:
            each = ", ".join(items.choices) or str(items.bounds or "")
            words = _KINDS[_name(self.kinds[0])] + (
                f", each {'one of ' if items.choices else ''}{each}" if each else ""
            )
            return f"{words}, or {none}" if self.may_be_none else words
        parts = [", ".join(self.choices)] if self.choices else [self.form] if self.form else []
        for kind in () if self.form else self.kinds:
            if kind is str and self.choices:
                continue
            words = "an even number" if self.is_even else _KINDS.get(_name(kind), _name(kind))
            parts.append(f"{words}, {self.bounds}" if self.bounds and kind in (int, float) else words)
        if len(self.choices) > 1:
            parts[0] = f"one of {parts[0]}"
        return ", or ".join([*parts, *([none] if self.may_be_none else [])])

    def error(self, value: Any, *, prefix: str = "", none: str = "None") -> str | None:
        """The line for a value that is not legal, with key, value and what is legal; None for a legal one.

        Args:
            value: as given.
            prefix: of the key, such as "parallel.".
            none: how None is written; "null" writes the value as YAML does.
        """
        if self.allows(value):
            return None
        return f"{prefix}{self.name}={spelled(value, none=none)}: must be {self.legal(none)}"


def option(
    default: Any = dataclasses.MISSING,
    sentence: str = "",
    *,
    factory: Callable[[], Any] | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
    pattern: str = "",
    form: str = "",
    is_even: bool = False,
) -> Any:
    """Declare an option: a field of a dataclass.

    Args:
        default: its value where it is not given; left out: it must be given.
        sentence: what it does, with its unit.
        factory: makes the default, for lists and dictionaries.
        low: smallest legal number.
        high: largest legal number.
        above: every legal number is larger (instead of ``low``).
        below: every legal number is smaller (instead of ``high``).
        choices: legal words; those of a ``Literal`` need not be repeated.
        pattern: regular expression of legal words; where there is only a ``form``, any word but the empty one.
        form: what ``pattern`` means, for a person, such as "cpu or cuda:N".
        is_even: only even numbers are legal.
    """
    is_bounded = any(end is not None for end in (low, high, above, below))
    bounds = Bounds(
        low=low if low is not None else -math.inf if above is None else above,
        high=high if high is not None else math.inf if below is None else below,
        open_low=above is not None,
        open_high=below is not None,
    )
    metadata = {
        _METADATA: {
            "sentence": sentence,
            "bounds": bounds if is_bounded else None,
            "choices": tuple(choices),
            "pattern": pattern or (r"(?s).+" if form else ""),
            "form": form,
            "is_even": is_even,
        }
    }
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@cache
def declared(options: type) -> tuple[Declaration, ...]:
    """The options of a dataclass, in their order; fields that are no options are left out.

    Args:
        options: the class.
    """
    return tuple(_declarations(options))


def _declarations(options: type) -> Iterator[Declaration]:
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        if _METADATA not in field.metadata:
            continue
        metadata = dict(field.metadata[_METADATA])
        kinds, words = [], list(metadata.pop("choices"))
        for kind in _members(hints[field.name]):
            literal = typing.get_args(kind)[0] if typing.get_origin(kind) is list else kind
            if typing.get_origin(literal) is Literal:
                words += [word for word in typing.get_args(literal) if word not in words]
                kind = str if literal is kind else list[str]
            if kind not in kinds:
                kinds.append(kind)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield Declaration(
            name=field.name,
            kinds=tuple(kind for kind in kinds if kind is not NoneType),
            may_be_none=NoneType in kinds,
            default=default,
            choices=tuple(words),
            **metadata,
        )


class Options:
    """Base of the dataclasses of options: what is not legal is never made.

    Raises:
        ConfigError: with a line for each value that is not legal.
    """

    def __post_init__(self) -> None:
        cls: type = type(self)
        lines = (each.error(getattr(self, each.name)) for each in declared(cls))
        if errors := [line for line in lines if line is not None]:
            raise ConfigError(errors)


@dataclass(frozen=True, kw_only=True)
class SeedOptions(Options):
    """The option of everything that plays at random."""

    seed: int = option(0, "Root seed of every random stream.", low=0)


def with_keywords(owner: str, *groups: Any, keywords: Mapping[str, Any]) -> tuple[Any, ...]:
    """Options as objects and as keywords, for a class that takes both: a keyword counts more than its object.

    Args:
        owner: name of the class that takes them, for messages.
        groups: objects of options, each of another dataclass.
        keywords: options of any of them.

    Returns:
        An object for each group.

    Raises:
        ConfigError: with a line for each value that is not legal, of all groups.
        TypeError: a keyword is no option.
    """
    known = [field.name for group in groups for field in dataclasses.fields(group)]
    if unknown := next((name for name in keywords if name not in known), None):
        raise TypeError(f"{owner} has no option {unknown!r}{nearest(unknown, known)}")
    made: list[Any] = []
    errors: list[str] = []
    for group in groups:
        own = {field.name: keywords[field.name] for field in dataclasses.fields(group) if field.name in keywords}
        try:
            made.append(dataclasses.replace(group, **own))
        except ConfigError as error:
            errors += error.errors
    if errors:
        raise ConfigError(errors)
    return tuple(made)


def spelled(value: Any, *, none: str = "None") -> str:
    """A value as the reader writes it: 4294967295, not 4.29497e+09.

    Args:
        value: any.
        none: how None is written; "null" writes true and false as YAML does.
    """
    if value is None:
        return none
    if isinstance(value, bool):
        return str(value).lower() if none == "null" else str(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(spelled(item, none=none) for item in value)}]"
    return _plain(value)


def _members(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, UnionType) else (kind,)


def _is_of(value: Any, kind: Any) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        numbers = int if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool) and math.isfinite(value)
    if kind is str:
        return isinstance(value, str)
    return True  # a list, a section, an object of its own: whoever uses it looks


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind)) if typing.get_origin(kind) is None else str(kind).replace("typing.", "")


def _plain(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return str(int(value)) if math.isfinite(value) and value == int(value) else f"{value:g}"
