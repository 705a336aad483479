"""Share of optimal moves in labelled positions of connect four, by a policy alone and by searches over it.

::

    python tests/benchmarks/search_positions.py FOLDER/checkpoints/last.ckpt --simulations 0 64 512 --set method=puct
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.table import Table

from keisei_lightning.evaluation import SearchPlayer
from keisei_lightning.evaluation.positions import load_positions, share_optimal
from keisei_lightning.policies import load_policy
from keisei_lightning.search import SearchOptions

SETS = Path(__file__).resolve().parents[1] / "data" / "connect_four"


def main() -> int:
    """Measure, and print a row for each number of simulations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--simulations", type=int, nargs="+", default=[0, 64, 512])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of the search")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    policy = load_policy(arguments.checkpoint)
    options = {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in arguments.set)}
    table = Table("simulations", "random.csv, % mistakes", "tactical.csv, % mistakes", "s", title=str(options))
    for simulations in arguments.simulations:
        start, shares = time.perf_counter(), []
        for name in ("random", "tactical"):
            # A player for each set: what is kept of a tree is of no use to another one.
            search = SearchPlayer(policy.actor_critic, policy.game, SearchOptions(simulations=simulations, **options))
            shares.append(share_optimal(search, load_positions(SETS / f"{name}.csv", policy.game)).all)
        lows = [f"{100 * (1 - share.value):.2f} ({share.total - share.count:g} of {share.total})" for share in shares]
        table.add_row(str(simulations), *lows, f"{time.perf_counter() - start:.0f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
