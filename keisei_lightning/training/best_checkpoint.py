"""Keeping the policy with the best score, which need not be the last one."""

from __future__ import annotations

import os

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from keisei_lightning.training.evaluation import EvaluationCallback

__all__ = ["BestCheckpoint"]


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``: the evaluated policy that scored best against the first opponent.

    The best of many scores is partly luck: before you quote it, play other games (``keisei eval`` with another seed).

    Args:
        evaluation: whose scores count. A training that resumes in another folder starts without a best one.
        folder: of ``best.ckpt``.
    """

    def __init__(self, evaluation: EvaluationCallback, folder: str | os.PathLike[str]) -> None:
        super().__init__(
            dirpath=os.fspath(folder),
            filename="best",
            monitor=evaluation.monitor,
            mode="max",
            save_top_k=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self._evaluation = evaluation

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if this epoch's policy has been evaluated and is the best; Lightning calls checkpoints last."""
        if self._evaluation.evaluated_step == trainer.global_step:
            super().on_train_epoch_end(trainer, pl_module)
