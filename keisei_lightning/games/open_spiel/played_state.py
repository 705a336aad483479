"""A game of OpenSpiel that is played by names of moves as a record is read, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from keisei_lightning.errors import GameError
from keisei_lightning.games.saved_game import DRAW, RESIGNATION, VOID, SavedGame

__all__ = ["NO_MOVES_YET", "PlayedState", "outcome_of", "refuse"]

NO_MOVES_YET = "-"
"""The start as a position: a list of no moves."""


def refuse(where: str, what: str) -> NoReturn:
    """Refuse a record.

    Args:
        where: the line, such as "line 12".
        what: what is wrong there.

    Raises:
        GameError: always.
    """
    raise GameError(f"{where}: {' '.join(what.split())}")


def outcome_of(state: Any) -> tuple[str, int | None]:
    """How a finished ``pyspiel.State`` ended, as ``outcome`` says it, and the seat that won."""
    returned = state.player_return(0)
    if returned == 0:
        return "draw", None
    return ("first player wins", 0) if returned > 0 else ("second player wins", 1)


class PlayedState:
    """A game from its start, so far.

    Args:
        game: a ``pyspiel.Game``.

    Attributes:
        moves: names of the moves.
        left_out: see :class:`~keisei_lightning.games.SavedGame`.
    """

    def __init__(self, game: Any) -> None:
        self.moves: list[str] = []
        self.left_out: list[str] = []
        self._state = game.new_initial_state()
        self._comments: dict[int, list[str]] = {}

    @property
    def is_over(self) -> bool:
        """Whether the rules have ended the game."""
        return bool(self._state.is_terminal())

    @property
    def mover(self) -> int:
        """Seat to move; at the end the one that did not move last."""
        if not self.is_over:
            return int(self._state.current_player())
        return 1 - int(self._state.full_history()[-1].player)

    def legal(self) -> dict[str, int]:
        """OpenSpiel's numbers of the legal moves by their names."""
        if self.is_over:
            return {}
        player = self._state.current_player()
        return {self._state.action_to_string(player, action): action for action in self._state.legal_actions()}

    def play(self, name: str, where: str) -> None:
        """Play a move.

        Raises:
            GameError: it is not legal.
        """
        if self.is_over:
            refuse(where, f"move {len(self.moves) + 1}: {name}: is a move behind the game's end")
        action = self.legal().get(name)
        if action is None:
            refuse(where, f"move {len(self.moves) + 1}: {name}: is not legal here")
        self._state.apply_action(action)
        self.moves.append(name)

    def note_comment(self, text: str) -> None:
        """A comment where the game is now."""
        self._comments.setdefault(len(self.moves), []).append(text)

    def close(
        self,
        where: str,
        *,
        outcome: str,
        winner: int | None,
        players: tuple[str, str],
        headers: Mapping[str, str],
    ) -> SavedGame:
        """The whole game; what the board says of its end counts more than what the text says.

        Args:
            where: the line that tells the end.
            outcome: as the text tells it; empty: it does not.
            winner: as the text tells it.
            players: names.
            headers: see :class:`~keisei_lightning.games.SavedGame`.
        """
        if self.is_over:
            told, (outcome, winner) = winner, outcome_of(self._state)
            if told is not None and told != winner:
                self.left_out.append(f"{where}: the winner, whom the board contradicts ({outcome})")
        elif outcome == RESIGNATION and winner is None:
            winner = 1 - self.mover
        elif outcome in (VOID, DRAW):
            winner = None
        return SavedGame(
            start=NO_MOVES_YET,
            moves=tuple(self.moves),
            players=players,
            outcome=outcome,
            winner=winner,
            comments={ply: "\n".join(lines) for ply, lines in self._comments.items()},
            headers=dict(headers),
            left_out=tuple(self.left_out),
        )
