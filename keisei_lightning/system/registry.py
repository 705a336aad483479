"""One registry for everything that has a name: games, players, networks and encoders.

A name is looked up in three places, in this order: those registered in this process (:meth:`Registry.register`), the
built-in ones, and the entry points of installed packages. Nothing is imported before it is loaded.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from keisei_lightning.errors import ConfigError

__all__ = ["Registry", "nearest"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects by name.

    Args:
        kind: what it holds, for messages, such as "player".
        group: entry-point group by which other packages add theirs.
        built_in: this package's, as ``"module:attribute"`` by name: a checkout that was never installed has no entry
            points.
        by_path: an entry point is known by the dotted path of its object, not by its name.
    """

    def __init__(self, kind: str, *, group: str, built_in: Mapping[str, str], by_path: bool = False) -> None:
        self.kind = kind
        self.group = group
        self._built_in = dict(built_in)
        self._by_path = by_path
        self._registered: dict[str, T] = {}

    def register(self, name: str, value: T) -> None:
        """Add a name in this process, or replace it."""
        self._registered[name] = value

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self)

    def load(self, name: str) -> T:
        """The object of a name; it is imported now.

        Raises:
            ConfigError: there is no such name, or it cannot be imported.
        """
        if name in self._registered:
            return self._registered[name]
        entry = self._entries.get(name)
        if entry is None:
            raise ConfigError(self.unknown(name))
        try:
            loaded: T = entry.load()
        except Exception as error:  # a third party's module may raise anything while it is imported
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(f"{self.kind} {name}: cannot be loaded ({reason})") from error
        return loaded

    def built_in_modules(self) -> list[str]:
        """Modules of the built-in ones, for a process that imports them early."""
        return sorted({value.partition(":")[0] for value in self._built_in.values()})

    def unknown(self, name: str, *, other: str = "") -> str:
        """The error line for a name that there is not.

        Args:
            name: the name.
            other: what else may be given.
        """
        return (
            f"{self.kind} {name}: there is none{nearest(name, self)}; must be one of {', '.join(self.names())}{other}"
        )

    def __contains__(self, name: object) -> bool:
        return name in self._registered or name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter({*self._registered, *self._entries})

    @cached_property
    def _entries(self) -> dict[str, EntryPoint]:
        """Entry points by name, built-in ones before those of other packages."""
        installed = {self._name_of(entry): entry for entry in entry_points(group=self.group)}
        return installed | {name: EntryPoint(name, value, self.group) for name, value in self._built_in.items()}

    def _name_of(self, entry: EntryPoint) -> str:
        return f"{entry.module}.{entry.attr}" if self._by_path else entry.name


def nearest(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """A hint at the known word that is most like an unknown one: " (did you mean PREFIXWORD?)", or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {prefix}{near[0]}?)" if near else ""
