"""Early stopping by the results of evaluations."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from keisei_lightning.errors import ConfigError
from keisei_lightning.training.evaluation import EvaluationCallback

__all__ = ["ScoreEarlyStopping"]


class ScoreEarlyStopping(EarlyStopping):
    """Lightning's ``EarlyStopping`` for a metric of an :class:`EvaluationCallback`, checked after each evaluation.

    Lightning's own checks after each epoch. Most epochs have no evaluation: it would raise before the first one, and
    count the same score many times after it.

    Put it after the ``EvaluationCallback``.

    Args:
        monitor: a metric of an evaluation, such as ``eval/rating``; None: the score against the first opponent.
        mode: whether more is better ("max") or less ("min").
        patience: end the training after this many consecutive evaluations without a better value.
        min_delta: the smallest change that counts as better.
        stopping_threshold: end as soon as the value is better than this; None: no threshold.
        verbose: log each better value, and why the training ends.

    Raises:
        ConfigError: (when training starts) there is no ``EvaluationCallback``.
    """

    def __init__(
        self,
        monitor: str | None = None,
        *,
        mode: Literal["min", "max"] = "max",
        patience: int = 5,
        min_delta: float = 0.0,
        stopping_threshold: float | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(
            monitor or "",
            mode=mode,
            patience=patience,
            min_delta=min_delta,
            stopping_threshold=stopping_threshold,
            verbose=verbose,
            check_on_train_epoch_end=True,
        )
        self._evaluation: EvaluationCallback | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the evaluation whose metric counts."""
        super().setup(trainer, pl_module, stage)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        self._evaluation = next((each for each in callbacks if isinstance(each, EvaluationCallback)), None)
        if self._evaluation is None:
            raise ConfigError(f"{type(self).__name__}: needs an EvaluationCallback, whose metric it watches")
        self.monitor = self.monitor or self._evaluation.monitor

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the training if it is time, and if the policy has just been evaluated."""
        if self._evaluation is not None and self._evaluation.evaluated_step == trainer.global_step:
            super().on_train_epoch_end(trainer, pl_module)
