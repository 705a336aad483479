"""Two learners (ranks) of one thread against one learner of two threads, in turns: plies/s of the same training.

::

    python tests/benchmarks/ddp.py --turns 3
    python tests/benchmarks/ddp.py --turns 3 --game shogi --games 16

Both sides play with two workers, learn from equally many plies in minibatches of the same size (of both ranks
together), and stop after the same number of iterations. The first iteration, in which workers start, is not counted.
Give the program the machine alone.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from keisei_lightning.commands.bench.networks import policy_of
from keisei_lightning.commands.bench.report import describe_machine
from keisei_lightning.games import game_factory
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.training import PPOModule, SelfPlayDataModule, SelfPlayMetrics

WORKERS = 2


class Clock(Callback):
    """Measures from the end of the first iteration on."""

    def __init__(self) -> None:
        self.started = self.seconds = 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start after the first iteration."""
        if trainer.current_epoch == 0:
            self.started = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.started


def train(options: dict[str, Any]) -> None:
    """Train as one of so many ranks as the environment says; the first one prints plies/s."""
    world = int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(WORKERS // world)
    game = game_factory(options["game"])
    policy = policy_of(game, options["model"], seed=0)
    collector = SelfPlayCollector(
        game,
        policy,
        num_workers=WORKERS // world,
        games_per_worker=options["games"],
        plies_per_rollout=options["plies"],
        threads_per_worker=1,
        zero_copy=True,
    )
    data = SelfPlayDataModule(collector, minibatch_size=options["minibatch"] // world)
    clock, numbers = Clock(), SelfPlayMetrics()
    trainer = Trainer(
        accelerator="cpu",
        devices=world,
        strategy="ddp" if world > 1 else "auto",
        max_epochs=options["iterations"],
        gradient_clip_val=0.5,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[numbers, clock],
    )
    trainer.fit(PPOModule(policy), datamodule=data)
    counted = numbers.latest["plies"] * (1 - 1 / options["iterations"])
    if trainer.is_global_zero:
        report = {"plies_per_s": counted / clock.seconds, "plies": numbers.latest["plies"]}
        sys.stdout.write(f"{json.dumps(report)}\n")


def measure(ranks: int, options: dict[str, Any]) -> dict[str, float]:
    """Run one side in processes of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": str(WORKERS // ranks)}
    env |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "TORCHELASTIC_RUN_ID": "bench"}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as files:
        said = [files.enter_context(Path(folder, f"rank_{rank}.err").open("w+")) for rank in range(ranks)]
        processes = [
            subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), "--rank-of", json.dumps(options)],
                env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=said[rank],
                cwd=folder,
                text=True,
            )
            for rank in range(ranks)
        ]
        outputs = [process.communicate()[0] for process in processes]
        for rank, process in enumerate(processes):
            if process.returncode:
                said[rank].seek(0)
                raise RuntimeError(f"rank {rank} ended with {process.returncode}:\n{said[rank].read()}")
    report: dict[str, float] = json.loads(outputs[0].splitlines()[-1])
    return report


def main() -> int:
    """Measure both sides in turns and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--game", default="connect_four")
    parser.add_argument("--model", default="small", help="small or medium (default: small)")
    parser.add_argument("--games", type=int, default=64, help="of each worker (default: 64)")
    parser.add_argument("--plies", type=int, default=32, help="of each rollout (default: 32)")
    parser.add_argument("--minibatch", type=int, default=512, help="plies, of all ranks together (default: 512)")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--rank-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_of is not None:
        train(json.loads(arguments.rank_of))
        return 0
    options = {key: value for key, value in vars(arguments).items() if key not in ("turns", "rank_of")}
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(arguments.turns):
        for ranks, found in rates.items():
            found.append(measure(ranks, options)["plies_per_s"])
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    table = Table(title=f"{arguments.game}, {arguments.model} network, plies/s in turns")
    for column in ("learners", *(f"turn {turn + 1}" for turn in range(arguments.turns)), "median"):
        table.add_column(column, justify="right")
    for name, numbers in (("1 x 2 threads", rates[1]), ("2 x 1 thread", rates[2])):
        table.add_row(name, *(f"{rate:,.0f}" for rate in numbers), f"{statistics.median(numbers):,.0f}")
    table.add_row("ratio", *(f"{ratio:.2f}" for ratio in ratios), f"{statistics.median(ratios):.2f}")
    console = Console(width=110)
    console.print(table)
    console.print_json(json.dumps({"machine": describe_machine(), "options": options, "plies_per_s": rates}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
