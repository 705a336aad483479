"""Training on a machine that is busy: how long OpenMP threads may spin, with and without neighbours.

::

    python tests/benchmarks/busy_cpu.py                                    # the default of libgomp beside ours
    python tests/benchmarks/busy_cpu.py --settings default 0 1000 passive  # which setting suits this machine
    python tests/benchmarks/busy_cpu.py --neighbours 0 --pair              # two trainings side by side
    python tests/benchmarks/busy_cpu.py --settings ours ours+parallel.schedule=async      # two configurations

The runtime reads its settings once, so each setting has a training process of its own. The processes live through the
whole measurement and take turns of a few PPO iterations (all others sleep meanwhile), so that what disturbs the machine
disturbs all settings alike. Neighbours are processes that this program starts: they multiply matrices in NumPy with one
thread (``numeric``), or run a Python loop (``python``), which is a milder one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keisei_lightning.commands.bench.report import print_report
from keisei_lightning.system.openmp import SETTINGS, USER_VARIABLES

NEIGHBOURS = {
    "numeric": "import numpy as np\na = np.random.rand(256, 256)\nwhile True: a @ a",
    "python": "while True: pass",
}
"""What a neighbour runs."""

Seconds = dict[str, float]


def environment(waiting: str) -> dict[str, str]:
    """The variables of a way to wait: ``default``, ``ours``, ``passive``, turns of libgomp's loop, or NAME=VALUE,..."""
    if waiting == "default":  # libgomp's own, said aloud: our collector would set another for its workers
        return {"GOMP_SPINCOUNT": "300000"}
    if waiting == "ours":
        return dict(SETTINGS)
    if waiting == "passive":
        return {"OMP_WAIT_POLICY": "passive"}
    if waiting.isdecimal():
        return {"GOMP_SPINCOUNT": waiting}
    return dict(pair.split("=", 1) for pair in waiting.split(","))


class Training:
    """A training process that goes on for some iterations when it is told to.

    Args:
        setting: a way to wait (see :func:`environment`), and perhaps overrides of its own, each behind a plus sign.
        overrides: of every training's configuration.
    """

    def __init__(self, setting: str, overrides: Sequence[str]) -> None:
        waiting, *further = setting.split("+")
        own = {name: value for name, value in os.environ.items() if name not in USER_VARIABLES}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--be-a-training", *overrides, *further],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=own | environment(waiting),
        )
        self._iterations = 0

    def begin(self, iterations: int) -> None:
        """Let it go on for so many iterations."""
        assert self._process.stdin is not None
        self._iterations = iterations
        self._process.stdin.write(f"{iterations}\n")
        self._process.stdin.flush()

    def end(self) -> Seconds:
        """Wait for them: seconds of collecting and of learning, and plies."""
        assert self._process.stdout is not None
        told = [json.loads(self._process.stdout.readline()) for _ in range(self._iterations)]
        return {name: sum(line[name] for line in told) for name in told[0]}

    def close(self) -> None:
        """End it, and with it its workers."""
        self._process.kill()
        self._process.communicate()


def be_a_training(overrides: Sequence[str]) -> None:
    """Train, waiting for a number of iterations on standard input whenever the last ones are done.

    Args:
        overrides: of the configuration; ``learner_threads=N`` is ours, and stands in for what ``build`` chooses.
    """
    from hydra import compose, initialize_config_dir

    from keisei_lightning import keep_freed_memory
    from keisei_lightning.app import build
    from keisei_lightning.config.schemas import config_dir, register_configs
    from keisei_lightning.config.validation import validate
    from keisei_lightning.system.console import quiet_libraries

    keep_freed_memory()
    quiet_libraries()
    register_configs()
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(config_dir()), version_base="1.3"):
        fixed = (
            *("logger=none", "evaluation.every_n_epochs=0", "trainer.enable_progress_bar=false"),
            *("trainer.enable_checkpointing=false", "trainer.max_epochs=1000000", f"output_dir={folder}"),
        )
        threads = [int(word.partition("=")[2]) for word in overrides if word.startswith("learner_threads=")]
        own = [word for word in overrides if not word.startswith("learner_threads=")]
        cfg = compose("config", overrides=["experiment=shogi", *own, *fixed])
        parts = build(validate(cfg))
        parts = replace(parts, learner_threads=threads[-1]) if threads else parts
        ask, begun, collected, left = parts.data.next_rollout, 0.0, 0.0, 0

        def next_rollout() -> Any:
            nonlocal begun, collected, left
            if begun:
                times = {"collect_s": collected - begun, "learn_s": time.perf_counter() - collected}
                sys.stdout.write(json.dumps({**times, "plies": parts.data.collector.frames_per_batch}) + "\n")
                sys.stdout.flush()
            if left == 0:
                left = int(sys.stdin.readline() or os._exit(0))
            left, begun = left - 1, time.perf_counter()
            rollout = ask()
            collected = time.perf_counter()
            return rollout

        parts.data.next_rollout = next_rollout  # type: ignore[method-assign]
        parts.fit()


