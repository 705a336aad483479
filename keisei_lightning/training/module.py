"""PPO as an ordinary LightningModule around TorchRL's ``ClipPPOLoss``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from tensordict import TensorDictBase
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchrl.objectives import ClipPPOLoss

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.models import NEW_STATE_VALUE, ActorCritic
from keisei_lightning.models.heads import expected_score
from keisei_lightning.models.output_check import check_network
from keisei_lightning.models.transfers import module_to_device
from keisei_lightning.system.options import with_keywords
from keisei_lightning.training.checkpoint_header import HEADER_KEY, RECIPE_KEY, CheckpointHeader, network_errors
from keisei_lightning.training.compiling import CompiledEvaluator
from keisei_lightning.training.iteration import LOSS_WEIGHT
from keisei_lightning.training.meter import EpochMeter
from keisei_lightning.training.optimizer import KLScale, fraction_trained, make_optimizer
from keisei_lightning.training.options import PPOOptions
from keisei_lightning.training.ppo_loss import LOSS_TERMS, OUTCOME_LOG_PROBS, make_loss
from keisei_lightning.training.random_state import random_state, restore_random_state
from keisei_lightning.training.ranks import ranks_of
from keisei_lightning.training.recorded_module import RecordedModule
from keisei_lightning.training.resuming import (
    RESUME_KEY,
    pending_gradients,
    restore_gradients,
    resume,
    settings,
)
from keisei_lightning.training.saveable import plain
from keisei_lightning.training.saved_weights import saved_weights
from keisei_lightning.training.search_loss import PLIES, SEARCHED, SearchMeter, search_losses
from keisei_lightning.training.source import find_source
from keisei_lightning.training.weight_sync import missing_weight_sync, refuse_bare_loader

__all__ = ["PPOModule"]

_METRICS = (*LOSS_TERMS, "entropy", "kl_approx", "clip_fraction", "ESS", "mean_ratio")
"""What the loss says of each minibatch, and an epoch's metrics have the mean of."""


