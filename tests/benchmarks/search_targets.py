"""Does a training get stronger by learning from searches too, in the same CPU time? Connect four, arms in turn.

Each arm is a training with options of its own, in this process alone (``parallel=serial``), with as many iterations as
fit into the CPU time by what the first few of them took. The final policies are measured alone, without a search::

    OMP_NUM_THREADS=1 python tests/benchmarks/search_targets.py FOLDER --cpu-s 180 --seeds 1 2 --start published:connect_four \
        --common experiment=connect_four_strong --arm ppo "" --arm search "search_targets=gumbel"
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from keisei_lightning.app import Run, build
from keisei_lightning.config.schemas import config_dir, register_configs
from keisei_lightning.evaluation import PolicyPlayer
from keisei_lightning.evaluation.positions import load_positions, share_optimal
from keisei_lightning.models import evaluation_mode
from keisei_lightning.policies import load_policy

SETS = Path(__file__).resolve().parents[1] / "data" / "connect_four"
TRIED = 8
"""Iterations from which an arm's CPU time is told; the first two are left out."""

FIXED = ("parallel=serial", "logger=none", "evaluation.every_n_epochs=0", "evaluation.num_games=2")


class EpochTimes(Callback):
    """Notes the CPU time of this process at the end of each iteration."""

    def __init__(self) -> None:
        self.seconds = [time.process_time()]

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(time.process_time())


def train(overrides: list[str], *, start: str | None) -> tuple[Run, list[float]]:
    """Train once; returns the run, and the CPU time at the end of each iteration."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg: DictConfig = compose("config", overrides=overrides)
    run, times = build(cfg), EpochTimes()
    run.trainer.callbacks.append(times)  # type: ignore[attr-defined]
    if start is not None:
        run.module.actor_critic.load_state_dict(load_policy(start).actor_critic.state_dict())
    run.fit()
    run.evaluation.close()
    return run, times.seconds


def arm(name: str, overrides: list[str], *, cpu_s: float, start: str | None) -> dict[str, Any]:
    """Train an arm for so much CPU time; returns what it did, and the mistakes of its policy in percent."""
    _, tried = train([*overrides, f"trainer.max_epochs={TRIED}"], start=start)
    each = (tried[-1] - tried[2]) / (TRIED - 2)
    begin = time.perf_counter()
    run, seconds = train([*overrides, f"trainer.max_epochs={max(1, round(cpu_s / each))}"], start=start)
    policy = run.module.actor_critic
    row = {
        "arm": name,
        "iterations": len(seconds) - 1,
        "CPU s": round(seconds[-1] - seconds[0], 1),
        "wall s": round(time.perf_counter() - begin, 1),
    }
    with evaluation_mode(policy):
        for each_set in ("random", "tactical"):
            game = load_policy("published:connect_four").game
            share = share_optimal(PolicyPlayer(policy), load_positions(SETS / f"{each_set}.csv", game)).all
            row[f"{each_set}.csv, % mistakes"] = round(100 * (1 - share.value), 2)
    return row


def main() -> int:
    """Train the arms of each seed in turn, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the runs, with their checkpoints")
    parser.add_argument("--cpu-s", type=float, default=180.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--start", help="a policy whose weights all arms begin with")
    parser.add_argument("--common", nargs="+", default=["experiment=connect_four_strong"], metavar="KEY=VALUE")
    parser.add_argument("--arm", nargs="+", action="append", required=True, metavar=("NAME", "KEY=VALUE"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    register_configs()
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for name, *own in arguments.arm:
            folder = f"output_dir={arguments.folder / f'{name}_{seed}'}"
            overrides = [*arguments.common, *FIXED, *own, f"seed={seed}", folder]
            row = {"seed": seed, **arm(name, overrides, cpu_s=arguments.cpu_s, start=arguments.start)}
            print(json.dumps(row), flush=True)
            rows.append(row)
    table = Table(*rows[0], title=" ".join(sys.argv[1:]))
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=200).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
