"""Training positions for other programs: the protocol of games that write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from keisei_lightning.games.protocol import Game

__all__ = ["LabelledPosition", "PackedGame"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledPosition:
    """A position of a game that was played, with what a trainer learns of it.

    Attributes:
        position: in the game's own notation.
        move: name of the move that was played, or that a search prefers.
        value: what the position is worth to its mover, from -1 to 1; None: nobody has said.
        result: of the game to the mover: 1, 0 or -1.
        outcome: how the game ended.
    """

    position: str
    move: str
    value: float | None
    result: int
    outcome: str


@runtime_checkable
class PackedGame(Game, Protocol):
    """A game for which other programs train, and whose formats of training positions are public.

    Optional. ``keisei positions`` writes them.
    """

    @property
    def position_formats(self) -> Mapping[str, str]:
        """Formats by the ending of a file's name, each with a few words about it."""
        ...

    def pack_position(self, labelled: LabelledPosition, suffix: str, *, scale: float) -> bytes:
        """One position with its labels, of as many bytes for each; a file is these bytes one after the other.

        Args:
            labelled: the position.
            suffix: the format, one of :attr:`position_formats`.
            scale: points of an evaluation by which the odds of winning grow e-fold.

        Raises:
            GameError: the position or the move cannot be read, or there is no such format.
        """
        ...
