"""What shogi reads and writes: records and training positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from keisei_lightning.errors import GameError
from keisei_lightning.games.packed_game import LabelledPosition
from keisei_lightning.games.saved_game import SavedGame
from keisei_lightning.games.shogi import hcpe3, kifu
from keisei_lightning.games.shogi.packing import POSITION_FORMATS, pack_position

__all__ = ["ShogiFormats"]

_HCPE3: Final = ".hcpe3"


class ShogiFormats(ABC):
    """Records and training positions of a game of shogi.

    It follows :class:`~keisei_lightning.games.ReplayableGame` and :class:`~keisei_lightning.games.PackedGame`.
    """

    @abstractmethod
    def _saved(
        self, index: int, *, players: tuple[str, str] = ("first", "second"), outcome: str | None = None
    ) -> SavedGame:
        """The game of one board; with an end that the board does not know of, if one is given."""

    def record(self, index: int) -> str:
        """The game of one board as KIF."""
        return kifu.write(self._saved(index), ".kifu")

    def record_files(self, index: int, *, players: tuple[str, str], outcome: str) -> Mapping[str, str]:
        """The game of one board as KIF and CSA, with the players' names and its end.

        The ending ``.kifu`` says UTF-8; ``.kif`` would say Shift JIS, which lacks letters of other alphabets.
        """
        saved = self._saved(index, players=players, outcome=outcome)
        return {suffix: kifu.write(saved, suffix) for suffix in (".kifu", ".csa")}

    def csa(self, index: int) -> str:
        """The game of one board as CSA."""
        return kifu.write(self._saved(index), ".csa")

    def usi(self, index: int) -> str:
        """The game of one board as USI's ``position`` command."""
        return kifu.write(self._saved(index), ".usi").rstrip()

    @property
    def record_formats(self) -> Mapping[str, str]:
        """KIF, CSA, KI2, JKF and USI by the endings of files, with their encodings."""
        return kifu.FORMATS

    def read_record(self, text: str, suffix: str) -> SavedGame:
        """A game that was written by any program; see :mod:`keisei_lightning.games.shogi.kifu`.

        Raises:
            GameError: a line of it cannot be read, or a move is not legal.
        """
        return kifu.read(text, suffix)

    def write_record(self, saved: SavedGame, suffix: str) -> str:
        """A game in any of the :attr:`record_formats`.

        Raises:
            GameError: a move is not legal.
        """
        return kifu.write(saved, suffix)

    @property
    def position_formats(self) -> Mapping[str, str]:
        """Public formats of training positions by the endings of files."""
        return {**POSITION_FORMATS, _HCPE3: "games with scores and visits of each move (dlshogi)"}

    @property
    def readable_formats(self) -> Collection[str]:
        """hcpe3, which alone holds games move by move."""
        return (_HCPE3,)

    def pack_game(self, positions: Sequence[LabelledPosition], suffix: str, *, scale: float) -> bytes:
        """One game's positions; see :mod:`keisei_lightning.games.shogi.packing` and ``.hcpe3`` beside it.

        Raises:
            GameError: a position or a move cannot be read.
        """
        if suffix not in self.position_formats:
            raise GameError(f"{suffix}: must be one of {', '.join(self.position_formats)}")
        if suffix == _HCPE3:
            return hcpe3.pack_game(positions, scale=scale)
        return b"".join(pack_position(each, suffix, scale=scale) for each in positions)

    def unpack_games(self, content: bytes, suffix: str, *, scale: float) -> list[list[LabelledPosition]]:
        """Games of a file; see :mod:`keisei_lightning.games.shogi.hcpe3`.

        Raises:
            GameError: it is damaged, or of another format.
        """
        if suffix != _HCPE3:
            raise GameError(f"{suffix}: must be {_HCPE3}")
        return hcpe3.unpack_games(content, scale=scale)
