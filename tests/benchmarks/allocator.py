"""What it is worth that freed memory is kept (``keep_freed_memory``): network and learner with it and without.

::

    python tests/benchmarks/allocator.py

Processes take turns, with it and without, since it cannot be taken back. Each makes passes of the network over batches
of positions, as a worker does, and PPO steps, as the learner does, both with one thread, and counts page faults.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keisei_lightning import keep_freed_memory
from keisei_lightning.commands.bench.networks import policy_of
from keisei_lightning.commands.bench.report import print_report
from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector

GAMES, PLIES, MINIBATCH = 128, 8, 512


def forward(policy: ActorCritic, observation: Tensor) -> int:
    """Evaluate every position of a rollout, batch by batch; the number of positions."""
    with torch.inference_mode():
        for positions in observation:
            policy(positions)
    return observation.shape[0] * observation.shape[1]


def learn(policy: ActorCritic, observation: Tensor) -> int:
    """Forward and backward passes over the same positions; their number."""
    for positions in observation.flatten(0, 1).split(MINIBATCH):
        logits, value = policy(positions)
        policy.zero_grad()
        (logits.square().mean() + value.square().mean()).backward()
    return observation.shape[0] * observation.shape[1]


def rate(work: Callable[[ActorCritic, Tensor], int], policy: ActorCritic, observation: Tensor) -> tuple[float, float]:
    """Positions a second, and page faults for each thousand positions: medians of five."""
    rates, faults = [], []
    work(policy, observation)
    for _ in range(5):
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        positions = work(policy, observation)
        rates.append(positions / (time.perf_counter() - start))
        faults.append(1000 * (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / positions)
    return statistics.median(rates), statistics.median(faults)


def measure(model: str, *, keep: bool) -> dict[str, float]:
    """One process's figures."""
    torch.set_num_threads(1)
    if keep and not keep_freed_memory():
        raise SystemExit("the C library is not glibc: there is nothing to compare")
    game = game_factory("shogi", opening_plies=60)
    policy = policy_of(game, model, 0)
    with SelfPlayCollector(game, policy, mode="serial", games_per_worker=GAMES, plies_per_rollout=PLIES) as collector:
        observation = next(iter(collector))["observation"].transpose(0, 1).contiguous()
    figures = {}
    for name, work in (("forward", forward), ("learn", learn)):
        figures[f"{name}_per_s"], figures[f"{name}_faults"] = rate(work, policy, observation)
    figures["rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def row(model: str, rounds: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, Any]:
    """Medians, and the medians of the ratios within a round."""
    result: dict[str, Any] = {"model": model}
    for name in ("forward", "learn"):
        key = f"{name}_per_s"
        result[key] = round(statistics.median(without[key] for without, _ in rounds))
        result[f"{key}_kept"] = round(statistics.median(kept[key] for _, kept in rounds))
        result[f"{name}_ratio"] = round(statistics.median(kept[key] / without[key] for without, kept in rounds), 3)
        for column, which in (("faults", 0), ("faults_kept", 1)):
            result[f"{name}_{column}"] = round(statistics.median(pair[which][f"{name}_faults"] for pair in rounds))
    for column, which in (("peak_rss_mib", 0), ("peak_rss_mib_kept", 1)):
        result[column] = round(statistics.median(pair[which]["rss_mib"] for pair in rounds))
    return result


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["small"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write JSON to this file too")
    parser.add_argument("--one", choices=("kept", "without"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        sys.stdout.write(json.dumps(measure(arguments.model[0], keep=arguments.one == "kept")) + "\n")
        return 0

    def run(model: str, which: str) -> dict[str, float]:
        command = [sys.executable, __file__, "--model", model, "--one", which]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        figures: dict[str, float] = json.loads(printed.splitlines()[-1])
        return figures

    rows = [
        row(model, [(run(model, "without"), run(model, "kept")) for _ in range(arguments.rounds)])
        for model in arguments.model
    ]
    print_report(
        f"freed memory kept: shogi, one thread, batches of {GAMES} positions, minibatches of {MINIBATCH}",
        rows,
        as_json=arguments.json,
        write=arguments.write,
        notes=(f"medians of {arguments.rounds} alternating pairs of processes; faults for 1000 positions",),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
