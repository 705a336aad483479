"""A shogi training whose opponents are USI engines, while engines are killed.

::

    python tests/benchmarks/league_engines.py --minutes 10 --kills 2
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
ENGINE = "fairy-stockfish"
SHOWN = ("self_play/void_games", "self_play/restarts", "self_play/lost_rollouts", "self_play/quarantined_batches")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--members", default="mate_in_one,fairy_stockfish(skill=-10,nodes=1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("results/league_engines"))
    parser.add_argument("overrides", nargs="*", help="further ones of the training")
    arguments = parser.parse_args()
    if shutil.which(ENGINE) is None and not Path("/usr/games", ENGINE).exists():
        parser.error(f"there is no {ENGINE} here (apt-get install {ENGINE})")
    sys.stdout.write(json.dumps(measure(arguments), indent=1) + "\n")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, kill engines at equal distances, stop as Ctrl-C does, and count."""
    folder = arguments.folder.resolve()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and its children do
    training = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "train.py"),
            "experiment=shogi",
            "opponents=league",
            f"opponents.members=[{arguments.members}]",
            f"seed={arguments.seed}",
            "trainer.max_epochs=100000",
            "evaluation.every_n_epochs=0",
            f"hydra.run.dir={folder}",
            *arguments.overrides,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    rng, killed = random.Random(arguments.seed), []
    try:
        for number in range(arguments.kills + 1):
            time.sleep(60 * arguments.minutes / (arguments.kills + 1))
            if number < arguments.kills:
                victim = rng.choice(engines_of(training.pid))
                victim.kill()
                killed.append(victim.pid)
        left = engines_of(training.pid)
        training.send_signal(signal.SIGINT)
        code = training.wait(timeout=300)
    finally:
        training.kill()
    rows = list(csv.DictReader((folder / "csv/metrics.csv").open(encoding="utf-8")))
    return {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("torch", "keisei-lightning")},
        "exit_code": code,
        "killed": killed,
        "engines_at_the_end": len(left),
        "engines_left_behind": sum(process.is_running() for process in left),
        **latest(rows, ("epoch", "self_play/plies", "self_play/games", *SHOWN)),
        "league": last_period(folder / "league.csv"),
    }


def engines_of(pid: int) -> list[psutil.Process]:
    """Engines below a process."""
    return [process for process in psutil.Process(pid).children(recursive=True) if ENGINE[:15] == process.name()[:15]]


def latest(rows: list[dict[str, str]], names: tuple[str, ...]) -> Mapping[str, float | None]:
    """The newest value of each metric."""
    return {name: next((float(row[name]) for row in reversed(rows) if row.get(name)), None) for name in names}


def last_period(file: Path) -> list[dict[str, str]]:
    """The latest rows of the league's table."""
    rows = list(csv.DictReader(file.open(encoding="utf-8")))
    kept = ("period", "opponent", "wins", "draws", "losses", "void", "score")
    return [{k: v for k, v in row.items() if k in kept} for row in rows if row["period"] == rows[-1]["period"]]


if __name__ == "__main__":
    main()
