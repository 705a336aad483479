"""When new weights go out to the workers."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keisei_lightning.errors import ConfigError
from keisei_lightning.training.options import WeightSyncOptions
from keisei_lightning.training.ranks import broadcast_buffers, check_equal_weights, ranks_of
from keisei_lightning.training.source import RolloutSource, learned_policy, source_of

__all__ = ["PublishingWatch", "WeightSyncCallback", "missing_weight_sync", "refuse_bare_loader"]


class WeightSyncCallback(Callback):
    """Publishes the policy's weights: at the start, every N optimiser steps, and at the end of each PPO iteration.

    Steps are optimiser steps (``trainer.global_step``), so gradient accumulation changes nothing; no step is published
    twice. The end of a PPO iteration publishes with ``schedule="sync"`` always, and with ``schedule="async"``
    when ``every_n_steps`` is None; in both only if an optimiser step was taken since the last time.

    With several learners (ranks) each publishes its own weights, which are the same, to its own workers.

    Override :meth:`should_publish` in a subclass for another rule.

    Args:
        every_n_steps: publish whenever ``trainer.global_step`` is a multiple of this; None: only at the end of each PPO
            iteration.

    Raises:
        ConfigError: ``every_n_steps`` is below 1.
    """

    def __init__(self, every_n_steps: int | None = WeightSyncOptions.every_n_steps) -> None:
        self.every_n_steps = WeightSyncOptions(every_n_steps=every_n_steps).every_n_steps
        self._published_step = -1

    def should_publish(self, *, global_step: int, end_of_iteration: bool, schedule: str) -> bool:
        """Decide whether the weights go out; asked after each optimiser step and at the end of each iteration.

        Args:
            global_step: optimiser steps taken.
            end_of_iteration: this was the last step on the present rollout.
            schedule: the collector's, ``"sync"`` or ``"async"``.
        """
        if end_of_iteration and (schedule == "sync" or self.every_n_steps is None):
            return True
        return self.every_n_steps is not None and global_step % self.every_n_steps == 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish the weights that training starts from: new ones, or those of the checkpoint.

        Raises:
            RankError: the learners (ranks) have not all the same weights.
        """
        check_equal_weights(ranks_of(trainer), pl_module)
        self._publish(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Publish if it is time, as soon as the optimiser step is done."""
        self._maybe_publish(trainer, end_of_iteration=bool(trainer.is_last_batch))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish, if the iteration ended early.

        Raises:
            RankError: the learners (ranks) no longer have the same weights.
        """
        self._maybe_publish(trainer, end_of_iteration=True)
        broadcast_buffers(ranks_of(trainer), pl_module)
        check_equal_weights(ranks_of(trainer), pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser step that was published last."""
        return {"published_step": self._published_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume the count. The restored weights are always published at the start."""
        self._published_step = int(state_dict["published_step"])

    def _maybe_publish(self, trainer: Trainer, *, end_of_iteration: bool) -> None:
        step = trainer.global_step
        # With gradient accumulation several batches end with the same step; the weights have not changed between them.
        if step > self._published_step and self.should_publish(
            global_step=step, end_of_iteration=end_of_iteration, schedule=source_of(trainer).schedule
        ):
            self._publish(trainer)

    def _publish(self, trainer: Trainer) -> None:
        broadcast_buffers(ranks_of(trainer), trainer.lightning_module)
        source_of(trainer).update_policy_weights_()
        self._published_step = trainer.global_step


def missing_weight_sync(trainer: Trainer | None) -> list[Callback]:
    """Callbacks that a module adds to the trainer's: a :class:`WeightSyncCallback`, unless there is one.

    Args:
        trainer: of a fit that begins; nothing is missing where its data module has no ``collector``.
    """
    data = None if trainer is None else getattr(trainer, "datamodule", None)
    if trainer is None or not (hasattr(type(data), "collector") or hasattr(data, "collector")):
        return []
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [] if any(isinstance(callback, WeightSyncCallback) for callback in callbacks) else [WeightSyncCallback()]


def refuse_bare_loader(trainer: Trainer) -> None:
    """Refuse a fit that was given the loader of a data module instead of the data module.

    Args:
        trainer: of a fit whose loaders are set up.

    Raises:
        ConfigError: no weights would be published, and no worker stopped.
    """
    if not getattr(trainer.train_dataloader, "is_attached", True):
        raise ConfigError(
            "train_dataloaders=MinibatchLoader: no weights would be published, and no worker stopped; give the data "
            "module itself, as Trainer.fit(..., datamodule=data)"
        )


class PublishingWatch:
    """Checks that weights are published in a fit that has no :class:`WeightSyncCallback`.

    Args:
        trainer: of the fit that begins.
        source: the collector.
    """

    def __init__(self, trainer: Trainer, source: RolloutSource) -> None:
        self._trainer, self._source = trainer, source
        self._version, self._step = source.policy_version, trainer.global_step
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        is_ours = any(isinstance(callback, WeightSyncCallback) for callback in callbacks)
        self._done = is_ours or learned_policy(source) is None

    def check(self) -> None:
        """Refuse a second iteration with the weights of the first.

        Raises:
            ConfigError: optimiser steps were taken, and nothing has been published.
        """
        if self._done:
            return
        steps = self._trainer.global_step - self._step
        if self._source.policy_version != self._version:
            self._done = True
        elif steps > 0:
            raise ConfigError(
                f"callbacks: after {steps} optimiser steps the players still have the weights of the start; give the "
                "Trainer a WeightSyncCallback, which publishes them (a subclass of it decides when)"
            )
