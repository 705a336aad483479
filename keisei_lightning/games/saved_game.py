"""A game as data: what a record's text tells, whatever its format; and the protocol of games that read such texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from keisei_lightning.games.protocol import RecordedGame

__all__ = [
    "DRAW",
    "FORFEIT",
    "ILLEGAL_MOVE",
    "IMPASSE",
    "RESIGNATION",
    "TIME_OUT",
    "VOID",
    "ReplayableGame",
    "SavedGame",
]

RESIGNATION: Final = "resignation"
VOID: Final = "void"
TIME_OUT: Final = "time-out"
ILLEGAL_MOVE: Final = "illegal move"
FORFEIT: Final = "forfeit"
IMPASSE: Final = "impasse"
DRAW: Final = "draw"


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedGame:
    """One game, from the position in which it began to its end.

    Attributes:
        start: that position, for :meth:`~keisei_lightning.games.Game.set_position`.
        moves: names of the moves, as :meth:`~keisei_lightning.games.Game.action_name` says them.
        players: names in seat 0 and seat 1; empty where they are not told.
        outcome: how it ended: as the game's own :meth:`~keisei_lightning.games.Game.outcome` says, or one of the ends
            that no board knows of (``"resignation"``, ``"time-out"``, ``"void"``, ...); empty while it is not over.
        winner: seat that won; None: nobody, or it is not told.
        times_s: seconds that each move took, None where it is not told; empty where it is told of none.
        comments: text by the number of moves before it; 0 is the start. Lines are separated by line feeds.
        headers: what else is told of the game, such as ``event``, ``site``, ``start_date`` and ``end_date``.
        left_out: what the text has and this has not, a line each: variations, an illegal last move.
    """

    start: str
    moves: tuple[str, ...]
    players: tuple[str, str] = ("", "")
    outcome: str = ""
    winner: int | None = None
    times_s: tuple[float | None, ...] = ()
    comments: Mapping[int, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


@runtime_checkable
class ReplayableGame(RecordedGame, Protocol):
    """A game that reads records back, its own and those of other programs, and writes any game that it has read.

    Optional. ``keisei convert`` needs it, and whatever continues or shows a saved game
    (:func:`~keisei_lightning.games.replay`).
    """

    @property
    def record_formats(self) -> Mapping[str, str]:
        """Formats by the ending of a file's name, each with the encoding in which such a file is written.

        Whatever :meth:`record_files` writes is among them.
        """
        ...

    def read_record(self, text: str, suffix: str) -> SavedGame:
        """One game of a record's text; every move of it is legal.

        Args:
            text: of the record.
            suffix: its format, one of :attr:`record_formats`.

        Raises:
            GameError: one line that names the line in the text and what is wrong. Nothing else is ever raised, whatever
                the text is.
        """
        ...

    def write_record(self, saved: SavedGame, suffix: str) -> str:
        """The text of a record; what the format has no place for is left out.

        Args:
            saved: the game.
            suffix: the format, one of :attr:`record_formats`.

        Raises:
            GameError: a move is not legal, or there is no such format.
        """
        ...

    def action_of(self, index: int, name: str) -> int:
        """Action label of a legal move of one board's mover by its name: the inverse of :meth:`~Game.action_name`.

        Raises:
            IllegalActionError: no legal move has that name.
        """
        ...
