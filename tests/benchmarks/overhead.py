"""What the learner's process costs beside its workers: many of them, whose policy sleeps instead of thinking.

::

    python tests/benchmarks/overhead.py --workers 64

The workers take no CPU to speak of, so what the learner's process uses is the collector's own: waiting, hearing
headers, making batches. Printed: CPU seconds of the learner's process a second, in percent of one core.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from torch import Tensor, nn

from keisei_lightning.commands.bench.report import print_report
from keisei_lightning.games import game_factory
from keisei_lightning.models import bitmask
from keisei_lightning.parallel import SelfPlayCollector


class SleepingPolicy(nn.Module):
    """Plays evenly among the legal moves, after a nap."""

    def __init__(self, nap_s: float, num_actions: int) -> None:
        super().__init__()
        self.nap_s, self.num_actions = nap_s, num_actions

    def act(
        self, observation: Tensor, action_mask: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        time.sleep(self.nap_s)
        legal = bitmask.unpack_mask(action_mask, self.num_actions).float()
        action = torch.multinomial(legal, 1, generator=generator)[:, 0]
        return action, -legal.sum(1).log(), self.value(observation)

    def value(self, observation: Tensor) -> Tensor:
        return torch.zeros(len(observation), 1)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--games", type=int, default=8)
    parser.add_argument("--plies", type=int, default=32)
    parser.add_argument("--nap-s", type=float, default=0.1, help="of each ply")
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    game = game_factory("tic_tac_toe")
    rows = []
    for schedule in ("sync", "async"):
        with SelfPlayCollector(
            game,
            SleepingPolicy(arguments.nap_s, game(1).spec.num_actions),
            schedule=schedule,
            num_workers=arguments.workers,
            games_per_worker=arguments.games,
            plies_per_rollout=arguments.plies,
            threads_per_worker=1,
            zero_copy=True,
        ) as collector:
            batches = iter(collector)
            next(batches)
            plies, wall, cpu = collector.plies, time.perf_counter(), time.process_time()
            while time.perf_counter() - wall < arguments.seconds:
                next(batches)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            rows.append(
                {
                    "schedule": schedule,
                    "plies_per_s": round((collector.plies - plies) / wall),
                    "learner_cpu_percent": round(100 * cpu / wall, 2),
                }
            )
    print_report(
        f"overhead: {arguments.workers} workers x {arguments.games} games, a nap of {arguments.nap_s:g} s a ply",
        rows,
        as_json=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
