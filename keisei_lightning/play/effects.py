"""What the answer to a typed line is: text to show, and what is to be done then."""

from __future__ import annotations

from dataclasses import dataclass, field

from keisei_lightning.play.words import Line

__all__ = ["Effect", "Hint", "Load", "Quit", "Reply", "Save"]


@dataclass(frozen=True, slots=True)
class Save:
    """Effect: write the game to a file."""

    path: str


@dataclass(frozen=True, slots=True)
class Load:
    """Effect: read a file, and :meth:`Dialogue.resume` its game."""

    path: str


@dataclass(frozen=True, slots=True)
class Hint:
    """Effect: let the policy look at the board, and :meth:`Dialogue.advise`."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Effect: the end."""


Effect = Save | Load | Hint | Quit


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a line.

    Attributes:
        lines: to show.
        effect: what is to be done then; None: nothing.
    """

    lines: list[Line] = field(default_factory=list)
    effect: Effect | None = None
