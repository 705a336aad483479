"""How much of the collector's time is the network's own: rules only, network only and collected, side by side."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from torch import Tensor

from keisei_lightning.commands.bench.networks import policy_of
from keisei_lightning.commands.bench.options import CollectOptions, describe_rules, game_of, label_of
from keisei_lightning.commands.bench.report import print_report
from keisei_lightning.commands.bench.rules import RandomPlay
from keisei_lightning.models import num_parameters
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.parallel.options import Mode

__all__ = ["run"]


@dataclass(slots=True)
class _Rates:
    """Plies per second, one entry a round."""

    rules: list[float] = field(default_factory=list)
    forward: list[float] = field(default_factory=list)
    collected: list[float] = field(default_factory=list)


@torch.inference_mode()
def _measure_forward(network: torch.nn.Module, observation: Tensor, num_games: int) -> float:
    """Positions per second of the bare network on the batches [G, *obs] that the collector has just played."""
    start = time.perf_counter()
    for ply in range(observation.shape[1]):
        network(observation[:num_games, ply])
    return num_games * observation.shape[1] / (time.perf_counter() - start)


def _measure(options: CollectOptions, model: str, mode: Mode, num_workers: int) -> dict[str, Any]:
    game = game_of(options)
    policy = policy_of(game, model, options.seed)
    rates, rules = _Rates(), RandomPlay(game, options.games, options.seed)
    torch.set_num_threads(options.threads)
    with SelfPlayCollector(
        game,
        policy,
        mode=mode,
        schedule=options.schedule,
        max_policy_lag=0,  # nothing is published
        num_workers=num_workers,
        games_per_worker=options.games,
        plies_per_rollout=options.plies,
        threads_per_worker=options.threads,
        zero_copy=True,
        seed=options.seed,
    ) as collector:
        started = time.perf_counter()
        batches = iter(collector)
        next(batches)  # start-up, and the first pass through everything
        first_batch_s = time.perf_counter() - started
        for _ in range(options.rounds):
            start = time.perf_counter()
            batch = next(batches)
            rates.collected.append(collector.frames_per_batch / (time.perf_counter() - start))
            rates.forward.append(_measure_forward(policy.network, batch["observation"].clone(), options.games))
            rates.rules.append(rules.play(options.plies))
        rss = max(process["rss_bytes"] or 0 for process in collector.health()[:num_workers])
        bytes_per_ply = collector.bytes_per_ply
    ratios = [collected / forward for collected, forward in zip(rates.collected, rates.forward, strict=True)]
    return {
        "model": f"{label_of(model)}, {mode}" + (f" x {num_workers}" if mode != "serial" else ""),
        "parameters": num_parameters(policy),
        "rules_only_plies_per_s": round(statistics.median(rates.rules)),
        "forward_only_positions_per_s": round(statistics.median(rates.forward)),
        "collected_plies_per_s": round(statistics.median(rates.collected)),
        "collected_over_forward": round(statistics.median(ratios), 3),
        "first_batch_s": round(first_batch_s, 2),
        "bytes_per_ply": bytes_per_ply,
        "worker_rss_mib": round(rss / 2**20),
        "learner_rss_mib": round(psutil.Process().memory_info().rss / 2**20),
    }


def run(options: CollectOptions) -> None:
    """Measure and print."""
    rows = [
        _measure(options, model, mode, num_workers)
        for model in options.model
        for mode in options.mode
        for num_workers in options.workers
    ]
    print_report(
        f"collect: {options.game}, {options.games} games a worker, {options.threads} thread(s), {options.schedule}",
        rows,
        as_json=options.json,
        write=options.write,
        notes=(
            f"medians of {options.rounds} alternating rounds of {options.plies} plies; rules and network: one "
            f"process; seed {options.seed}",
            *describe_rules(options),
        ),
    )
