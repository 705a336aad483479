"""PPO's optimiser, and what changes during a training: the learning rate and the weight of the entropy."""

from __future__ import annotations

import math

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from torch import nn
from torch.optim import AdamW

from keisei_lightning.training.options import PPOOptions

__all__ = ["KLScale", "fraction_trained", "make_optimizer"]

_KL_STEP = 1.5
_MAX_KL_SCALE = 100.0


def make_optimizer(module: LightningModule, options: PPOOptions, *, learning_rate: float) -> AdamW:
    """Adam for all parameters of a module, with a fused step where that is possible.

    Args:
        module: learns; its trainer decides about precision and clipping, if it has one.
        options: epsilon and weight decay.
        learning_rate: at the start.
    """
    parameters = list(module.parameters())
    return AdamW(
        parameters,
        lr=learning_rate,
        eps=options.adam_eps,
        weight_decay=options.weight_decay,
        fused=_may_fuse(parameters, module._trainer) or None,
    )


def _may_fuse(parameters: list[nn.Parameter], trainer: Trainer | None) -> bool:
    """Whether the optimiser's step may be one kernel; unfused, it takes a quarter of the loop's time on a CPU."""
    if {parameter.device.type for parameter in parameters} not in ({"cpu"}, {"cuda"}):
        return False
    # A fused optimiser unscales float16's gradients itself: they could not be clipped before.
    return trainer is None or trainer.precision != "16-mixed" or not trainer.gradient_clip_val


def fraction_trained(trainer: Trainer, step: int, total_steps: float) -> float:
    """How much of a training is done, in [0, 1]: by steps where they are limited, else by ``max_time``.

    The clock counts only where nothing else ends the training: a schedule by the clock makes no two runs alike.

    Args:
        trainer: in a fit.
        step: optimiser steps done.
        total_steps: of the whole training; infinite where neither epochs nor steps are limited.
    """
    if math.isfinite(total_steps):
        return min(1.0, step / max(total_steps, 1.0))
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (remaining := callback.time_remaining()) is not None:
            elapsed = callback.time_elapsed()
            return min(1.0, elapsed / max(elapsed + remaining, 1e-9))
    return 0.0


class KLScale:
    """Factor of the learning rate that brings the policy's change in an iteration near a KL target.

    It is divided by 1.5 after an iteration above twice the target, and multiplied by 1.5 after one below half of it,
    within [0.01, 100]. Schulman et al. 2017, section 4, adapts the weight of a penalty by this rule; Rudin et al. 2022
    (arXiv:2109.11978), the learning rate.

    Args:
        target: KL divergence of an iteration (nats); None: the factor stays 1.

    Attributes:
        target: as given.
        value: the present factor.
    """

    def __init__(self, target: float | None) -> None:
        self.target = target
        self.value = 1.0

    def adapt(self, kl: float) -> None:
        """Change the factor after an iteration.

        Args:
            kl: mean KL divergence of the iteration's minibatches.
        """
        if self.target is None:
            return
        if kl > 2.0 * self.target:
            self.value /= _KL_STEP
        elif kl < 0.5 * self.target:
            self.value *= _KL_STEP
        self.value = min(max(self.value, 1.0 / _MAX_KL_SCALE), _MAX_KL_SCALE)
