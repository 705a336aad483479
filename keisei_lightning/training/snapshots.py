"""When a snapshot of the policy becomes an opponent."""

from __future__ import annotations

import logging
from typing import Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keisei_lightning.errors import ConfigError
from keisei_lightning.training.options import SnapshotOptions
from keisei_lightning.training.ranks import ranks_of
from keisei_lightning.training.source import RankedSource, source_of

__all__ = ["SnapshotCallback"]

log = logging.getLogger(__name__)


@runtime_checkable
class _SnapshotSource(Protocol):
    def push_snapshot(self) -> bool: ...


class SnapshotCallback(Callback):
    """Adds a snapshot of the policy to the collector's pool of opponents after every N PPO iterations.

    Before the first one all games are self-play. Put it after :class:`WeightSyncCallback`, so that a snapshot has the
    version under which its weights were published.

    Args:
        every_n_epochs: iterations between two snapshots, counted over all runs that this one resumes.

    Raises:
        ConfigError: ``every_n_epochs`` is below 1, or (when training starts) the collector has no pool.
    """

    def __init__(self, every_n_epochs: int = SnapshotOptions.every_n_epochs) -> None:
        self.every_n_epochs = SnapshotOptions(every_n_epochs=every_n_epochs).every_n_epochs

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a collector that has no pool."""
        self._source(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take a snapshot if it is time."""
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0 and not self._push(trainer):
            log.warning(
                "epoch %d: no snapshot was taken: games in flight still need every buffer", trainer.current_epoch
            )

    def _push(self, trainer: Trainer) -> bool:
        """Push on all learners (ranks), so that their pools hold the same snapshots; on none if one has no room."""
        source, ranks = self._source(trainer), ranks_of(trainer)
        if ranks.size > 1 and isinstance(source, RankedSource):

            def has_room() -> bool:
                source.start()
                return source.pool is None or source.pool.has_room

            if not all(ranks.collect("looking for room for a snapshot", has_room)):
                return False
        return source.push_snapshot()

    def _source(self, trainer: Trainer) -> _SnapshotSource:
        source = source_of(trainer)
        if not isinstance(source, _SnapshotSource):
            raise ConfigError(f"{type(source).__name__}: has no push_snapshot(), which SnapshotCallback needs")
        return source
