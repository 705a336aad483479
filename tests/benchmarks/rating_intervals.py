"""How well intervals of ratings cover where the truth is known: ``python tests/benchmarks/rating_intervals.py``.

Games are drawn by Elo's model; a ladder's players meet one another, and one player, whom nobody of the ladder is as
strong as, meets all of them. The same seeds give the same figures.
"""

from __future__ import annotations

import argparse
import itertools
import math

import numpy as np
from rich.console import Console

from keisei_lightning.evaluation import Tally
from keisei_lightning.evaluation.ladder import Ladder
from keisei_lightning.evaluation.ratings import Rating, expected_score, rate_against

LADDERS = ((0, 457, 913), (0, 342, 685, 1028), (0, 430, 680, 695, 830), (0, 690))
TRUE_RATING = 1370
LADDERS_GAMES = 40


def draw_games(rng: np.random.Generator, difference: float, games: int) -> Tally:
    """Games of a player who is stronger by ``difference`` Elo points, without draws."""
    wins = int(rng.binomial(games, expected_score(difference)))
    return Tally(wins=wins, losses=games - wins)


def rate_once(rng: np.random.Generator, ladder: tuple[int, ...], own_games: int) -> Rating | None:
    """Draw a ladder's games and the player's, and rate the player."""
    names = ["random", *(f"player {number}" for number in range(1, len(ladder)))]
    true = dict(zip(names, ladder, strict=True))
    matches = tuple(
        (one, other, draw_games(rng, true[one] - true[other], LADDERS_GAMES))
        for one, other in itertools.combinations(names, 2)
    )
    tallies = {name: draw_games(rng, TRUE_RATING - true[name], own_games) for name in names}
    return rate_against(Ladder(game="drawn", matches=matches), tallies)


def main() -> None:
    """Print a row for each ladder and number of games."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    console = Console(width=200, markup=False, highlight=False)
    console.print("| ladder | games against each | covered, % | mean error | no upper end, % |\n|---|---|---|---|---|")
    for ladder, own_games in itertools.product(LADDERS, (40, 400)):
        rng = np.random.default_rng(arguments.seed)
        rated = [rate_once(rng, ladder, own_games) for _ in range(arguments.rounds)]
        ratings = [rating for rating in rated if rating is not None]
        covered = sum(rating.low <= TRUE_RATING <= rating.high for rating in ratings)
        error = np.mean([rating.value for rating in ratings]) - TRUE_RATING
        endless = sum(math.isinf(rating.high) for rating in ratings)
        console.print(
            f"| {', '.join(map(str, ladder))} | {own_games} | {100 * covered / len(rated):.1f} | {error:+.0f} "
            f"| {100 * endless / len(rated):.0f} |"
        )


if __name__ == "__main__":
    main()
