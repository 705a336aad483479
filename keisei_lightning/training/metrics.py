"""The collector's numbers as Lightning metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keisei_lightning.parallel.state.figures import combine, values_of
from keisei_lightning.training.ranks import ranks_of
from keisei_lightning.training.source import RankedSource, source_of

__all__ = ["SelfPlayMetrics"]


class SelfPlayMetrics(Callback):
    """Logs ``collector.stats()`` at the end of each PPO iteration, as ``self_play/<name>``.

    Plies and games are counts since training began; ``plies_per_s`` and ``games_per_s`` are over a sliding window. A
    number that does not exist yet (the mean length before any game has ended) is left out. With several learners
    (ranks) counts and rates are sums, and means are over all that was played. With ``search_targets`` also how long
    the iteration's searches took (``search_s``), how many positions they were of, and how many are kept.

    Args:
        prefix: goes before each name.
    """

    def __init__(self, prefix: str = "self_play/") -> None:
        self.prefix = prefix
        self.latest: dict[str, float] = {}
        """The numbers at the end of the latest iteration."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the present numbers."""
        source, ranks = source_of(trainer), ranks_of(trainer)
        if ranks.size > 1 and isinstance(source, RankedSource):
            stats: Mapping[str, float] = values_of(combine(ranks.collect("the collectors' numbers", source.figures)))
        else:
            stats = source.stats()
        self.latest = {name: float(value) for name, value in stats.items()}
        search_targets = getattr(getattr(trainer, "datamodule", None), "search_targets", None)
        if search_targets is not None:  # of the first rank: all search equally much
            self.latest |= search_targets.stats()
        pl_module.log_dict(
            {self.prefix + name: value for name, value in self.latest.items() if math.isfinite(value)}, batch_size=1
        )
