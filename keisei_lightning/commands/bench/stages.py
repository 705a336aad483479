"""How long the learner is in each stage of a training."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from keisei_lightning.app import build
from keisei_lightning.config.validation import ValidatedConfig
from keisei_lightning.training import SelfPlayDataModule

__all__ = ["STAGES", "StageClock", "measure_stages"]

STAGES = {
    "collect": "waiting for the rollout",
    "prepare": "advantages, shuffling, gathering minibatches",
    "forward": "the network's forward pass and the loss",
    "backward": "the backward pass",
    "optimiser": "clipping and the optimiser's step",
    "between": "publishing weights, callbacks and logging between iterations",
}
"""What the learner does, by name."""


class StageClock(Callback):
    """Adds up how long the learner is in each stage, from the second iteration on.

    Args:
        data: its rollouts are waited for.
    """

    def __init__(self, data: SelfPlayDataModule) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.iterations = 0
        self._runs, self._since = False, 0.0
        ask = data.next_rollout

        def next_rollout() -> Any:
            self._mark("between")
            rollout = ask()
            self._mark("collect")
            return rollout

        data.next_rollout = next_rollout  # type: ignore[method-assign]

    def _mark(self, stage: str) -> None:
        """What has passed since the last mark belongs to this stage."""
        now = time.perf_counter()
        if self._runs:
            self.seconds[stage] += now - self._since
        self._since = now

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """A minibatch is there."""
        self._mark("prepare")

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """The loss is there."""
        self._mark("forward")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The gradients are there."""
        self._mark("backward")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step was made."""
        self._mark("optimiser")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An iteration has ended; the first one warmed everything up."""
        self._mark("between")
        self.iterations += self._runs
        self._runs = True


def measure_stages(config: ValidatedConfig) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Train, and tell where the time went.

    Args:
        config: of the training; its first iteration is not counted.

    Returns:
        A row for each stage and one for all of them, and notes.
    """
    parts = build(config)
    clock = StageClock(parts.data)
    parts.trainer.callbacks.insert(0, clock)  # type: ignore[attr-defined]
    parts.fit()
    collector = parts.data.collector
    stats, plies = collector.stats(), collector.frames_per_batch * clock.iterations
    total = sum(clock.seconds.values())
    rows: list[dict[str, Any]] = [
        {
            "stage": f"{stage}: {what}",
            "share_percent": round(100 * clock.seconds[stage] / total, 1),
            "us_per_ply": round(1e6 * clock.seconds[stage] / plies, 1),
        }
        for stage, what in STAGES.items()
    ]
    rows.append({"stage": "all", "share_percent": 100.0, "us_per_ply": round(1e6 * total / plies, 1)})
    threads = min(torch.get_num_threads(), parts.learner_threads)
    notes = (
        f"{plies / total:,.0f} plies/s from end to end over {clock.iterations} iterations of "
        f"{collector.frames_per_batch:,} plies; {threads} torch threads in the learner",
        f"a worker waits {stats['worker_wait_s']:.2f} s before each rollout",
    )
    return rows, notes
