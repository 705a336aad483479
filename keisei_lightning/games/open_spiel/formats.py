"""What OpenSpiel's games read and write: lists of moves, and SGF where it is the game's own format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from keisei_lightning.errors import GameError
from keisei_lightning.games.open_spiel.move_list import read_move_list, write_move_list
from keisei_lightning.games.open_spiel.sgf import read_sgf, sgf_games, write_sgf
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.games.saved_game import SavedGame

__all__ = ["OpenSpielFormats"]


class OpenSpielFormats(ABC):
    """Records of a game; it follows :class:`~keisei_lightning.games.ReplayableGame`."""

    _game: Any
    _spec: GameSpec

    @abstractmethod
    def _saved(self, index: int, *, players: tuple[str, str], outcome: str) -> SavedGame:
        """The game of one board."""

    def record_files(self, index: int, *, players: tuple[str, str], outcome: str) -> Mapping[str, str]:
        """The game of one board as a list of moves, and as SGF where the game has a number there."""
        saved = self._saved(index, players=players, outcome=outcome)
        return {suffix: self.write_record(saved, suffix) for suffix in self.record_formats}

    @property
    def record_formats(self) -> Mapping[str, str]:
        """Lists of moves, and SGF for hex and othello."""
        is_sgf = self._game.get_type().short_name in sgf_games()
        return {".txt": "utf-8", ".sgf": "utf-8"} if is_sgf else {".txt": "utf-8"}

    def read_record(self, text: str, suffix: str) -> SavedGame:
        """A game of a record's text.

        Raises:
            GameError: it cannot be read, or a move is not legal.
        """
        self._check(suffix)
        if suffix == ".sgf":
            return read_sgf(text, self._game)
        return read_move_list(text, self._game, self._spec.name)

    def write_record(self, saved: SavedGame, suffix: str) -> str:
        """A game as the text of a record.

        Raises:
            GameError: a move is not legal.
        """
        self._check(suffix)
        if suffix == ".sgf":
            return write_sgf(saved, self._game)
        return write_move_list(saved, self._spec.name)

    def _check(self, suffix: str) -> None:
        if suffix not in self.record_formats:
            formats = ", ".join(self.record_formats)
            raise GameError(f"{suffix}: is no record format of {self._spec.name}; must be one of {formats}")
