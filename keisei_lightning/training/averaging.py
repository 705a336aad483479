"""An average of a training's weights, which is evaluated and saved in the place of the newest ones.

The policies of one iteration after the other differ by chance as well as by what was learned; their average has less of
the first. B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30
(1992); P. Izmailov et al., "Averaging weights leads to wider optima and better generalization", arXiv:1803.05407.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from keisei_lightning.errors import ConfigError

__all__ = ["PolicyAverage", "averaged_weights"]


class PolicyAverage(WeightAveraging):
    """Lightning's ``WeightAveraging`` over the last part of the training so far, however long that is.

    After step t the average moves by ``max(1 / (1 + share * t), 1 / max_steps)`` of its distance to the weights: so
    that the weights of about the last ``share * t`` steps are in it, and of ``max_steps`` at most.

    Learning and self-play are as without it. A checkpoint holds both: the average as its policy, and what a run that
    resumes goes on with.

    Args:
        share: how much of the training so far is averaged, from 0 to 1.
        max_steps: the most steps of the optimiser, 1 or more.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(self, share: float = 0.1, max_steps: int = 2000) -> None:
        errors = [] if 0 <= share <= 1 else [f"{type(self).__name__}: share={share}: must be from 0 to 1"]
        if not max_steps >= 1:
            errors.append(f"{type(self).__name__}: max_steps={max_steps}: must be 1 or more")
        if errors:
            raise ConfigError(errors)
        self.share, self.max_steps = share, max_steps
        # Not of buffers, which may hold whole numbers: they are copied.
        super().__init__(use_buffers=False, multi_avg_fn=self._move)
        self._has_ended = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin with the weights that are there."""
        super().setup(trainer, pl_module, stage)
        self._has_ended = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the module. A checkpoint that is saved after this can be resumed from all the same."""
        self.on_validation_epoch_start(trainer, pl_module)  # which swaps the two
        self._has_ended = True

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the module, unless it is there."""
        if not self._has_ended:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights back that are trained, unless training has ended."""
        if not self._has_ended:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the policy, and beside it the weights that are trained."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._has_ended:
            trained, average = checkpoint["state_dict"], checkpoint["current_model_state"]
            checkpoint |= {"state_dict": average, "current_model_state": trained}

    def _move(self, averages: list[Tensor], weights: list[Tensor], steps: Tensor | int) -> None:
        rate = max(1 / (1 + self.share * int(steps)), 1 / self.max_steps)
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, rate)  # as torch's own averages do


@contextmanager
def averaged_weights(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Context in which a module has the weights that are evaluated and saved, if a callback averages them.

    Args:
        trainer: in a fit; a :class:`PolicyAverage` or any other of Lightning's ``WeightAveraging`` may be among its
            callbacks.
        module: that is trained.
    """
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    with ExitStack() as stack:
        for callback in callbacks:
            if isinstance(callback, WeightAveraging):
                callback.on_validation_epoch_start(trainer, module)  # which swaps them
                stack.callback(callback.on_validation_epoch_end, trainer, module)
        yield
