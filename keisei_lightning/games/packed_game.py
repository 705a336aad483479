"""Training positions for other programs: the protocol of games that write them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
        policy: probabilities of legal moves by their names; None: nobody has said.
    """

    position: str
    move: str
    value: float | None
    result: int
    outcome: str
    policy: Mapping[str, float] | None = None


@runtime_checkable
class PackedGame(Game, Protocol):
    """A game for which other programs train, and whose formats of training positions are public.

    Optional. ``keisei positions`` writes them, and reads those that hold whole games.
    """

    @property
    def position_formats(self) -> Mapping[str, str]:
        """Formats by the ending of a file's name, each with a few words about it."""
        ...

    @property
    def readable_formats(self) -> Collection[str]:
        """Those of :attr:`position_formats` that hold games move by move, so that :meth:`unpack_games` reads them."""
        ...

    def pack_game(self, positions: Sequence[LabelledPosition], suffix: str, *, scale: float) -> bytes:
        """Positions of one game with their labels; a file has the bytes of its games one after the other.

        Args:
            positions: one or more, each reached from the one before by its move.
            suffix: the format, one of :attr:`position_formats`.
            scale: points of an evaluation by which the odds of winning grow e-fold.

        Raises:
            GameError: a position or a move cannot be read, or there is no such format.
        """
        ...

    def unpack_games(self, content: bytes, suffix: str, *, scale: float) -> list[list[LabelledPosition]]:
        """The games of a file, as :meth:`pack_game` takes them; every move is legal.

        Args:
            content: of the file.
            suffix: the format, one of :attr:`readable_formats`.
            scale: see :meth:`pack_game`.

        Raises:
            GameError: one line that says what is wrong and where; nothing else is ever raised, whatever the bytes are.
        """
        ...
