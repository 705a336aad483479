"""Connect four solved exactly, position by position: which moves win, draw and lose with perfect play of both sides.

Negamax with alpha-beta on bitboards, after Pascal Pons, "Solving Connect 4" (http://blog.gamesolver.org): seven bits a
column, the highest always 0; moves that lose at once are never tried; moves that make more threats come first. Only
the sign of a result is asked for. It is plain Python, so that early positions take too long: a budget of positions is
given, and what is not solved within it is told as not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["ConnectFourSolver"]

_WIDTH: Final = 7
_HEIGHT: Final = 6
_UP: Final = _HEIGHT + 1  # bits of a column
_SHIFTS: Final = (_UP, _UP - 1, _UP + 1)  # to the square beside, and to those diagonally beside
_BOTTOM: Final = sum(1 << (column * _UP) for column in range(_WIDTH))
_BOARD: Final = _BOTTOM * ((1 << _HEIGHT) - 1)
_COLUMNS: Final = tuple(((1 << _HEIGHT) - 1) << (column * _UP) for column in range(_WIDTH))
_CENTRE_FIRST: Final = tuple(_COLUMNS[column] for column in (3, 2, 4, 1, 5, 0, 6))
_LAST_PLIES: Final = _WIDTH * _HEIGHT - 2
_MAX_KNOWN: Final = 2_000_000  # positions that are remembered: about 300 MB


class _BudgetSpentError(Exception):
    """More positions would have to be looked at than are allowed."""


class ConnectFourSolver:
    """Solves positions of the ordinary board (7 columns, 6 rows), and remembers what it has found.

    Args:
        max_positions: positions that are looked at for one move, at most.
    """

    def __init__(self, max_positions: int = 20_000) -> None:
        self.max_positions = max_positions
        self._bounds: dict[int, tuple[int, int]] = {}
        self._left = 0

    def move_results(self, columns: Sequence[int]) -> list[int | None]:
        """The result of each move, for the mover: 1, 0 or -1.

        Args:
            columns: all moves from the empty board, from 0 to 6; the game must not be over.

        Returns:
            For each column; None where it is full, or where the budget did not suffice.

        Raises:
            ValueError: a move is not legal, or the game is over.
        """
        own, mask = self._place(columns)
        return [self._result(own, mask, column) for column in range(_WIDTH)]

    def grade(self, columns: Sequence[int], column: int) -> tuple[int, int] | None:
        """Grade a move: the best result that the mover could have had, and that after the move.

        Args:
            columns: all moves before it.
            column: the move.

        Returns:
            None where the budget did not suffice.

        Raises:
            ValueError: a move is not legal, or the game is over.
        """
        own, mask = self._place(columns)
        if not 0 <= column < _WIDTH or not _move(mask, column):
            raise ValueError(f"columns={list(columns)}: {column} is no legal move")
        best = got = self._result(own, mask, column)
        if got is None:
            return None
        others = [other for other in range(_WIDTH) if other != column and _move(mask, other)]
        for other in others if got < 1 else ():
            result = self._result(own, mask, other)
            if result == 1:
                return 1, got
            best = None if result is None or best is None else max(best, result)
        return None if best is None else (best, got)

    @staticmethod
    def _place(columns: Sequence[int]) -> tuple[int, int]:
        """The mover's stones and all stones."""
        own = mask = 0
        for column in columns:
            if not 0 <= column < _WIDTH or not (move := _move(mask, column)):
                raise ValueError(f"columns={list(columns)}: {column} is no legal move")
            if move & _winning(own, mask):
                raise ValueError(f"columns={list(columns)}: the game is over")
            own, mask = own ^ mask, mask | move
        return own, mask

    def _result(self, own: int, mask: int, column: int) -> int | None:
        move = _move(mask, column)
        if not move:
            return None
        if move & _winning(own, mask):
            return 1
        own, mask = own ^ mask, mask | move  # the opponent is the mover now
        if mask == _BOARD:
            return 0
        if _winning(own, mask) & _possible(mask):
            return -1
        if len(self._bounds) > _MAX_KNOWN:
            self._bounds.clear()
        self._left = self.max_positions
        try:
            return -self._negamax(own, mask, -1, 1)
        except _BudgetSpentError:
            return None

    def _negamax(self, own: int, mask: int, alpha: int, beta: int) -> int:
        """The result for the mover, who cannot win at once, or a bound of it outside of the window."""
        self._left -= 1
        if self._left < 0:
            raise _BudgetSpentError
        moves = _possible(mask)
        threats = _winning(own ^ mask, mask)
        if forced := moves & threats:
            if forced & (forced - 1):
                return -1
            moves = forced
        moves &= ~(threats >> 1)  # below a square where the opponent wins
        if not moves:
            return -1
        if mask.bit_count() >= _LAST_PLIES:
            return 0
        key = own + mask
        low, high = self._bounds.get(key, (-1, 1))
        alpha, beta = max(alpha, low), min(beta, high)
        if alpha >= beta:
            return low if low == high else alpha
        best = -1
        for move in _ordered(own, mask, moves):
            best = max(best, -self._negamax(own ^ mask, mask | move, -beta, -max(alpha, best)))
            if best >= beta:
                break
        if best <= alpha:
            high = min(high, best)
        elif best >= beta:
            low = max(low, best)
        else:
            low = high = best
        self._bounds[key] = (low, high)
        return best


def _move(mask: int, column: int) -> int:
    """The square that a stone falls to; 0 where the column is full."""
    return (mask + (1 << (column * _UP))) & _COLUMNS[column]


def _possible(mask: int) -> int:
    """The squares that stones may fall to."""
    return (mask + _BOTTOM) & _BOARD


def _winning(stones: int, mask: int) -> int:
    """The free squares that complete four of these stones."""
    found = (stones << 1) & (stones << 2) & (stones << 3)
    for shift in _SHIFTS:
        pair = (stones << shift) & (stones << 2 * shift)
        found |= pair & ((stones << 3 * shift) | (stones >> shift))
        pair = (stones >> shift) & (stones >> 2 * shift)
        found |= pair & ((stones << shift) | (stones >> 3 * shift))
    return found & (_BOARD ^ mask)


def _ordered(own: int, mask: int, moves: int) -> list[int]:
    """Moves that make more threats first, among equals those nearer to the centre."""
    found = [move for column in _CENTRE_FIRST if (move := moves & column)]
    if len(found) > 1:
        found.sort(key=lambda move: -_winning(own | move, mask | move).bit_count())
    return found
