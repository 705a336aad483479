"""How much of the collector's time is the network's own: rules only, network only and collected, side by side."""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from keisei_lightning.bench.report import print_report
from keisei_lightning.games import GameFactory, game_factory
from keisei_lightning.models import ActorCritic, LegalCategorical, build_network, num_parameters
from keisei_lightning.parallel import SelfPlayCollector

__all__ = ["add_arguments", "run"]

_MODELS = {"tiny": (1, 16), "small": (2, 32), "medium": (6, 96), "large": (10, 128)}  # (blocks, channels), as in conf/


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--game", default="shogi", help="game (default: shogi)")
    parser.add_argument("--model", nargs="+", choices=_MODELS, default=["small", "medium"], help="network sizes")
    parser.add_argument("--games", type=int, default=128, help="boards of the worker = batch of the network")
    parser.add_argument("--plies", type=int, default=32, help="plies of each board in a round")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds; medians are quoted")
    parser.add_argument("--threads", type=int, default=1, help="torch threads, for the network alone and in the worker")
    parser.add_argument("--opening-plies", type=int, default=60, help="games start after 0 to this many random plies")
    parser.add_argument("--seed", type=int, default=0)


@dataclass(slots=True)
class _Rates:
    """Plies per second, one entry a round."""

    rules: list[float] = field(default_factory=list)
    forward: list[float] = field(default_factory=list)
    collected: list[float] = field(default_factory=list)


class _Rules:
    """The game alone: observe, step and reset, by random play; choosing the moves is not counted."""

    def __init__(self, game: GameFactory, num_games: int, seed: int) -> None:
        self._boards = game(num_games)
        self._boards.seed(seed)
        self._boards.reset()
        spec = self._boards.spec
        self._generator = torch.Generator().manual_seed(seed)
        self._observation = np.zeros((num_games, *spec.observation_shape), np.uint8)
        self._legal = np.zeros((num_games, spec.mask_bytes), np.uint8)
        self._mover = np.zeros(num_games, np.int8)
        self._logits = torch.zeros(num_games, spec.num_actions)

    def measure(self, plies: int) -> float:
        seconds = 0.0
        for _ in range(plies):
            start = time.perf_counter()
            self._boards.observe(self._observation, self._legal, self._mover)
            seconds += time.perf_counter() - start
            moves = LegalCategorical(self._logits, torch.from_numpy(self._legal)).sample_with(self._generator).numpy()
            start = time.perf_counter()
            result = self._boards.step(moves)
            seconds += time.perf_counter() - start
            done = np.flatnonzero(result.terminated | result.truncated)
            if done.size:  # random openings are no plies of the game, so their time does not count either
                self._boards.reset(done)
        return len(self._mover) * plies / seconds


@torch.inference_mode()
def _measure_forward(network: torch.nn.Module, observation: Tensor, num_games: int) -> float:
    """Positions per second of the bare network on the batches [G, *obs] that the collector has just played."""
    start = time.perf_counter()
    for ply in range(observation.shape[1]):
        network(observation[:, ply])
    return num_games * observation.shape[1] / (time.perf_counter() - start)


def _measure(arguments: argparse.Namespace, model: str) -> dict[str, Any]:
    torch.manual_seed(arguments.seed)
    options = {"opening_plies": arguments.opening_plies} if arguments.opening_plies else {}
    game = game_factory(arguments.game, **options)
    spec = game(1).spec
    blocks, channels = _MODELS[model]
    policy = ActorCritic(build_network(spec, kind="resnet", num_blocks=blocks, channels=channels)).eval()
    rates, rules = _Rates(), _Rules(game, arguments.games, arguments.seed)
    torch.set_num_threads(arguments.threads)
    with SelfPlayCollector(
        game,
        policy,
        num_workers=1,
        games_per_worker=arguments.games,
        plies_per_rollout=arguments.plies,
        threads_per_worker=arguments.threads,
        zero_copy=True,
        seed=arguments.seed,
    ) as collector:
        batches = iter(collector)
        next(batches)  # start-up, and the first pass through everything
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            batch = next(batches)
            rates.collected.append(collector.frames_per_batch / (time.perf_counter() - start))
            rates.forward.append(_measure_forward(policy.network, batch["observation"].clone(), arguments.games))
            rates.rules.append(rules.measure(arguments.plies))
        rss = max(worker["rss_bytes"] or 0 for worker in collector.health())
        bytes_per_ply = collector.bytes_per_ply
    ratios = [collected / forward for collected, forward in zip(rates.collected, rates.forward, strict=True)]
    return {
        "model": f"{model} ({blocks} x {channels})",
        "parameters": num_parameters(policy),
        "rules_only_plies_per_s": round(statistics.median(rates.rules)),
        "forward_only_positions_per_s": round(statistics.median(rates.forward)),
        "collected_plies_per_s": round(statistics.median(rates.collected)),
        "collected_over_forward": round(statistics.median(ratios), 3),
        "bytes_per_ply": bytes_per_ply,
        "worker_rss_mib": round(rss / 2**20),
        "learner_rss_mib": round(psutil.Process().memory_info().rss / 2**20),
    }


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; returns the exit status."""
    rows = [_measure(arguments, model) for model in arguments.model]
    print_report(
        f"collect: {arguments.game}, {arguments.games} games, {arguments.threads} thread(s)",
        rows,
        as_json=arguments.json,
        notes=(
            f"medians of {arguments.rounds} alternating rounds of {arguments.plies} plies; one worker process; seed "
            f"{arguments.seed}",
        ),
    )
    return 0
