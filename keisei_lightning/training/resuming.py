"""What a run that resumes takes from the checkpoint, and what from today's configuration.

From the checkpoint comes what training has made: weights, Adam's moments, positions in schedules, the scale that
``kl_target`` has found, random streams, what is left of an iteration (its rollout with its advantages, and gradients of
a group that is not complete). Whatever is an option is today's. Torch and Lightning restore an optimiser's and a
schedule's options together with their state, so that these are put right here, before Lightning loads them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from keisei_lightning.models.transfers import to_device

__all__ = [
    "RESUME_KEY",
    "changes",
    "pending_gradients",
    "restore_gradients",
    "resume",
    "settings",
    "use_todays_options",
]

log = logging.getLogger(__name__)

RESUME_KEY: Final = "keisei_resume"
"""Where a checkpoint keeps what is left of an epoch that was not completed, the random streams and the options."""

_OF_TRAINER: Final = ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision")


def resume(
    checkpoint: dict[str, Any],
    module: LightningModule,
    configured: tuple[Optimizer, LambdaLR | None] | None,
    *,
    has_kl_scale: bool,
) -> None:
    """Take today's options, just before Lightning restores the optimiser, and tell what changes and what stays.

    Args:
        checkpoint: as Lightning has read it and will restore it; changed.
        module: with its trainer, whose optimisers are configured.
        configured: the optimiser that our own ``configure_optimizers`` made, with its schedule; None: it made none. If
            the trainer has others, their state stays as it is: what of it is an option, only their author knows.
        has_kl_scale: whether there is a scale of the learning rate that stays.
    """
    trainer, restored = module.trainer, checkpoint.get(RESUME_KEY) or {}
    before = {**checkpoint.get("hyper_parameters", {}), **restored.get("settings", {})}
    now = settings(trainer, module)
    if before.get("accumulate_grad_batches", 1) != now["accumulate_grad_batches"]:
        restored.pop("gradients", None)  # they are shares of a mean over another number of minibatches
    schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
    kept = "the optimiser and its schedule with their options"
    ours = [] if configured is None or configured[1] is None else [configured[1]]
    if configured is not None and trainer.optimizers == [configured[0]] and schedules == ours:
        use_todays_options(checkpoint, *configured)
        kept = "Adam's moments, the schedules' position" + (", the learning rate's KL scale" if has_kl_scale else "")
    log.info(
        "resumed from %s at step %d: %s; kept: weights, %s, random streams",
        getattr(trainer, "ckpt_path", None),
        checkpoint.get("global_step", 0),
        changes(before, now),
        kept,
    )


def settings(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """The options that decide how training goes on, by name: those of the module, the data module and the trainer.

    Args:
        trainer: with or without a data module; what that does not have is left out.
        module: its hyperparameters count.
    """
    of_data = getattr(getattr(trainer, "datamodule", None), "hparams", {}).get("data", {})  # a SelfPlayDataModule's
    found = dict(module.hparams)
    found |= of_data if isinstance(of_data, Mapping) else {}
    found |= {name: getattr(trainer, name) for name in _OF_TRAINER}
    return {str(name): value for name, value in found.items() if isinstance(value, bool | int | float | str | None)}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What is different, as ``name old -> new``, or "no option changed".

    Args:
        before: the options of the run that wrote the checkpoint; those that it does not tell of are not compared.
        now: those of this run.
    """
    changed = [f"{name} {before[name]} -> {now[name]}" for name in now if name in before and before[name] != now[name]]
    return ", ".join(changed) or "no option changed"


def use_todays_options(checkpoint: dict[str, Any], optimizer: Optimizer, scheduler: LambdaLR | None) -> None:
    """Leave of an optimiser's and a schedule's saved state what training has made, and take the options of today.

    Args:
        checkpoint: as Lightning has read it and will restore it; changed.
        optimizer: as it is configured today. All that its parameter groups hold must be options, as with Adam.
        scheduler: of the learning rate, one step for each of the optimiser's; None: the rate is constant. Where the run
            before had none, its position is the number of optimiser steps.
    """
    if not checkpoint.get("optimizer_states"):
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    saved_schedules, checkpoint["lr_schedulers"] = checkpoint.get("lr_schedulers") or [], []
    if scheduler is not None:
        position = int(saved_schedules[0]["last_epoch"] if saved_schedules else checkpoint["global_step"])
        rates = [
            float(rate) * factor(position)
            for rate, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]
        today = scheduler.state_dict()
        today |= {"last_epoch": position, "_step_count": position + 1, "_last_lr": rates}
        checkpoint["lr_schedulers"] = [today]
    # A different number of groups is left to load_state_dict, which refuses it.
    for saved, group, rate in zip(
        checkpoint["optimizer_states"][0]["param_groups"], optimizer.param_groups, rates, strict=False
    ):
        places = saved["params"]
        saved.clear()
        saved.update(group, params=places, lr=rate)


def pending_gradients(trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
    """Gradients of the minibatches since the last optimiser step (``accumulate_grad_batches``), copied.

    Args:
        trainer: in a fit.
        module: whose parameters.

    Returns:
        By the parameter's name; empty after an optimiser step.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    taken = progress.processed
    ends = trainer.is_last_batch or taken == trainer.num_training_batches  # Lightning steps there in any case
    if ends or taken % trainer.accumulate_grad_batches == 0:
        return {}  # what a parameter may still have is zeroed before the next minibatch
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None}


def restore_gradients(gradients: Mapping[str, Tensor], module: LightningModule) -> None:
    """Go on with a group of minibatches that was left in its middle.

    Args:
        gradients: as :func:`pending_gradients` has given them.
        module: whose parameters.
    """
    for name, parameter in module.named_parameters():
        if name in gradients:
            parameter.grad = to_device(gradients[name], parameter.device)
