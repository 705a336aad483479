"""Tries of a search per second beside the network's own positions per second, on one core.

::

    OMP_NUM_THREADS=1 python tests/benchmarks/search_speed.py --trees 64 1 --simulations 64 400

The network is made anew (its speed does not depend on its weights). A round measures forward passes of a batch of as
many positions as there are trees (or leaves of the only tree), then a search of all trees; ratios are of one round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from keisei_lightning import ActorCritic, build_network, game_factory, keep_freed_memory
from keisei_lightning.games import Game
from keisei_lightning.search import Roots, SearchOptions, TreeSearch, copies_of
from keisei_lightning.search.network import NetworkEvaluator

FORWARD_S = 2.0


def roots_of(game: Game) -> Roots:
    """All boards of a game, as they are."""
    count, spec = game.num_games, game.spec
    observation = np.zeros((count, *spec.observation_shape), np.uint8)
    legal, mover = np.zeros((count, spec.mask_bytes), np.uint8), np.zeros(count, np.int8)
    game.observe(observation, legal, mover)
    positions = copies_of(game, np.arange(count))
    return Roots(boards=range(count), positions=positions, observation=observation, legal=legal, mover=mover)


def forward_rate(policy: ActorCritic, observation: NDArray[np.uint8]) -> float:
    """Positions per second of forward passes of one batch."""
    given, passes, start = torch.from_numpy(observation), 0, time.perf_counter()
    with torch.inference_mode():
        while time.perf_counter() - start < FORWARD_S:
            policy(given)
            passes += 1
    return passes * len(observation) / (time.perf_counter() - start)


def main() -> int:
    """Measure, and print a row for each number of trees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="shogi")
    parser.add_argument("--trees", type=int, nargs="+", default=[64, 1])
    parser.add_argument("--simulations", type=int, nargs="+", default=[64, 400], help="one number for each of --trees")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    keep_freed_memory()  # as commands and workers do
    torch.set_num_threads(1)
    torch.manual_seed(0)
    factory = game_factory(arguments.game)
    spec = factory(1).spec
    policy = ActorCritic(build_network(spec, kind="resnet", num_blocks=2, channels=32)).eval()  # model=small
    table = Table("trees", "batch", "forward, positions/s", "search, tries/s", "ratio, median", "lowest to highest")
    for trees, simulations in zip(arguments.trees, arguments.simulations, strict=True):
        options = SearchOptions(simulations=simulations)
        batch, forward, tries = max(trees, options.leaves), [], []
        for seed in range(arguments.rounds):
            game = game_factory(arguments.game, opening_plies=40)(batch)
            game.seed(seed)
            game.reset()
            roots = roots_of(game)
            forward.append(forward_rate(policy, roots.observation))
            few = Roots(
                boards=range(trees),
                positions=roots.positions[:trees],
                observation=roots.observation[:trees],
                legal=roots.legal[:trees],
                mover=roots.mover[:trees],
            )
            search, start = TreeSearch(NetworkEvaluator(policy, spec), factory, options), time.perf_counter()
            found = search.run(few)
            tries.append(sum(int(each.visits.sum()) for each in found) / (time.perf_counter() - start))
        ratios = [ours / its for ours, its in zip(tries, forward, strict=True)]
        rates = f"{statistics.median(forward):,.0f}", f"{statistics.median(tries):,.0f}"
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        table.add_row(str(trees), str(batch), *rates, f"{statistics.median(ratios):.2f}", spread)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
