"""PPO as an ordinary LightningModule around TorchRL's ``ClipPPOLoss``."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchrl.objectives import ClipPPOLoss

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.models import NEW_STATE_VALUE, ActorCritic, logits_actor, value_selector
from keisei_lightning.models.compiling import Evaluator
from keisei_lightning.models.heads import expected_score
from keisei_lightning.models.output_check import check_network
from keisei_lightning.models.transfers import module_to_device
from keisei_lightning.training.checkpoint_header import HEADER_KEY, RECIPE_KEY, CheckpointHeader, network_errors
from keisei_lightning.training.meter import EpochMeter
from keisei_lightning.training.ppo_checks import check_ppo_options
from keisei_lightning.training.ppo_loss import OUTCOME_LOG_PROBS, LegalMovesPPOLoss
from keisei_lightning.training.random_state import random_state, restore_random_state
from keisei_lightning.training.recorded import RecordedModule
from keisei_lightning.training.resuming import (
    RESUME_KEY,
    pending_gradients,
    restore_gradients,
    resume,
    settings,
)
from keisei_lightning.training.saveable import plain
from keisei_lightning.training.source import RolloutSource
from keisei_lightning.training.weight_sync import missing_weight_sync, refuse_bare_loader

__all__ = ["LOSS_TERMS", "PPOModule"]

log = logging.getLogger(__name__)

_KL_STEP = 1.5
_KL_MOST = 100.0

LOSS_TERMS = ("loss_objective", "loss_critic", "loss_entropy")
"""The parts of the loss; their sum is minimised."""

_METRICS = (
    *LOSS_TERMS,
    "entropy",
    "kl_approx",
    "clip_fraction",
    "ESS",
    "mean_ratio",
)


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
    ``train/explained_variance`` of the epoch as a whole, ``1 - Var(V_target - V) / Var(V_target)``, left out where the
    targets have no variance; and of the epoch's first minibatch ``train/first_kl`` and ``train/first_ratio``, of the
    present policy and the one that played: 0 and 1 if learner and workers hold the same weights, compute in the same
    precision and treat the legal moves alike (with ``decoupled`` data too, where they also show the policy lag).

    Args:
        actor_critic: the network; the collector must have been given the same object.
        clip_epsilon: eps, in (0, 1).
        entropy_coeff: weight of the entropy bonus, at the start.
        final_entropy_coeff: its weight at the end, reached linearly; None: constant.
        critic_coeff: weight of the value loss.
        critic_loss: distance of the value from its target: "l2", "smooth_l1" or "l1".
        clip_value: limit the change of the value as Schulman et al.'s code does, to this; None: no limit.
        learning_rate: of Adam, at the start.
        final_learning_rate: at the end, reached linearly over the trainer's steps (or over ``max_time``, where neither
            epochs nor steps are limited); None: constant.
        kl_target: adapt the learning rate so that an iteration changes the policy by about this KL divergence (nats,
            mean over the iteration's minibatches): it is divided by 1.5 after an iteration above twice the target and
            multiplied by 1.5 after one below half of it, within a factor of 100 of what the schedule says. (Schulman et
            al. 2017, section 4, adapts a penalty by this rule; Rudin et al. 2022, arXiv:2109.11978, the learning rate.)
            None: the schedule alone.
        adam_eps: Adam's epsilon.
        weight_decay: decoupled, as in AdamW.
        compile_mode: of ``torch.compile`` for the network ("default", "reduce-overhead", ...), for which the first
            minibatch waits; the numbers are then the same but for rounding. None: not compiled.
        spec: the game, for the checkpoint's header; None: the data module's.
        recipe: how game and network are made, for ``keisei eval``: plain data that checkpoints carry along.

    A run that resumes from a checkpoint (``Trainer.fit(ckpt_path=...)``) takes its options from today's module, data
    module and trainer, all of them: also the learning rate, its schedule, ``weight_decay``, ``adam_eps`` and
    ``entropy_coeff``. From the checkpoint it takes what training has made: weights, Adam's moments, the position in
    schedules (whose ends are today's), the scale of the learning rate that ``kl_target`` has found, random streams, and
    of an iteration that was left in its middle the rollout with its advantages. One line of the log tells what has
    changed. A subclass with a ``configure_optimizers`` of its own has its optimiser restored as Lightning does it, with
    the options of the checkpoint.

    Raises:
        ConfigError: a number that cannot work, or a network whose results are not those of the game (without ``spec``
            that is told when a fit begins).
    """

    def __init__(
        self,
        actor_critic: ActorCritic,
        *,
        clip_epsilon: float = 0.2,
        entropy_coeff: float = 0.01,
        final_entropy_coeff: float | None = None,
        critic_coeff: float = 0.5,
        critic_loss: Literal["l2", "smooth_l1", "l1"] = "l2",
        clip_value: float | None = None,
        learning_rate: float = 1e-3,
        final_learning_rate: float | None = None,
        kl_target: float | None = None,
        adam_eps: float = 1e-5,
        weight_decay: float = 0.0,
        compile_mode: str | None = None,
        spec: GameSpec | None = None,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_ppo_options(locals())
        if spec is not None:
            check_network(actor_critic, spec)
        self.save_hyperparameters(ignore=["actor_critic", "spec", "recipe"])
        self.actor_critic = actor_critic
        self.learning_rate = learning_rate
        self.final_learning_rate = final_learning_rate
        self.kl_target = kl_target
        self.entropy_coeff = entropy_coeff
        self.final_entropy_coeff = final_entropy_coeff
        self.adam_eps = adam_eps
        self.weight_decay = weight_decay
        self.compile_mode = compile_mode
        self._evaluator: Evaluator | None = None  # compiled, while there is a fit
        self._compiling_since: float | None = None  # perf_counter() when the first minibatch began
        self._is_to_compile = False
        self._spec = spec
        self._recipe = None if recipe is None else plain(recipe)
        # The loss has no parameters of its own. In a tuple it is not registered either, so that the checkpoint's state
        # dictionary is the network's and nothing else.
        self._losses = (
            LegalMovesPPOLoss(
                logits_actor(),
                value_selector(),
                functional=False,
                clip_epsilon=clip_epsilon,
                entropy_bonus=True,
                entropy_coeff=entropy_coeff,
                critic_coeff=critic_coeff,
                loss_critic_type=critic_loss,
                clip_value=clip_value,
                normalize_advantage=False,
                log_explained_variance=False,  # of each minibatch; the meter computes that of the epoch
            ),
        )
        self._learning_rate_scale = 1.0
        self._entropy_coeff_now = entropy_coeff
        self._meter = EpochMeter(_METRICS, torch.device("cpu"))
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
        evaluate = self._evaluator
        if evaluate is None:
            policy = self.actor_critic
            evaluate = policy.evaluate_outcomes if policy.predicts_outcomes else policy
        logits, value = evaluate(observation)
        return logits, value

    def training_step(self, minibatch: TensorDictBase, batch_idx: int) -> Tensor:
        """Loss of one minibatch.

        Args:
            minibatch: TensorDict [b] with ``observation``, ``action_mask``, ``action``, ``action_log_prob``,
                ``state_value``, ``advantage`` and ``value_target``, and for the decoupled objective
                ``proximal_log_prob`` (:func:`~keisei_lightning.training.minibatches.decouple`). A head of win, draw and
                loss learns from ``outcome_target`` (:func:`~keisei_lightning.training.minibatches.add_outcomes`);
                without it, from ``value_target`` through its expected score.
            batch_idx: number of the minibatch in this epoch.
        """
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
        return total

    def configure_callbacks(self) -> list[Callback]:
        """Bring a ``WeightSyncCallback``, so that the players get what is learned; where there is one, it is kept."""
        return missing_weight_sync(self._trainer)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, and the schedule of its learning rate if there is one: linear, adapted to ``kl_target``, or both."""
        parameters = list(self.parameters())
        optimizer = AdamW(
            parameters,
            lr=self.learning_rate,
            eps=self.adam_eps,
            weight_decay=self.weight_decay,
            fused=self._may_fuse(parameters) or None,
        )
        self._configured = optimizer, None
        if self.final_learning_rate is None and self.kl_target is None:
            return optimizer
        total_steps = float(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            ratio = 1.0 if self.final_learning_rate is None else self.final_learning_rate / self.learning_rate
            done = self._fraction_done(step, total_steps) if ratio != 1.0 else 0.0
            return self._learning_rate_scale * (1.0 + (ratio - 1.0) * done)

        scheduler = LambdaLR(optimizer, factor)
        self._configured = optimizer, scheduler
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _may_fuse(self, parameters: list[nn.Parameter]) -> bool:
        """Whether the optimiser's step is to be one kernel; on a CPU it takes a quarter of a loop's time."""
        if {parameter.device.type for parameter in parameters} not in ({"cpu"}, {"cuda"}):
            return False
        # A fused optimiser undoes the scaling of float16's gradients by itself: they cannot be clipped before.
        trainer = self._trainer
        return trainer is None or trainer.precision != "16-mixed" or not trainer.gradient_clip_val

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
        """Bring the loss's own buffers to the module's device, and have the network compiled by its first pass.

        In a run that resumes: between a configured optimiser and its restored state, take today's options.
        """
        (loaded, self._loaded), (configured, self._configured) = (self._loaded, None), (self._configured, None)
        if loaded is not None:
            resume(loaded, self, configured, has_kl_scale=self.kl_target is not None)
        if configured is not None and (scheduler := configured[1]) is not None:  # a LearningRateFinder has come before
            scheduler.base_lrs = [self.learning_rate for _ in scheduler.base_lrs]
        module_to_device(self.loss, self.device)
        if self.compile_mode is not None:
            # Dynamic: minibatches differ by a ply. A function, and not a module: that would have weights to save.
            policy = self.actor_critic
            evaluate = policy.evaluate_outcomes if policy.predicts_outcomes else policy.forward
            self._evaluator = torch.compile(evaluate, mode=self.compile_mode, dynamic=True)
            self._is_to_compile = True

    def on_train_batch_start(self, batch: TensorDictBase, batch_idx: int) -> None:
        """Take the time of the first minibatch of a network that is to be compiled."""
        if self._is_to_compile:
            self._is_to_compile, self._compiling_since = False, time.perf_counter()

    def on_train_batch_end(self, outputs: Any, batch: TensorDictBase, batch_idx: int) -> None:
        """Tell what compiling took."""
        if self._compiling_since is not None:
            seconds, self._compiling_since = time.perf_counter() - self._compiling_since, None
            log.info("network compiled (%s): the first minibatch took %.1f s", self.compile_mode, seconds)

    def on_fit_end(self) -> None:
        """Let go of the compiled network."""
        self._evaluator = None

    def on_train_start(self) -> None:
        """Go on exactly where a checkpoint stopped: Lightning begins no epoch anew that was left in its middle."""
        refuse_bare_loader(self.trainer)
        restored, self._restored = self._restored, None
        if restored is None:
            return
        self._meter = EpochMeter.restored(restored["meter"], _METRICS, self.device)
        self._epoch_start_step = int(restored.get("epoch_start_step", self.trainer.global_step))
        self._schedule_entropy_coeff()
        restore_gradients(restored.get("gradients", {}), self)
        restore_random_state(restored["random_state"])

    def on_train_epoch_start(self) -> None:
        """Start the epoch's means, and set the entropy coefficient for this iteration."""
        self._meter = EpochMeter(_METRICS, self.device)
        self._epoch_start_step = self.trainer.global_step
        self._schedule_entropy_coeff()

    def _schedule_entropy_coeff(self) -> None:
        """Set the coefficient of this iteration, which is that of its first step."""
        if self.final_entropy_coeff is None:
            return
        done = self._fraction_done(self._epoch_start_step, float(self.trainer.estimated_stepping_batches))
        # Beside the loss's own, which may lie on a device: reading it waits.
        self._entropy_coeff_now = self.entropy_coeff + (self.final_entropy_coeff - self.entropy_coeff) * done
        self.loss.entropy_coeff.fill_(self._entropy_coeff_now)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means; the only time that the metrics leave the device."""
        metrics = self._meter.compute()
        if metrics:
            # mean(r) - 1 - mean(log r): unlike -mean(log r) alone it is never negative (Schulman 2020,
            # "Approximating KL divergence").
            self._adapt_learning_rate(metrics["mean_ratio"] - 1.0 + metrics["kl_approx"])
            optimizer = self.trainer.optimizers[0]
            metrics["learning_rate"] = float(optimizer.param_groups[0]["lr"])
            metrics["entropy_coeff"] = self._entropy_coeff_now
            self.log_dict({f"train/{name}": value for name, value in metrics.items()}, batch_size=1)

    def _adapt_learning_rate(self, kl: float) -> None:
        """Bring the next KL divergence nearer to the target; the schedule takes it over with its next step."""
        if self.kl_target is None:
            return
        if kl > 2.0 * self.kl_target:
            self._learning_rate_scale /= _KL_STEP
        elif kl < 0.5 * self.kl_target:
            self._learning_rate_scale *= _KL_STEP
        self._learning_rate_scale = min(max(self._learning_rate_scale, 1.0 / _KL_MOST), _KL_MOST)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write which game this is a checkpoint of, and what training needs to go on as if it had never stopped."""
        checkpoint[RESUME_KEY] = {
            "meter": self._meter.state(),
            "epoch_start_step": self._epoch_start_step,
            "learning_rate_scale": self._learning_rate_scale,
            "random_state": random_state(),
            "gradients": pending_gradients(self.trainer, self),
            "settings": settings(self.trainer, self),
        }
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
        faults = network_errors(checkpoint["state_dict"], self.state_dict(), path=path)
        if faults:
            raise ConfigError(faults)
        self._loaded = checkpoint
        self._restored = checkpoint.get(RESUME_KEY)  # a checkpoint of version 0.1 has none
        if self._restored is not None and self.kl_target is not None:
            self._learning_rate_scale = float(self._restored.get("learning_rate_scale", 1.0))

    def _game_spec(self) -> GameSpec | None:
        """The game given, or that of the data module."""
        if self._spec is not None or self._trainer is None:
            return self._spec
        collector: RolloutSource | None = getattr(getattr(self._trainer, "datamodule", None), "collector", None)
        return None if collector is None else collector.spec

    def _fraction_done(self, step: int, total_steps: float) -> float:
        """How much of the training is done, in [0, 1]: by steps where they are limited, else by ``max_time``.

        Time counts only where nothing else ends the training: a schedule by the clock makes no two runs alike.
        """
        if math.isfinite(total_steps):
            return min(1.0, step / max(total_steps, 1.0))
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer) and (remaining := callback.time_remaining()) is not None:
                elapsed = callback.time_elapsed()
                return min(1.0, elapsed / max(elapsed + remaining, 1e-9))
        return 0.0
