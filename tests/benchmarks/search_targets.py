"""Does a training get stronger by learning from searches too, in the same CPU time? Connect four, arms in turn.

Each arm is a training with options of its own, in this process alone (``parallel=serial``); give each as many
iterations as make the CPU times equal. The last policies are measured alone, without a search::

    OMP_NUM_THREADS=1 python tests/benchmarks/search_targets.py FOLDER --seeds 1 2 \
        --common experiment=connect_four_strong initial_policy=published:connect_four model.num_blocks=4 \
        --arm ppo trainer.max_epochs=56 --arm search trainer.max_epochs=20 search_targets=gumbel
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
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from keisei_lightning.app import build
from keisei_lightning.config.schemas import config_dir, register_configs
from keisei_lightning.evaluation import PolicyPlayer
from keisei_lightning.evaluation.positions import load_positions, share_optimal
from keisei_lightning.games import game_factory
from keisei_lightning.models import evaluation_mode

SETS = Path(__file__).resolve().parents[1] / "data" / "connect_four"
FIXED = ("parallel=serial", "logger=none", "evaluation.every_n_epochs=0", "evaluation.num_games=2")


def arm(name: str, overrides: list[str]) -> dict[str, Any]:
    """Train an arm; returns what it took, and the mistakes of its last policy in percent."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg: DictConfig = compose("config", overrides=overrides)
    run, begin, begin_cpu = build(cfg), time.perf_counter(), time.process_time()
    policy = run.module.actor_critic
    run.fit()
    run.evaluation.close()
    row = {
        "arm": name,
        "iterations": run.trainer.max_epochs,
        "CPU s": round(time.process_time() - begin_cpu, 1),
        "wall s": round(time.perf_counter() - begin, 1),
    }
    game = game_factory(cfg.env.game)
    with evaluation_mode(policy):
        for each in ("random", "tactical"):
            share = share_optimal(PolicyPlayer(policy), load_positions(SETS / f"{each}.csv", game)).all
            row[f"{each}.csv, % mistakes"] = round(100 * (1 - share.value), 2)
    return row


def main() -> int:
    """Train the arms of each seed in turn, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the runs, with their checkpoints")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
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
            row = {"seed": seed, **arm(name, overrides)}
            sys.stdout.write(f"{json.dumps(row)}\n")
            rows.append(row)
    table = Table(*rows[0], title=" ".join(sys.argv[1:]))
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=200).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
