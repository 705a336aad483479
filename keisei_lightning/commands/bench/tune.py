"""How many workers, games and threads suit this machine and network: each combination is played for a few seconds."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress

from keisei_lightning.commands.bench.networks import policy_of
from keisei_lightning.commands.bench.options import TuneOptions, game_of, label_of
from keisei_lightning.commands.bench.report import print_report
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.system.console import bar_on_screen
from keisei_lightning.system.machine import available_cpus

__all__ = ["Choice", "choices", "run"]

_NEARLY = 0.97  # of the best rate counts as the best: fewer games in flight are fresher data


class Choice(NamedTuple):
    """One combination."""

    num_workers: int
    games_per_worker: int
    threads_per_worker: int

    @property
    def overrides(self) -> str:
        """As words of the command line."""
        return " ".join(f"parallel.{name}={value}" for name, value in self._asdict().items())


def choices(cpus: int, games: list[int]) -> Iterator[Choice]:
    """Combinations that use all CPUs: 1, 2, 4, ... workers up to one for each CPU, which share out the CPUs.

    Args:
        cpus: that this process may use.
        games: of a worker, to try.
    """
    workers = sorted({min(2**power, cpus) for power in range(math.ceil(math.log2(cpus)) + 1)})
    for num_workers, games_per_worker in itertools.product(workers, games):
        yield Choice(num_workers, games_per_worker, max(1, cpus // num_workers))


def _measure(choice: Choice, policy: ActorCritic, options: TuneOptions) -> dict[str, Any]:
    with SelfPlayCollector(
        game_of(options),
        policy,
        plies_per_rollout=options.plies,
        zero_copy=True,
        stagger_games=False,
        seed=options.seed,
        **choice._asdict(),
    ) as collector:
        batches = iter(collector)
        next(batches)
        start, plies = time.perf_counter(), 0
        while time.perf_counter() - start < options.seconds:
            next(batches)
            plies += collector.frames_per_batch
        rate = plies / (time.perf_counter() - start)
    return {"num_workers x games x threads": " x ".join(map(str, choice)), "plies_per_s": round(rate)}


def run(options: TuneOptions) -> None:
    """Measure, print and recommend."""
    policy = policy_of(game_of(options), options.model, options.seed)
    tried = list(choices(available_cpus(), options.games))
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with bar_on_screen(bar):
        rows = [_measure(choice, policy, options) for choice in bar.track(tried, description="trying combinations")]
    best = max(row["plies_per_s"] for row in rows)
    good = [choice for choice, row in zip(tried, rows, strict=True) if row["plies_per_s"] >= _NEARLY * best]
    chosen = min(good, key=lambda choice: choice.num_workers * choice.games_per_worker)
    print_report(
        f"tune: {options.game}, {label_of(options.model)}",
        rows,
        as_json=options.json,
        write=options.write,
        notes=(f"fewest games within {1 - _NEARLY:.0%} of the best: {chosen.overrides}",),
        one_line_a_row=True,
    )
