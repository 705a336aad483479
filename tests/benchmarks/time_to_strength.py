"""Minutes from the start of a training to a score against a random player, for several seeds.

::

    python tests/benchmarks/time_to_strength.py --seeds 0 1 2

Each seed is trained as ``make train`` does, one after another, and evaluated every five iterations by 200 games from
random openings. The clock is the run's own, from the first iteration on, and evaluation counts. A score counts if the
next one reaches the target too: one look may be lucky.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from keisei_lightning.commands.bench.report import describe_machine
from keisei_lightning.training.report import HISTORY_KEY

ROOT = Path(__file__).resolve().parents[2]
SCORE = "eval/score_vs_random"


def train(seed: int, folder: Path, overrides: list[str]) -> list[dict[str, float]]:
    """Train one policy; minutes, plies and score at each evaluation."""
    command = ["train.py", "experiment=shogi", f"seed={seed}", f"output_dir={folder}", *overrides]
    options = ["evaluation.opponents=[random]", "evaluation.every_n_epochs=5", "trainer.enable_progress_bar=false"]
    subprocess.run([sys.executable, *command, *options], cwd=ROOT, check=True)
    history: list[dict[str, float]] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)[HISTORY_KEY]
    keys = ("minutes", "self_play/plies", SCORE)
    return [{key: row[key] for key in keys} for row in history if SCORE in row]


def first_reached(curve: list[dict[str, float]], target: float) -> dict[str, float] | None:
    """The first point at or above the target whose next one is too; None if there is none."""
    for row, following in itertools.pairwise(curve):
        if min(row[SCORE], following[SCORE]) >= target:
            return row
    return None


def main() -> int:
    """Train, and print when each seed got there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--target", type=float, default=0.95, help="score in [0, 1] (default: 0.95)")
    parser.add_argument("--folder", type=Path, default=Path("results/time_to_strength"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    report: dict[str, Any] = {"machine": describe_machine(), "overrides": arguments.set, "runs": {}}
    table = Table(title=f"minutes to {arguments.target:.0%} against random")
    for column in ("seed", "minutes", "plies", "all scores, %"):
        table.add_column(column)
    minutes = []
    for seed in arguments.seeds:
        curve = train(seed, folder / f"seed_{seed}", arguments.set)
        report["runs"][seed] = curve
        (folder / "time_to_strength.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        reached = first_reached(curve, arguments.target)
        minutes.append(reached["minutes"] if reached else float("inf"))
        scores = " ".join(f"{100 * row[SCORE]:.0f}" for row in curve)
        plies = f"{reached['self_play/plies']:,.0f}" if reached else "-"
        table.add_row(str(seed), f"{minutes[-1]:.1f}", plies, scores)
    table.caption = f"median {statistics.median(minutes):.1f} minutes"
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
