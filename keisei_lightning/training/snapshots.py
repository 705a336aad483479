"""When the policy is frozen as a new opponent."""

from __future__ import annotations

import logging
from typing import Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keisei_lightning.errors import ConfigError
from keisei_lightning.training.options import SnapshotOptions
from keisei_lightning.training.source import source_of

__all__ = ["SnapshotCallback"]

log = logging.getLogger(__name__)


@runtime_checkable
class _SnapshotSource(Protocol):
    def push_snapshot(self) -> bool: ...


class SnapshotCallback(Callback):
    """Freezes the policy as the newest snapshot of the collector's pool after every N PPO iterations.

    Until the first one all games are self-play. Give it after :class:`WeightSyncCallback`, so that the snapshot bears
    the version under which its weights were published.

    Args:
        every_n_epochs: a snapshot after every so many iterations, counted over all runs that this one resumes.

    Raises:
        ConfigError: ``every_n_epochs`` is below 1, or (when training starts) the collector has no pool.
    """

    def __init__(self, every_n_epochs: int = SnapshotOptions.every_n_epochs) -> None:
        self.every_n_epochs = SnapshotOptions(every_n_epochs=every_n_epochs).every_n_epochs

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a collector that has no pool."""
        self._source(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze the policy if it is time."""
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0 and not self._source(trainer).push_snapshot():
            log.warning("epoch %d: no snapshot was taken, games still need all of them", trainer.current_epoch)

    def _source(self, trainer: Trainer) -> _SnapshotSource:
        source = source_of(trainer)
        if not isinstance(source, _SnapshotSource):
            raise ConfigError(f"{type(source).__name__}: has no push_snapshot(), which SnapshotCallback needs")
        return source
