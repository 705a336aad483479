"""How long the learner is in each stage of a training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from keisei_lightning.app import build
from keisei_lightning.config.validation import ValidatedConfig
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.parallel.memory.weights import WeightLayout
from keisei_lightning.rl import policy_lag
from keisei_lightning.system.console import quiet_libraries
from keisei_lightning.training import SelfPlayDataModule

__all__ = ["LEARNING", "STAGES", "StageClock", "StageTimes", "measure_stages"]

STAGES = {
    "collect": "waiting for the rollout",
    "prepare": "advantages, shuffling, gathering minibatches",
    "forward": "the network's forward pass and the loss",
    "backward": "the backward pass",
    "optimiser": "clipping and the optimiser's step",
    "between": "publishing weights, callbacks and logging between iterations",
}
"""What the learner does, by name."""

LEARNING = ("prepare", "forward", "backward", "optimiser")
"""Those in which it learns."""


class StageClock(Callback):
    """Adds up how long the learner is in each stage, from the second iteration on.

    Args:
        data: its rollouts are waited for.
    """

    def __init__(self, data: SelfPlayDataModule) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.waits_s: list[float] = []
        self.lags: list[float] = []
        self._runs, self._since = False, 0.0
        ask = data.next_rollout

        def next_rollout() -> Any:
            self._mark("between")
            rollout = ask()
            before = self.seconds["collect"]
            self._mark("collect")
            if self._runs and rollout is not None:
                self.waits_s.append(self.seconds["collect"] - before)
                versions = rollout["collector", "policy_version"]
                self.lags.append(policy_lag(data.collector.policy_version, versions).double().mean().item())
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
        self._runs = True


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTimes:
    """What a training took, from its second iteration on.

    Attributes:
        seconds: in each of :data:`STAGES`.
        waits_s: for the rollout, of each iteration.
        lags: versions that the rollout is behind, of each iteration.
        plies: of all those iterations.
        stats: the collector's, at the end.
        bytes_per_ply: of a rollout.
        weight_bytes: of one set of weights.
        learner_threads: torch threads in the learner.
    """

    seconds: Mapping[str, float]
    waits_s: tuple[float, ...]
    lags: tuple[float, ...]
    plies: int
    stats: Mapping[str, float]
    bytes_per_ply: int
    weight_bytes: int
    learner_threads: int

    @property
    def total_s(self) -> float:
        """Of all stages."""
        return sum(self.seconds.values())

    @property
    def learning_s(self) -> float:
        """Of the stages in which the learner learns."""
        return sum(self.seconds[stage] for stage in LEARNING)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each stage, and one for all of them."""
        total_s = self.total_s
        return [
            *(
                {
                    "stage": f"{stage}: {what}",
                    "share_percent": round(100 * self.seconds[stage] / total_s, 1),
                    "us_per_ply": round(1e6 * self.seconds[stage] / self.plies, 1),
                }
                for stage, what in STAGES.items()
            ),
            {"stage": "all", "share_percent": 100.0, "us_per_ply": round(1e6 * total_s / self.plies, 1)},
        ]

    def notes(self) -> tuple[str, ...]:
        """The rate, and what workers waited."""
        iterations = len(self.waits_s)
        return (
            f"{self.plies / self.total_s:,.0f} plies/s from end to end over {iterations} iterations of "
            f"{self.plies // iterations:,} plies; {self.learner_threads} torch threads in the learner",
            f"a worker waits {self.stats['worker_wait_s']:.2f} s before each rollout",
        )


def measure_stages(config: ValidatedConfig) -> StageTimes:
    """Train, and tell where the time went.

    Args:
        config: of the training; its first iteration is not counted.
    """
    quiet_libraries()
    parts = build(config)
    clock = StageClock(parts.data)
    parts.trainer.callbacks.insert(0, clock)  # type: ignore[attr-defined]
    parts.fit()
    collector = parts.data.collector
    assert isinstance(collector, SelfPlayCollector)  # build() makes it
    return StageTimes(
        seconds=clock.seconds,
        waits_s=tuple(clock.waits_s),
        lags=tuple(clock.lags),
        plies=collector.frames_per_batch * len(clock.waits_s),
        stats=collector.stats(),
        bytes_per_ply=collector.bytes_per_ply,
        weight_bytes=WeightLayout.of(collector.policy).num_bytes,
        learner_threads=min(torch.get_num_threads(), parts.learner_threads),
    )
