"""What perfect play scores in connect four from the openings of a match: nobody can do better from lost positions.

::

    pip install --no-deps "bitbully==0.0.79" "bitbully-databases==0.0.2"
    python tests/benchmarks/perfect_connect_four.py tactics random 'alpha_beta(depth=5)'

The solver (AGPL) grades every move; among the best ones the first in the order of columns from the centre is played, so
it neither hurries to win nor sets traps. The openings are those of ``tests/strength.py``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.evaluation import Turn, play_match
from keisei_lightning.evaluation.registry import make_player
from keisei_lightning.games import game_factory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from strength import GAMES, OPENING_SEED

CENTRE_FIRST = (3, 2, 4, 1, 5, 0, 6)


class Solver:
    """The solver's value of every legal move."""

    def __init__(self) -> None:
        from bitbully import BitBully

        self._solver = BitBully(opening_book="default")

    def scores(self, position: str) -> dict[int, int]:
        """Scores by column: above 0 the mover wins, 0 is a draw, below 0 the mover loses; further from 0 is sooner."""
        from bitbully import Board

        board = Board([] if position == "-" else [int(move) for move in position.split()])
        scores: dict[int, int] = self._solver.score_all_moves(board)
        return scores


class Perfect:
    """Plays a best move of the solver's."""

    name = "perfect"

    def __init__(self) -> None:
        self._solver = Solver()

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        return np.array([self._best(turn.game.position(index)) for index in turn.indices.tolist()], np.int64)

    def _best(self, position: str) -> int:
        scores = self._solver.scores(position)
        return max((move for move in CENTRE_FIRST if move in scores), key=lambda move: scores[move])


def main() -> int:
    """Play the matches and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("opponents", nargs="*", default=["tactics"], metavar="PLAYER")
    parser.add_argument("--games", type=int, default=GAMES)
    parser.add_argument("--opening-plies", type=int, nargs="+", default=[8])
    arguments = parser.parse_args()
    game, perfect = game_factory("connect_four"), Perfect()
    for name in arguments.opponents:
        for plies in arguments.opening_plies:
            result = play_match(
                game,
                perfect,
                make_player(name, game(1).spec, seed=1),
                num_games=arguments.games,
                opening_plies=plies,
                seed=OPENING_SEED,
            )
            sys.stdout.write(f"openings of up to {plies} plies: {result}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
