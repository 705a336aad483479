"""Where a policy errs: its moves beside those of an exact solver, by ply and by what each mistake cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from keisei_lightning.analysis.self_play import PlayedPlies
from keisei_lightning.errors import UnsupportedGameError
from keisei_lightning.evaluation.connect_four_solver import ConnectFourSolver
from keisei_lightning.evaluation.solvers import SmallGame
from keisei_lightning.games.registry import GAMES

__all__ = ["KINDS", "Grader", "Mistakes", "find_mistakes", "grader_of"]

KINDS: Final = ("win to draw", "win to loss", "draw to loss")
"""What the mover had with perfect play, and what is left after the move."""

_KIND: Final = {(1, 0): KINDS[0], (1, -1): KINDS[1], (0, -1): KINDS[2]}
_FIRST_SOLVED_PLY: Final = 18  # of connect four: earlier positions take a solver in Python too long

Grader = Callable[[str, bytes, int], "tuple[int, int] | None"]
"""``grade(position, observation, action)``: the best result for the mover, and that after the move; None: not known."""


@dataclass(kw_only=True, slots=True)
class Mistakes:
    """Moves that were graded, by the ply of the game at which they were played (its opening included).

    Attributes:
        graded: numbers of moves whose grade is known.
        unknown: numbers of moves that the solver could not grade.
        by_kind: numbers of mistakes of each of :data:`KINDS`.
        could_err: numbers of graded moves where some result could be lost: the position was not lost.
    """

    graded: Counter[int] = field(default_factory=Counter)
    unknown: Counter[int] = field(default_factory=Counter)
    could_err: Counter[int] = field(default_factory=Counter)
    by_kind: dict[str, Counter[int]] = field(default_factory=lambda: {kind: Counter() for kind in KINDS})

    @property
    def total(self) -> int:
        """All mistakes."""
        return sum(sum(counts.values()) for counts in self.by_kind.values())


def find_mistakes(plies: PlayedPlies, grade: Grader) -> Mistakes:
    """Grade each move of some games; a position with its move is graded once.

    Args:
        plies: the moves.
        grade: of :func:`grader_of`.
    """
    found = Mistakes()
    known: dict[tuple[str, int], tuple[int, int] | None] = {}
    for ply, position, seen, action in zip(
        plies.ply.tolist(), plies.position, plies.observation, plies.action.tolist(), strict=True
    ):
        key = (position, action)
        if key not in known:
            known[key] = grade(position, seen, action)
        place = _ply_of(position, ply)
        if (results := known[key]) is None:
            found.unknown[place] += 1
            continue
        best, got = results
        found.graded[place] += 1
        found.could_err[place] += best > -1
        if got < best:
            found.by_kind[_KIND[best, got]][place] += 1
    return found


def _ply_of(position: str, ply: int) -> int:
    """Of the whole game, where the position is the list of its moves, as OpenSpiel's are."""
    words = [] if position.strip() == "-" else position.split()
    return len(words) if all(word.isdecimal() for word in words) else ply


def _connect_four() -> Grader:
    solver = ConnectFourSolver()

    def grade(position: str, observation: bytes, action: int) -> tuple[int, int] | None:
        columns = [] if position.strip() == "-" else [int(word) for word in position.split()]
        return solver.grade(columns, action) if len(columns) >= _FIRST_SOLVED_PLY else None

    return grade


_SOLVERS: Final[dict[str, Callable[[], Grader]]] = {"connect_four": _connect_four}
"""What makes a grader, for games that have a solver of their own."""


def grader_of(game: str) -> Grader:
    """A solver of a game: of connect four from its middle on, and of each game that is small enough to enumerate.

    Args:
        game: its name in OpenSpiel's notation.

    Raises:
        UnsupportedGameError: there is none.
    """
    if (make := _SOLVERS.get(game)) is not None:
        return make()
    why = (
        f"errors: no exact solver knows {game}; must be connect_four, or a game of OpenSpiel that is small enough to "
        "enumerate, such as tic_tac_toe"
    )
    if game in GAMES:  # a package's own, whatever OpenSpiel means by the name
        raise UnsupportedGameError(why)
    try:
        small = SmallGame(game)
    except UnsupportedGameError as error:
        raise UnsupportedGameError(why) from error
    values = small.move_values()
    rows = {observation.tobytes(): values[index] for index, observation in enumerate(small.observation)}

    def look_up(position: str, observation: bytes, action: int) -> tuple[int, int] | None:
        row = rows.get(observation)
        return None if row is None else (int(row.max()), int(row[action]))

    return look_up
