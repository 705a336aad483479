"""The model of scale beside nodes that are simulated on this machine: ``keisei bench scale check=true`` with a cluster.

Words go to the bench, which measures its rates, 1, 2, ... workers, and 1, 2, ... node agents on nodes of their own::

    python tests/benchmarks/cluster_scale.py --nodes 3 -- experiment=shogi parallel.games_per_worker=64 iterations=4
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from simulated_cluster import SimulatedCluster

from keisei_lightning.commands.bench import main as bench


def main() -> int:
    """Start the nodes, measure, and end them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3, help="simulated nodes, with one CPU each")
    parser.add_argument("words", nargs="*", help="of keisei bench scale")
    arguments = parser.parse_args()
    with SimulatedCluster(arguments.nodes) as cluster:
        cluster_words = [f"parallel.ray_address={cluster.address}", "parallel.placement=strict_spread"]
        return bench(["scale", "check=true", f"check_agents={arguments.nodes}", *cluster_words, *arguments.words])


if __name__ == "__main__":
    sys.exit(main())
