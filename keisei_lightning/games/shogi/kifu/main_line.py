"""The moves of a record, played on a board as they are read, and how the game ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NoReturn

from rsshogi.core import Board, Move32

from keisei_lightning.errors import GameError
from keisei_lightning.games.saved_game import ILLEGAL_MOVE, RESIGNATION, SavedGame
from keisei_lightning.games.shogi.kifu.ends import End
from keisei_lightning.games.shogi.rules import (
    CHECKMATE,
    FOURTH,
    NO_LEGAL_MOVE,
    PERPETUAL_CHECK,
    fourfold_end,
    parse_sfen,
)

__all__ = ["MainLine", "refuse"]


def refuse(where: str, what: str) -> NoReturn:
    """Refuse a record.

    Args:
        where: the line, such as "line 12".
        what: what is wrong there.

    Raises:
        GameError: always.
    """
    raise GameError(f"{where}: {' '.join(what.split())}")


class MainLine:
    """The moves of a game so far, on a board.

    A move that is not legal is remembered: the game may have been lost by it. Whatever comes behind it but such an end
    is refused (:meth:`close`).

    Args:
        start: SFEN that the game began from.
        where: the line that tells it, for errors.

    Attributes:
        board: the position behind the moves.
        left_out: see :class:`~keisei_lightning.games.SavedGame`.

    Raises:
        GameError: it is no position.
    """

    def __init__(self, start: str, where: str) -> None:
        try:
            self.board: Board = parse_sfen(start)
        except GameError as error:
            refuse(where, str(error).removeprefix("shogi: "))
        self.start: str = self.board.to_sfen()
        self.left_out: list[str] = []
        self._moves: list[str] = []
        self._times_s: list[float | None] = []
        self._comments: dict[int, list[str]] = {}
        self._seen = Counter([self.board.zobrist_hash()])
        self._refused: str | None = None
        self._end: End | None = None

    @property
    def mover(self) -> int:
        """Seat to move."""
        return int(self.board.turn.is_white())

    @property
    def num_moves(self) -> int:
        """Moves so far."""
        return len(self._moves)

    @property
    def last_square(self) -> str | None:
        """Where the last move went, as USI names it; None before the first."""
        return self._moves[-1].removesuffix("+")[2:] if self._moves else None

    @property
    def is_over(self) -> bool:
        """Whether an end was told."""
        return self._end is not None

    def legal(self) -> Sequence[Move32]:
        """Legal moves here."""
        moves: Sequence[Move32] = self.board.legal_moves_move32()
        return moves

    def play(self, candidates: Sequence[Move32], where: str, shown: str) -> None:
        """Play the one legal move that a text can mean.

        Args:
            candidates: legal moves that it can mean.
            where: the line.
            shown: the text.

        Raises:
            GameError: several moves can be meant, or a move came before that was not legal.
        """
        self._refuse_what_came()
        if self._end is not None:
            refuse(where, f"{shown}: is a move behind the game's end")
        if len(candidates) > 1:
            meant = ", ".join(move.to_usi() for move in candidates)
            refuse(where, f"{shown}: can be several moves ({meant})")
        if not candidates:
            self._refused = f"{where}: {shown}: is not legal in {self.board.to_sfen()}"
            return
        (move,) = candidates
        self.board.apply_move32(move)
        self._moves.append(move.to_usi())
        self._times_s.append(None)
        self._seen[self.board.zobrist_hash()] += 1

    def play_usi(self, usi: str, where: str, shown: str) -> None:
        """Play the legal move of that name; see :meth:`play`."""
        self.play([move for move in self.legal() if move.to_usi() == usi], where, shown)

    def note_time(self, seconds: float) -> None:
        """What the last move took, if there is one."""
        if self._times_s and self._refused is None:
            self._times_s[-1] = seconds

    def note_comment(self, text: str) -> None:
        """One more line of comment where the game is now."""
        self._comments.setdefault(self.num_moves, []).append(text)

    def end(self, end: End) -> None:
        """The game ends here; what a second text says of it does not count."""
        if self._end is None:
            self._end = end

    def close(self, *, players: tuple[str, str], headers: Mapping[str, str]) -> SavedGame:
        """The whole game.

        Args:
            players: names.
            headers: see :class:`~keisei_lightning.games.SavedGame`.

        Raises:
            GameError: a move was not legal, and the game did not end by it.
        """
        if self._refused is not None:
            if self._end is None or self._end.outcome != ILLEGAL_MOVE:
                self._refuse_what_came()
            self.left_out.append(self._refused)
        outcome, winner = self._ending()
        return SavedGame(
            start=self.start,
            moves=tuple(self._moves),
            players=players,
            outcome=outcome,
            winner=winner,
            times_s=tuple(self._times_s) if any(self._times_s) else (),  # KIF has no other way to say none than zeros
            comments={ply: "\n".join(lines) for ply, lines in self._comments.items()},
            headers=dict(headers),
            left_out=tuple(self.left_out),
        )

    def _refuse_what_came(self) -> None:
        if self._refused is not None:
            raise GameError(self._refused)

    def _ending(self) -> tuple[str, int | None]:
        """Outcome and winner: what the text says, in the words that the board has for it."""
        stuck = not self.board.legal_moves()
        fourth = self._seen[self.board.zobrist_hash()] > FOURTH
        by_rules = CHECKMATE if self.board.is_in_check() else NO_LEGAL_MOVE
        if self._end is None:
            if stuck:
                return by_rules, 1 - self.mover
            if not fourth:
                return "", None
            outcome, result = fourfold_end(self.board)
            return outcome, {1: 1 - self.mover, 0: None, -1: self.mover}[result]
        winner = self._end.winner_of(self.mover)
        if stuck and self._end.outcome in (RESIGNATION, CHECKMATE) and winner == 1 - self.mover:
            return by_rules, winner
        if fourth and self._end.outcome == ILLEGAL_MOVE and fourfold_end(self.board)[0] == PERPETUAL_CHECK:
            return PERPETUAL_CHECK, winner
        return self._end.outcome, winner
