"""Minutes from the start of a training to a score against a player, for several seeds.

::

    python tests/benchmarks/time_to_strength.py --seeds 0 1 2
    python tests/benchmarks/time_to_strength.py --opponent mate_in_one --target 0.8 --set trainer.max_epochs=150 \
        --arm then --arm average callbacks=policy_average

Each seed of each arm is trained as ``make train`` does, one after another, and evaluated every five iterations by 200
games from random openings. The clock is the run's own, from the first iteration on; the time of the matches does not
count. A score counts if the next one reaches the target too: one look may be lucky.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from keisei_lightning.commands.bench.report import describe_machine
from keisei_lightning.training.metric_names import metric_name
from keisei_lightning.training.report import HISTORY_KEY

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Look:
    """What was seen of a policy in training: minutes without the matches, plies and score."""

    minutes: float
    plies: float
    score: float


def train(seed: int, folder: Path, opponent: str, overrides: list[str]) -> list[Look]:
    """Train one policy, and look at it every five iterations."""
    command = ["train.py", "experiment=shogi", f"seed={seed}", f"output_dir={folder}", *overrides]
    options = ["evaluation.every_n_epochs=5", "trainer.enable_progress_bar=false"]
    subprocess.run([sys.executable, *command, f"evaluation.opponents=['{opponent}']", *options], cwd=ROOT, check=True)
    history: list[dict[str, float]] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)[HISTORY_KEY]
    looks, matches_s, name = [], 0.0, metric_name(opponent)
    for row in history:
        if (score := row.get(f"eval/score_vs_{name}")) is not None:
            looks.append(Look(row["minutes"] - matches_s / 60, row["self_play/plies"], score))
            matches_s += row[f"eval/seconds_vs_{name}"]
    return looks


def first_reached(looks: list[Look], target: float) -> Look | None:
    """The first look at or above the target whose next one is too; None if there is none."""
    for look, following in itertools.pairwise(looks):
        if min(look.score, following.score) >= target:
            return look
    return None


def main() -> int:
    """Train, and print when each seed of each arm got there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--opponent", default="random", help="a player by name")
    parser.add_argument("--target", type=float, default=0.95, help="score in [0, 1] (default: 0.95)")
    parser.add_argument("--folder", type=Path, default=Path("results/time_to_strength"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of all arms")
    parser.add_argument("--arm", nargs="+", action="append", metavar="NAME", help="a name and its overrides")
    arguments = parser.parse_args()
    folder, arms = arguments.folder.absolute(), arguments.arm or [["as it is"]]
    folder.mkdir(parents=True, exist_ok=True)
    command = ["python", "tests/benchmarks/time_to_strength.py", *sys.argv[1:]]
    report: dict[str, Any] = {"machine": describe_machine(), "command": shlex.join(command), "runs": []}
    table = Table(title=f"minutes to {arguments.target:.0%} against {arguments.opponent}")
    for column in ("arm", "seed", "minutes", "plies", "all scores, %"):
        table.add_column(column)
    minutes: dict[str, list[float]] = {name: [] for name, *_ in arms}
    for seed in arguments.seeds:
        for name, *own in arms:
            run = folder / f"{name.replace(' ', '_')}_{seed}"
            looks = train(seed, run, arguments.opponent, [*arguments.set, *own])
            report["runs"].append({"arm": name, "seed": seed, "looks": [asdict(look) for look in looks]})
            (folder / "time_to_strength.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            reached = first_reached(looks, arguments.target)
            minutes[name].append(reached.minutes if reached else float("inf"))
            scores = " ".join(f"{100 * look.score:.0f}" for look in looks)
            plies = f"{reached.plies:,.0f}" if reached else "-"
            table.add_row(name, str(seed), f"{minutes[name][-1]:.1f}", plies, scores)
    medians = (f"{name}: median {statistics.median(each):.1f} minutes" for name, each in minutes.items())
    table.caption = "; ".join(medians)
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
