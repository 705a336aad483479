"""How long commands take that start nothing: help, and what is refused, beside the imports that they cannot do without.

``python tests/benchmarks/cold_start.py [--rounds 5] [--json FILE]``. All commands take turns, round by round, each in a
process of its own, so that a busy machine slows all of them; medians and their ratios to ``import hydra, numpy`` count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from keisei_lightning.commands.bench.report import print_report

ROOT = Path(__file__).resolve().parents[2]
BASE = "import hydra, numpy"
KEISEI = ["-m", "keisei_lightning"]
TRAIN = [str(ROOT / "train.py")]

# What is typed, and the exit status that it must have.
COMMANDS: dict[str, tuple[list[str], int]] = {
    BASE: (["-c", BASE], 0),
    "keisei --help": ([*KEISEI, "--help"], 0),
    "keisei --version": ([*KEISEI, "--version"], 0),
    "keisei games": ([*KEISEI, "games"], 0),
    "keisei bench --help": ([*KEISEI, "bench", "--help"], 0),
    "keisei bench learn --help": ([*KEISEI, "bench", "learn", "--help"], 0),
    "keisei eval --help": ([*KEISEI, "eval", "--help"], 0),
    "train.py --help": ([*TRAIN, "--help"], 0),
    "train.py parallel.num_workers=5000": ([*TRAIN, "parallel.num_workers=5000"], 2),
    "train.py parallel.num_worker=2": ([*TRAIN, "parallel.num_worker=2"], 2),
    "train.py ckpt_path=nonsense.ckpt": ([*TRAIN, "ckpt_path=nonsense.ckpt"], 2),
    "train.py ckpt_path=last": ([*TRAIN, "ckpt_path=last"], 2),
    "train.py evaluation.opponents=[nobody]": ([*TRAIN, "evaluation.opponents=[nobody]"], 2),
    "train.py evaluation.opponents=[tactics]": ([*TRAIN, "evaluation.opponents=[tactics]"], 2),
    "keisei eval checkpoint=nonsense.ckpt": ([*KEISEI, "eval", "checkpoint=nonsense.ckpt"], 2),
    "keisei bench learn game=nosuch": ([*KEISEI, "bench", "learn", "game=nosuch"], 2),
    "keisei bench profile parallel.num_workers=5000": ([*KEISEI, "bench", "profile", "parallel.num_workers=5000"], 2),
}


def seconds(words: list[str], status: int, folder: str) -> float:
    """Run one command in a process of its own.

    Raises:
        RuntimeError: it ended otherwise than it must.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, check=False)
    taken = time.perf_counter() - start
    if done.returncode != status:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}, must be {status}: {done.stderr.decode()}")
    return taken


def measure(rounds: int) -> list[dict[str, Any]]:
    """Run all commands in turns, once more than is counted, so that every file has been read before."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            for name, (words, status) in COMMANDS.items():
                value = seconds(words, status, folder)
                if turn:
                    taken[name].append(value)
    base = statistics.median(taken[BASE])
    return [
        {
            "command": name,
            "median_s": round(statistics.median(values), 3),
            "slowest_s": round(max(values), 3),
            "over_base": round(statistics.median(values) / base, 2),
        }
        for name, values in taken.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds; medians are quoted")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write JSON to this file too")
    arguments = parser.parse_args()
    print_report(
        "cold start",
        measure(arguments.rounds),
        as_json=False,
        write=arguments.json,
        notes=(f"medians of {arguments.rounds} alternating rounds", f"over base: over the time of {BASE!r}"),
        one_line_a_row=True,
    )


if __name__ == "__main__":
    main()