@contextlib.contextmanager
def neighbours(count: int, kind: str) -> Iterator[None]:
    """Context in which so many other processes keep a CPU busy each."""
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([sys.executable, "-c", NEIGHBOURS[kind]], env=env) for _ in range(count)]
    time.sleep(0.5 if count else 0.0)  # until they have been imported
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def rates(seconds: Seconds) -> dict[str, float]:
    """Plies a second: collecting, learning, and both one after the other."""
    plies, collect_s, learn_s = seconds["plies"], seconds["collect_s"], seconds["learn_s"]
    return {"all": plies / (collect_s + learn_s), "collect": plies / collect_s, "learn": plies / learn_s}


def alone(training: Training, iterations: int) -> Seconds:
    """A turn of one training."""
    training.begin(iterations)
    return training.end()


def side_by_side(pair: Sequence[Training], iterations: int) -> dict[str, float]:
    """What two trainings do at the same time, and one after the other: plies a second of both, and the ratio."""
    one_by_one = [alone(training, iterations) for training in pair]
    start = time.perf_counter()
    for training in pair:
        training.begin(iterations)
    plies = sum(training.end()["plies"] for training in pair)
    together = plies / (time.perf_counter() - start)
    apart = plies / sum(turn["collect_s"] + turn["learn_s"] for turn in one_by_one)
    return {"together": together, "one_after_another": apart, "ratio": together / apart}


def medians(turns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each figure."""
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def table(
    turns: Mapping[tuple[int, str], list[dict[str, float]]], settings: Sequence[str], figures: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each number of neighbours and setting: medians, and medians of the ratios to the first setting's."""
    rows = []
    for (count, setting), mine in turns.items():
        first = turns[count, settings[0]]
        row: dict[str, Any] = {"neighbours": count, "setting": setting}
        for figure, median in medians(mine).items():
            row[f"{figure}"] = round(median, 3 if figure == "ratio" else None)
            if figure in figures:
                ratios = [one[figure] / other[figure] for one, other in zip(mine, first, strict=True)]
                row[f"{figure}_ratio"] = round(statistics.median(ratios), 2)
        rows.append(row)
    return rows


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All rounds; the rows of the table."""
    size = 2 if arguments.pair else 1
    turns: dict[tuple[int, str], list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        trainings: dict[str, list[Training]] = {}
        for setting in arguments.settings:
            trainings[setting] = [Training(setting, arguments.overrides) for _ in range(size)]
            for training in trainings[setting]:
                stack.callback(training.close)
                alone(training, 1)  # the first iteration warms everything up
        for turn in range(arguments.rounds):
            for count in arguments.neighbours:
                with neighbours(count, arguments.kind):
                    order = list(trainings)
                    for setting in order[turn % len(order) :] + order[: turn % len(order)]:  # nobody is always first
                        figures = (
                            side_by_side(trainings[setting], arguments.iterations)
                            if arguments.pair
                            else rates(alone(trainings[setting][0], arguments.iterations))
                        )
                        turns.setdefault((count, setting), []).append(figures)
    in_order = {key: turns[key] for key in sorted(turns, key=lambda key: (key[0], arguments.settings.index(key[1])))}
    return table(in_order, arguments.settings, () if arguments.pair else ("all", "collect", "learn"))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=["default", "ours"], help="the first is compared with")
    parser.add_argument("--neighbours", nargs="+", type=int, default=[0, 1, 2], help="how many")
    parser.add_argument("--kind", choices=NEIGHBOURS, default="numeric", help="what a neighbour does")
    parser.add_argument("--pair", action="store_true", help="two trainings of each setting, side by side")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--iterations", type=int, default=1, help="PPO iterations of a turn")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE", help="as for train.py")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write JSON to this file too")
    parser.add_argument("--be-a-training", action="store_true", help=argparse.SUPPRESS)
    arguments, words = parser.parse_known_args()
    if arguments.be_a_training:
        be_a_training(words)
        return 0
    rows = measure(arguments)
    print_report(
        f"busy CPU: {' '.join(['experiment=shogi', *arguments.overrides])}, neighbours: {arguments.kind}, plies/s",
        rows,
        as_json=arguments.json,
        write=arguments.write,
        notes=(
            f"medians of {arguments.rounds} rounds of {arguments.iterations} PPO iteration(s); ratios to "
            f"'{arguments.settings[0]}': medians of a round's",
        ),
        one_line_a_row=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