class PPOModule(RecordedModule):
    """Proximal policy optimisation of an actor-critic, for minibatches with advantages.

    Loss (Schulman et al. 2017, https://arxiv.org/abs/1707.06347), all three terms from one pass of the trunk::

        -min(r A, clip(r, 1 - eps, 1 + eps) A) + critic_coeff * distance(V, V_target) - entropy_coeff * entropy

    with r the ratio of the present to the behaviour policy's probability. A value head of win, draw and loss learns a
    distribution over the outcomes of each ply (:mod:`keisei_lightning.rl.outcomes`): its critic loss is the
    cross-entropy, and ``critic_loss`` and ``clip_value`` say nothing of it.

    Metrics, each the mean over the plies of an epoch's minibatches and logged once per epoch (so that no minibatch
    waits for the device): ``train/<term>`` of the loss, ``train/entropy``, ``train/kl_approx``,
    ``train/clip_fraction``, ``train/ESS`` (effective sample size over the minibatch's size), ``train/mean_ratio``,
    ``train/learning_rate``, ``train/entropy_coeff``, ``train/grad_norm`` (with ``gradient_clip_val``);
    ``train/search_policy_loss``, ``train/search_value_loss`` and ``train/search_agreement`` of searched positions;
    ``train/explained_variance`` of the epoch as a whole, ``1 - Var(V_target - V) / Var(V_target)``, left out where the
    targets have no variance; and of the epoch's first minibatch ``train/first_kl`` and ``train/first_ratio``, of the
    present policy and the one that played: 0 and 1 if learner and workers hold the same weights, compute in the same
    precision and treat the legal moves alike (with ``decoupled`` data too, where they also show the policy lag).

    Args:
        actor_critic: the network; the collector must have been given the same object.
        options: of loss, optimiser and compiling; None: their defaults.
        spec: the game, for the checkpoint's header; None: the data module's.
        recipe: how game and network are made, for ``keisei eval``: plain data that checkpoints carry along.
        **keywords: single options by name, such as ``learning_rate=3e-4``; they take precedence over ``options``.

    Attributes:
        options: all of them.
        learning_rate: of Adam, at the start: ``options.learning_rate``, until a ``LearningRateFinder`` sets another.

    Checkpoints keep the options as hyperparameters, each under its own name.

    A run that resumes from a checkpoint (``Trainer.fit(ckpt_path=...)``) takes all options from the present module,
    data module and trainer: also the learning rate, its schedule, ``weight_decay``, ``adam_eps`` and ``entropy_coeff``.
    From the checkpoint it takes what training has made: weights, Adam's moments, the position in schedules (whose ends
    are the present ones), the factor of the learning rate that ``kl_target`` has found, random streams, and of an
    interrupted iteration the rollout with its advantages. One line of the log names what has changed. A subclass with a
    ``configure_optimizers`` of its own has its optimiser restored as Lightning does it, with the checkpoint's options.

    Raises:
        ConfigError: an option is out of its bounds, or the network's outputs are not those of the game (without
            ``spec``, this is raised when a fit begins).
        TypeError: a keyword is no option.
    """

    def __init__(
        self,
        actor_critic: ActorCritic,
        options: PPOOptions | None = None,
        *,
        spec: GameSpec | None = None,
        recipe: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__()
        self.options: PPOOptions
        (self.options,) = with_keywords(type(self).__name__, options or PPOOptions(), keywords=keywords)
        if spec is not None:
            check_network(actor_critic, spec)
        self.save_hyperparameters(asdict(self.options))
        self.save_hyperparameters(ignore=["actor_critic", "options", "spec", "recipe"])  # a subclass may have more
        self.actor_critic = actor_critic
        self.learning_rate: float = self.options.learning_rate
        self._spec = spec
        self._recipe = None if recipe is None else plain(recipe)
        # In a tuple the loss, which has no parameters of its own, is not registered as a part: the checkpoint's state
        # dictionary is the network's and nothing else.
        self._losses = (make_loss(self.options),)
        self._compiled: CompiledEvaluator | None = None  # during a fit
        self._kl_scale = KLScale(self.options.kl_target)
        self._entropy_coeff_now = self.options.entropy_coeff
        self._meter = EpochMeter(_METRICS, torch.device("cpu"))
        self._search_meter = SearchMeter(torch.device("cpu"))
        self._epoch_start_step = 0
        self._restored: dict[str, Any] | None = None
        self._loaded: dict[str, Any] | None = None  # the whole checkpoint, until Lightning restores from it
        self._configured: tuple[Optimizer, LambdaLR | None] | None = None  # until then too

    @property
    def loss(self) -> ClipPPOLoss:
        """TorchRL's loss module."""
        return self._losses[0]

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate positions, during a fit by the compiled network if there is one.

        Args:
            observation: uint8 [B, *observation_shape].

        Returns:
            logits float32 [B, A] and state value float32 [B, 1].
        """
        logits, value = self._evaluate(observation)
        return logits, expected_score(value)

    def _evaluate(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, A], and state values [B, 1] or log-probabilities [B, 3] of win, draw and loss."""
        policy = self.actor_critic
        if self._compiled is not None:
            logits, value = self._compiled.evaluate(observation)
        else:
            logits, value = (policy.evaluate_outcomes if policy.predicts_outcomes else policy)(observation)
        return logits, value

    def training_step(self, minibatch: TensorDictBase, batch_idx: int) -> Tensor:
        """Loss of one minibatch.

        Args:
            minibatch: TensorDict [b] with ``observation``, ``action_mask``, ``action``, ``action_log_prob``,
                ``state_value``, ``advantage`` and ``value_target``, and for the decoupled objective
                ``proximal_log_prob`` (:func:`~keisei_lightning.training.minibatches.decouple`). A head of win, draw and
                loss learns from ``outcome_target`` (:func:`~keisei_lightning.training.minibatches.add_outcomes`);
                without it, from ``value_target`` through its expected score. The loss is multiplied by
                ``loss_weight``, where there is one (:mod:`~keisei_lightning.training.iteration`). Or a minibatch with
                searched positions beside it, whose loss is added (:mod:`~keisei_lightning.training.search_loss`).
            batch_idx: number of the minibatch in this epoch.
        """
        if (plies := minibatch.get(PLIES, None)) is None:
            return self._ppo_loss(minibatch)
        searched = minibatch.get(SEARCHED)
        logits, value = self(searched.get("observation"))
        losses = search_losses(logits, value, searched)
        self._search_meter.add(losses)
        return self._ppo_loss(plies) + losses.total(minibatch)

    def _ppo_loss(self, minibatch: TensorDictBase) -> Tensor:
        logits, value = self._evaluate(minibatch.get("observation"))
        state_value = expected_score(value)
        data = minibatch.clone(recurse=False)
        data.set("logits", logits)
        data.set(NEW_STATE_VALUE, state_value)
        if self.actor_critic.predicts_outcomes:
            data.set(OUTCOME_LOG_PROBS, value)
        losses = self.loss(data)
        self._meter.add(losses, value=state_value, value_target=minibatch.get("value_target"))
        objective, critic, entropy = (losses.get(name) for name in LOSS_TERMS)
        total: Tensor = objective + critic + entropy
        weight = minibatch.get(LOSS_WEIGHT, None)
        return total if weight is None else weight[0] * total

    def configure_callbacks(self) -> list[Callback]:
        """Bring a ``WeightSyncCallback``, so that the players get what is learned; where there is one, it is kept."""
        return missing_weight_sync(self._trainer)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, and the schedule of its learning rate if there is one: linear, adapted to ``kl_target``, or both."""
        optimizer = make_optimizer(self, self.options, learning_rate=self.learning_rate)
        self._configured = optimizer, None
        final_rate = self.options.final_learning_rate
        if final_rate is None and self.options.kl_target is None:
            return optimizer
        total_steps = float(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            ratio = 1.0 if final_rate is None else final_rate / self.learning_rate
            done = fraction_trained(self.trainer, step, total_steps) if ratio != 1.0 else 0.0
            return self._kl_scale.value * (1.0 + (ratio - 1.0) * done)

        scheduler = LambdaLR(optimizer, factor)
        self._configured = optimizer, scheduler
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, and note the norm that clipping computes anyway."""
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            norm = torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)
            self._meter.add_grad_norm(norm.detach())
        elif gradient_clip_val:  # Lightning does the same, but not for fused optimisers of any mixed precision
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        else:
            self.clip_gradients(
                optimizer, gradient_clip_val=gradient_clip_val, gradient_clip_algorithm=gradient_clip_algorithm
            )

    def setup(self, stage: str) -> None:
        """Refuse a network that is not one of the data module's game.

        Raises:
            ConfigError: its results are of another shape or dtype.
        """
        if stage == "fit" and self._spec is None and (spec := self._game_spec()) is not None:
            check_network(self.actor_critic, spec)

    def on_fit_start(self) -> None:
        """Bring the loss's buffers to the module's device, and have the network compiled by its first pass.

        In a run that resumes, it comes after the optimiser is configured and before its state is restored: here the
        present options are put in the place of the checkpoint's.
        """
        (loaded, self._loaded), (configured, self._configured) = (self._loaded, None), (self._configured, None)
        if loaded is not None:
            resume(loaded, self, configured, has_kl_scale=self.options.kl_target is not None)
        if configured is not None and (scheduler := configured[1]) is not None:  # a LearningRateFinder has come before
            scheduler.base_lrs = [self.learning_rate for _ in scheduler.base_lrs]
        module_to_device(self.loss, self.device)
        if (mode := self.options.compile_mode) is not None:
            self._compiled = CompiledEvaluator(self.actor_critic, mode)

    def on_train_batch_start(self, batch: TensorDictBase, batch_idx: int) -> None:
        """Take the time of the first minibatch of a compiled network."""
        if self._compiled is not None:
            self._compiled.start_minibatch()

    def on_train_batch_end(self, outputs: Any, batch: TensorDictBase, batch_idx: int) -> None:
        """Log how long compiling took."""
        if self._compiled is not None:
            self._compiled.end_minibatch()

    def on_fit_end(self) -> None:
        """Release the compiled network."""
        self._compiled = None

    def on_train_start(self) -> None:
        """Resume exactly where a checkpoint stopped: Lightning calls no epoch's start in the middle of an epoch.

        Raises:
            ConfigError: the fit was given the data module's loader instead of the data module.
        """
        refuse_bare_loader(self.trainer)
        restored, self._restored = self._restored, None
        if restored is None:
            return
        rank = ranks_of(self.trainer).rank
        self._meter = EpochMeter.of_rank(restored["meter"], _METRICS, self.device, rank)
        self._search_meter = SearchMeter.of_rank(restored.get("search_meter"), self.device, rank)
        self._epoch_start_step = int(restored.get("epoch_start_step", self.trainer.global_step))
        self._schedule_entropy_coeff()
        restore_gradients(restored.get("gradients", {}), self)
        restore_random_state(restored["random_state"])

    def on_train_epoch_start(self) -> None:
        """Start the epoch's means, and set the entropy coefficient for this iteration."""
        self._meter, self._search_meter = EpochMeter(_METRICS, self.device), SearchMeter(self.device)
        self._epoch_start_step = self.trainer.global_step
        self._schedule_entropy_coeff()

    def _schedule_entropy_coeff(self) -> None:
        """Set the coefficient of this iteration, which is that of its first step."""
        first, final = self.options.entropy_coeff, self.options.final_entropy_coeff
        if final is None:
            return
        total_steps = float(self.trainer.estimated_stepping_batches)
        done = fraction_trained(self.trainer, self._epoch_start_step, total_steps)
        # A copy of the loss's own, which may be on a device: reading that one would wait for the device.
        self._entropy_coeff_now = first + (final - first) * done
        self.loss.entropy_coeff.fill_(self._entropy_coeff_now)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means: the only time when the metrics leave the device."""
        metrics = self._meter.compute(ranks_of(self.trainer))
        if metrics:
            # mean(r) - 1 - mean(log r): unlike -mean(log r) alone it is never negative (Schulman 2020,
            # "Approximating KL divergence").
            self._kl_scale.adapt(metrics["mean_ratio"] - 1.0 + metrics["kl_approx"])
            optimizer = self.trainer.optimizers[0]
            metrics["learning_rate"] = float(optimizer.param_groups[0]["lr"])
            metrics["entropy_coeff"] = self._entropy_coeff_now
            if self._searches:
                metrics |= self._search_meter.compute(ranks_of(self.trainer))
            self.log_dict({f"train/{name}": value for name, value in metrics.items()}, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write which game this is a checkpoint of, and what a run needs to resume as if it had never stopped."""
        ranks = ranks_of(self.trainer)
        checkpoint[RESUME_KEY] = {
            "meter": self._meter.joined_state(ranks),
            "epoch_start_step": self._epoch_start_step,
            "learning_rate_scale": self._kl_scale.value,
            "random_state": random_state(),
            "gradients": pending_gradients(self.trainer, self, ranks),
            "settings": settings(self.trainer, self),
        }
        if self._searches:
            checkpoint[RESUME_KEY]["search_meter"] = self._search_meter.joined_state(ranks)
        spec = self._game_spec()
        if spec is not None:
            checkpoint[HEADER_KEY] = CheckpointHeader.of(spec).to_dict()
        if self._recipe is not None:
            checkpoint[RECIPE_KEY] = self._recipe

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another game or of another network.

        Raises:
            ConfigError: it does not fit.
        """
        trainer = self._trainer
        path = str(getattr(trainer, "ckpt_path", None) or "(a checkpoint)")
        spec = self._game_spec()
        if spec is not None:
            CheckpointHeader.from_checkpoint(checkpoint, path=path).check(spec, path=path)
        checkpoint["state_dict"] = saved_weights(checkpoint, path=path)
        if errors := network_errors(checkpoint["state_dict"], self.state_dict(), path=path):
            raise ConfigError(errors)
        self._loaded = checkpoint
        self._restored = checkpoint.get(RESUME_KEY)  # a checkpoint of version 0.1 has none
        if self._restored is not None and self.options.kl_target is not None:
            self._kl_scale.value = float(self._restored.get("learning_rate_scale", 1.0))

    @property
    def _searches(self) -> bool:
        """Whether the data module gives searched positions, the same on all ranks."""
        return getattr(getattr(self._trainer, "datamodule", None), "search_targets", None) is not None

    def _game_spec(self) -> GameSpec | None:
        """The game given, or that of the data module."""
        if self._spec is not None:
            return self._spec
        source = find_source(self._trainer)
        return None if source is None else source.spec
