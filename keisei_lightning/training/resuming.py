"""What a run that resumes takes from the checkpoint, and what from the present configuration.

The checkpoint has what training has made: weights, Adam's moments, positions in schedules, the factor that
``kl_target`` has found, random streams, and the rest of an interrupted iteration (its rollout with its advantages, and
accumulated gradients). All options are the present ones. Torch and Lightning would restore the options of an optimiser
and a schedule together with their state: here they are replaced, before Lightning loads them.
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
from keisei_lightning.training.ranks import ALONE, Ranks

__all__ = [
    "RESUME_KEY",
    "changes",
    "keep_present_options",
    "pending_gradients",
    "restore_gradients",
    "resume",
    "settings",
]

log = logging.getLogger(__name__)

RESUME_KEY: Final = "keisei_resume"
"""Where a checkpoint keeps the rest of an incomplete epoch, the random streams and the options."""

_OF_TRAINER: Final = ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision")


def resume(
    checkpoint: dict[str, Any],
    module: LightningModule,
    configured: tuple[Optimizer, LambdaLR | None] | None,
    *,
    has_kl_scale: bool,
) -> None:
    """Keep the present options, just before Lightning restores the optimiser, and log what changes and what is kept.

    Args:
        checkpoint: as Lightning has read it and will restore it; changed.
        module: with its trainer, whose optimisers are configured.
        configured: the optimiser that :class:`PPOModule` itself made, with its schedule; None: it made none. The state
            of any other optimiser stays as it is: only its author knows which parts of it are options.
        has_kl_scale: the factor of the learning rate is kept.
    """
    trainer, restored = module.trainer, checkpoint.get(RESUME_KEY) or {}
    before = {**checkpoint.get("hyper_parameters", {}), **restored.get("settings", {})}
    now = settings(trainer, module)
    if before.get("accumulate_grad_batches", 1) != now["accumulate_grad_batches"]:
        restored.pop("gradients", None)  # parts of a mean over another number of minibatches
    schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
    kept = "the optimiser and its schedule with their options"
    ours = [] if configured is None or configured[1] is None else [configured[1]]
    if configured is not None and trainer.optimizers == [configured[0]] and schedules == ours:
        keep_present_options(checkpoint, *configured)
        kept = "Adam's moments, the schedules' position" + (", the learning rate's KL scale" if has_kl_scale else "")
    log.info(
        "resumed from %s at step %d: %s; kept: weights, %s, random streams",
        getattr(trainer, "ckpt_path", None),
        checkpoint.get("global_step", 0),
        changes(before, now),
        kept,
    )


def settings(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """The options that decide how training continues, by name: those of the module, the data module and the trainer.

    Args:
        trainer: with or without a data module.
        module: its hyperparameters are its options.

    Returns:
        Numbers, words, booleans and None.
    """
    of_data = getattr(getattr(trainer, "datamodule", None), "hparams", {}).get("data", {})  # a SelfPlayDataModule's
    found = dict(module.hparams)
    found |= of_data if isinstance(of_data, Mapping) else {}
    found |= {name: getattr(trainer, name) for name in _OF_TRAINER}
    return {str(name): value for name, value in found.items() if isinstance(value, bool | int | float | str | None)}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe what is different, as ``name old -> new``, or "no option changed".

    Args:
        before: the options of the run that wrote the checkpoint; options that it did not have are not compared.
        now: those of this run.
    """
    changed = [f"{name} {before[name]} -> {now[name]}" for name in now if name in before and before[name] != now[name]]
    return ", ".join(changed) or "no option changed"


def keep_present_options(checkpoint: dict[str, Any], optimizer: Optimizer, scheduler: LambdaLR | None) -> None:
    """Replace the options in an optimiser's and a schedule's saved state by the present ones.

    Args:
        checkpoint: as Lightning has read it and will restore it; changed.
        optimizer: as it is configured now. Its parameter groups must hold nothing but options, as Adam's do.
        scheduler: of the learning rate, one step for each of the optimiser's; None: the rate is constant. Where the
            checkpoint has none, its position is the number of optimiser steps.
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
        state = scheduler.state_dict()
        state |= {"last_epoch": position, "_step_count": position + 1, "_last_lr": rates}
        checkpoint["lr_schedulers"] = [state]
    # A different number of groups is left to load_state_dict, which refuses it.
    for saved, group, rate in zip(
        checkpoint["optimizer_states"][0]["param_groups"], optimizer.param_groups, rates, strict=False
    ):
        places = saved["params"]
        saved.clear()
        saved.update(group, params=places, lr=rate)


def pending_gradients(trainer: Trainer, module: LightningModule, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """Gradients of the minibatches since the last optimiser step (``accumulate_grad_batches``), copied.

    Args:
        trainer: in a fit.
        module: whose parameters.
        ranks: the learners. Before the last minibatch of a step each has its own gradients; these are their means,
            from which every learner can continue, since DDP takes the mean once more.

    Returns:
        By the parameter's name; empty after an optimiser step.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    taken = progress.processed
    is_end = trainer.is_last_batch or taken == trainer.num_training_batches  # Lightning always steps there
    if is_end or taken % trainer.accumulate_grad_batches == 0:
        return {}  # what a parameter may still have is zeroed before the next minibatch
    gradients = {name: each.grad.clone() for name, each in module.named_parameters() if each.grad is not None}
    ranks.mean_(gradients.values())
    return gradients


def restore_gradients(gradients: Mapping[str, Tensor], module: LightningModule) -> None:
    """Restore the gradients of an interrupted group of minibatches.

    Args:
        gradients: of :func:`pending_gradients`.
        module: whose parameters.
    """
    for name, parameter in module.named_parameters():
        if name in gradients:
            parameter.grad = to_device(gradients[name], parameter.device)
