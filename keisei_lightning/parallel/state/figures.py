"""Numbers of one collector, in a form in which those of several collectors of one training can be combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Figure", "combine", "values_of"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number.

    Attributes:
        kind: how the numbers of several collectors combine: their "sum", their "largest", their weighted "mean", or
            "same" where all have the same one.
        total: the number; of a mean the sum of all values.
        weight: of a mean, the number of values.
        beside: of a mean, another one with the same weight, which a collector has even where it has not this one: then
            this one's values are 0 there.
    """

    kind: Literal["sum", "largest", "mean", "same"]
    total: float
    weight: float = 1
    beside: str | None = None

    @property
    def value(self) -> float:
        """The number itself."""
        return self.total / self.weight if self.kind == "mean" else self.total


def values_of(figures: Mapping[str, Figure]) -> dict[str, float]:
    """The numbers by name."""
    return {name: figure.value for name, figure in figures.items()}


def combine(parts: Sequence[Mapping[str, Figure]]) -> dict[str, Figure]:
    """The figures of several collectors as those of one.

    Args:
        parts: of each collector; a name may be missing from some.
    """
    return {name: _combined(name, parts) for name in dict.fromkeys(name for part in parts for name in part)}


def _combined(name: str, parts: Sequence[Mapping[str, Figure]]) -> Figure:
    found = [part[name] for part in parts if name in part]
    kind, beside = found[0].kind, found[0].beside
    if kind == "same":
        return found[0]
    if kind == "largest":
        return Figure(kind, max(figure.total for figure in found))
    without = [part[beside].weight for part in parts if name not in part and beside in part] if beside else []
    weight = sum(figure.weight for figure in found) + sum(without)
    return Figure(kind, sum(figure.total for figure in found), weight, beside)
