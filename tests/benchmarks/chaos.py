"""Training under a fault a minute beside training without, in one run: ``python tests/benchmarks/chaos.py``.

Shogi is trained as ``make train`` does. Blocks with faults and quiet blocks take turns, so that what else the machine
does meets both alike. In a block with faults, one worker a minute, drawn at random, is killed or stopped (SIGKILL,
SIGSTOP) at a random moment. Throughput is plies a second over whole blocks, evaluation left out; the learning curve is
the score against a random player over the plies. Every fault is seen to have happened: the process is gone at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import open_dict
from rich.console import Console

from keisei_lightning.app import build
from keisei_lightning.commands.bench.report import describe_machine
from keisei_lightning.config.schemas import config_dir, register_configs
from keisei_lightning.config.validation import validate
from keisei_lightning.parallel import SelfPlayCollector

CONSOLE = Console()


@dataclass(slots=True)
class Fault:
    """One fault that was made, and when (seconds from the start)."""

    at_s: float
    how: str
    worker_id: int
    pid: int


@dataclass(slots=True)
class Chaos:
    """Makes the faults, in a thread.

    Args:
        collector: whose workers suffer.
        chaos_s: length of a block with faults.
        quiet_s: length of a block without.
        every_s: a fault in each stretch of this length.
        seed: of what happens when and to whom.
    """

    collector: SelfPlayCollector
    chaos_s: float
    quiet_s: float
    every_s: float
    seed: int
    start: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def is_quiet(self, seconds: float) -> bool:
        """Whether a moment (seconds from the start) lies in a quiet block: each turn begins with one."""
        return seconds % (self.quiet_s + self.chaos_s) < self.quiet_s

    def run(self) -> None:
        """Make faults until stopped."""
        rng, turn = random.Random(self.seed), 0
        per_turn = round(self.chaos_s / self.every_s)
        while True:
            begin = turn * (self.quiet_s + self.chaos_s) + self.quiet_s
            for number in range(per_turn):
                at = begin + (number + rng.random() * 0.8) * self.every_s
                if self.stop.wait(max(0.0, self.start + at - time.monotonic())):
                    return
                self._strike(rng)
            turn += 1

    def _strike(self, rng: random.Random) -> None:
        running = [worker for worker in self.collector.health() if worker["state"] == "running"]
        rng.shuffle(running)
        how = rng.choice(("SIGKILL", "SIGSTOP"))
        for worker in running:
            try:
                os.kill(worker["pid"], signal.Signals[how])
            except ProcessLookupError:  # of the fault before; the learner has not looked since
                continue
            seconds = time.monotonic() - self.start
            self.faults.append(Fault(at_s=seconds, how=how, worker_id=worker["worker_id"], pid=worker["pid"]))
            return


class Recorder(Callback):
    """Notes time, plies and score at the end of every epoch."""

    def __init__(self, chaos: Chaos, evaluation: Any) -> None:
        self.chaos, self.evaluation = chaos, evaluation
        self.epochs: list[tuple[float, float, int]] = []  # begin, end (evaluation left out), plies
        self.curve: list[tuple[int, float]] = []
        self._begin, self._plies = 0.0, 0
        self._thread = threading.Thread(target=chaos.run, daemon=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the faults."""
        self.chaos.start = time.monotonic()
        self._thread.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note when the epoch begins: its rollouts are played now."""
        self._begin = time.monotonic() - self.chaos.start

    def on_train_batch_end(self, *args: Any) -> None:
        """The last one of an epoch comes before its evaluation."""
        self._end = time.monotonic() - self.chaos.start

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what the epoch brought."""
        plies = self.chaos.collector.plies
        self.epochs.append((self._begin, self._end, plies - self._plies))
        self._plies = plies
        if self.evaluation.evaluated_step == trainer.global_step and self.evaluation.last_result is not None:
            self.curve.append((plies, self.evaluation.last_result.score))
            CONSOLE.print(f"{plies:,} plies, {len(self.chaos.faults)} faults: {self.evaluation.last_result}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the faults."""
        self.chaos.stop.set()
        self._thread.join()


def throughput(recorder: Recorder, *, quiet: bool) -> list[float]:
    """Plies a second of every block of one kind: an epoch belongs to the block that it begins in."""
    chaos = recorder.chaos
    blocks: dict[int, list[tuple[float, int]]] = {}
    for begin, end, plies in recorder.epochs:
        if chaos.is_quiet(begin) == quiet:
            blocks.setdefault(int(begin // (chaos.quiet_s + chaos.chaos_s)), []).append((end - begin, plies))
    return [sum(plies for _, plies in block) / sum(seconds for seconds, _ in block) for block in blocks.values()]


def train(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train with blocks of faults; returns what came of it."""
    register_configs()
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        cfg = compose(
            "config",
            overrides=[
                "experiment=shogi",
                f"output_dir={folder}",
                f"parallel.heartbeat_s={arguments.heartbeat_s}",
                "parallel.max_restarts=1000000",
                f"seed={arguments.seed}",
                "evaluation.every_n_epochs=30",
                "logger=none",
                "trainer.enable_progress_bar=false",
                *arguments.overrides,
            ],
        )
    turns, seconds = arguments.turns, 60 * arguments.turns * (arguments.quiet_minutes + arguments.chaos_minutes)
    with open_dict(cfg):
        cfg.trainer.max_epochs = 1_000_000
        minutes, rest = divmod(round(seconds), 60)
        cfg.trainer.max_time = f"00:{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"
    parts = build(validate(cfg))
    chaos = Chaos(
        collector=parts.data.collector,
        chaos_s=60 * arguments.chaos_minutes,
        quiet_s=60 * arguments.quiet_minutes,
        every_s=arguments.every_s,
        seed=arguments.seed,
    )
    recorder = Recorder(chaos, parts.evaluation)
    parts.trainer.callbacks.append(recorder)
    parts.trainer.fit(parts.module, datamodule=parts.data)
    stats = parts.data.collector.stats()
    assert chaos.faults, "no fault was made"
    assert not [fault for fault in chaos.faults if Path(f"/proc/{fault.pid}").exists()], "a worker outlived its fault"
    in_chaos, in_quiet = throughput(recorder, quiet=False), throughput(recorder, quiet=True)
    return {
        "machine": describe_machine(),
        "turns": turns,
        "quiet_minutes": arguments.quiet_minutes,
        "chaos_minutes": arguments.chaos_minutes,
        "heartbeat_s": arguments.heartbeat_s,
        "seed": arguments.seed,
        "faults": [(round(fault.at_s, 1), fault.how, fault.worker_id) for fault in chaos.faults],
        "plies_per_s_quiet": [round(value) for value in in_quiet],
        "plies_per_s_chaos": [round(value) for value in in_chaos],
        "ratio_of_means": round(statistics.fmean(in_chaos) / statistics.fmean(in_quiet), 3),
        "ratio_of_medians": round(statistics.median(in_chaos) / statistics.median(in_quiet), 3),
        "curve": recorder.curve,
        "final_score": parts.evaluation.last_result.score if parts.evaluation.last_result else None,
        **{name: stats[name] for name in ("plies", "restarts", "lost_rollouts", "refused_batches")},
        "quarantined_batches": stats["quarantined_batches"],
    }


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10, help="quiet block, then block with faults, so often")
    parser.add_argument("--quiet-minutes", type=float, default=1.5, help="length of a quiet block")
    parser.add_argument("--chaos-minutes", type=float, default=3.0, help="length of a block with faults")
    parser.add_argument("--every-s", type=float, default=60.0, help="seconds for one fault in those")
    parser.add_argument("--heartbeat-s", type=float, default=2.0, help="parallel.heartbeat_s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the result into this file")
    parser.add_argument("overrides", nargs="*", help="further Hydra overrides")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = train(arguments, Path(folder))
    text = json.dumps(result, indent=1)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    CONSOLE.print_json(text)


if __name__ == "__main__":
    main()
