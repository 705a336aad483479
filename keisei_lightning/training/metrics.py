"""The collector's numbers as Lightning metrics."""

from __future__ import annotations

import math

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keisei_lightning.training.source import source_of

__all__ = ["SelfPlayMetrics"]


class SelfPlayMetrics(Callback):
    """Logs ``collector.stats()`` at the end of each PPO iteration, as ``self_play/<name>``.

    Plies and games are counts since training began; ``plies_per_s`` and ``games_per_s`` are over a sliding window. A
    number that does not exist yet (the mean length before any game has ended) is left out.

    Args:
        prefix: goes before each name.
    """

    def __init__(self, prefix: str = "self_play/") -> None:
        self.prefix = prefix

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the present numbers."""
        numbers = {name: float(value) for name, value in source_of(trainer).stats().items()}
        pl_module.log_dict(
            {self.prefix + name: value for name, value in numbers.items() if math.isfinite(value)}, batch_size=1
        )
