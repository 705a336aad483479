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
from keisei_lightning.models.compiling import Judge, check_compile_mode
from keisei_lightning.models.transfers import module_to_device
from keisei_lightning.training.checkpoint_header import HEADER_KEY, RECIPE_KEY, CheckpointHeader, network_faults
from keisei_lightning.training.datamodule import MinibatchLoader
from keisei_lightning.training.meter import EpochMeter
from keisei_lightning.training.ppo_loss import LegalMovesPPOLoss
from keisei_lightning.training.random_state import random_state, restore_random_state
from keisei_lightning.training.recorded import RecordedModule
from keisei_lightning.training.source import RolloutSource
from keisei_lightning.training.weight_sync import missing_weight_sync

__all__ = ["LOSS_TERMS", "PPOModule"]

log = logging.getLogger(__name__)

_RESUME_KEY = "keisei_resume"
"""Where a checkpoint keeps what an epoch that is left in its middle needs to go on, and the random streams."""

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
    "explained_variance",
    "mean_ratio",
)


class PPOModule(RecordedModule):
    """Proximal policy optimisation of an actor-critic, for minibatches with advantages.

    Loss (Schulman et al. 2017, https://arxiv.org/abs/1707.06347), all three terms from one pass of the trunk::

        -min(r A, clip(r, 1 - eps, 1 + eps) A) + critic_coeff * distance(V, V_target) - entropy_coeff * entropy

    with r the ratio of the present to the behaviour policy's probability. A value head of win, draw and loss
    probabilities is trained through its expected score, which is its state value.

    Metrics, each the mean over an epoch's minibatches and logged once per epoch (so that no minibatch waits for the
    device): ``train/<term>`` of the loss, ``train/entropy``, ``train/kl_approx``, ``train/clip_fraction``,
    ``train/ESS`` (effective sample size over the minibatch's size), ``train/explained_variance``, ``train/mean_ratio``,
    ``train/learning_rate``, ``train/entropy_coeff``, ``train/grad_norm`` (with ``gradient_clip_val``), and of the
    epoch's first minibatch ``train/first_kl`` and ``train/first_ratio``: 0 and 1 if learner and workers hold the same
    weights and treat the legal moves alike.

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

    Raises:
        ConfigError: a number that cannot work.
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
        _check_numbers(locals())
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
        self._judge: Judge | None = None  # compiled, while there is a fit
        self._compiling_since: float | None = None  # perf_counter() when the first minibatch began
        self._is_to_compile = False
        self._spec = spec
        self._recipe = recipe
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
            ),
        )
        self._learning_rate_scale = 1.0
        self._entropy_coeff_now = entropy_coeff
        self._meter = EpochMeter(_METRICS, torch.device("cpu"))
        self._restored: dict[str, Any] | None = None

    @property
    def loss(self) -> ClipPPOLoss:
        """TorchRL's loss module."""
        return self._losses[0]

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Judge positions: uint8 [B, *observation_shape] -> logits float32 [B, A], state value float32 [B, 1]."""
        logits, state_value = self.actor_critic(observation)
        return logits, state_value

    def training_step(self, minibatch: TensorDictBase, batch_idx: int) -> Tensor:
        """Loss of one minibatch.

        Args:
            minibatch: TensorDict [b] with ``observation``, ``action_mask``, ``action``, ``action_log_prob``,
                ``state_value``, ``advantage`` and ``value_target``.
            batch_idx: number of the minibatch in this epoch.
        """
        judge = self.actor_critic if self._judge is None else self._judge
        logits, state_value = judge(minibatch.get("observation"))
        data = minibatch.clone(recurse=False)
        data.set("logits", logits)
        data.set(NEW_STATE_VALUE, state_value)
        losses = self.loss(data)
        self._meter.add(losses)
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
        if self.final_learning_rate is None and self.kl_target is None:
            return optimizer
        ratio = 1.0 if self.final_learning_rate is None else self.final_learning_rate / self.learning_rate
        total_steps = float(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            done = self._fraction_done(step, total_steps) if ratio != 1.0 else 0.0
            return self._learning_rate_scale * (1.0 + (ratio - 1.0) * done)

        scheduler = LambdaLR(optimizer, factor)
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

    def on_fit_start(self) -> None:
        """Bring the loss's own buffers to the module's device, and have the network compiled by its first pass."""
        module_to_device(self.loss, self.device)
        if self.compile_mode is not None:
            # Dynamic: minibatches differ by a ply. A function, and not a module: that would have weights to save.
            self._judge = torch.compile(self.actor_critic.forward, mode=self.compile_mode, dynamic=True)
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
        self._judge = None

    def on_train_start(self) -> None:
        """Go on exactly where a checkpoint stopped: Lightning begins no epoch anew that was left in its middle.

        Raises:
            ConfigError: the trainer was given the loader of a data module, and not the data module.
        """
        loader = self.trainer.train_dataloader
        if isinstance(loader, MinibatchLoader) and not loader.is_attached:
            raise ConfigError(
                "train_dataloaders=MinibatchLoader: nobody would publish weights or stop the workers; give the data "
                "module itself, as Trainer.fit(..., datamodule=data)"
            )
        restored, self._restored = self._restored, None
        if restored is None:
            return
        self._meter = EpochMeter.restored(restored["meter"], _METRICS, self.device)
        if self.final_entropy_coeff is not None:  # else it is what the configuration says now
            self._set_entropy_coeff(restored["entropy_coeff"])
        restore_random_state(restored["random_state"])

    def on_train_epoch_start(self) -> None:
        """Start the epoch's means, and set the entropy coefficient for this iteration."""
        self._meter = EpochMeter(_METRICS, self.device)
        if self.final_entropy_coeff is not None:
            done = self._fraction_done(self.trainer.global_step, float(self.trainer.estimated_stepping_batches))
            coefficient = self.entropy_coeff + (self.final_entropy_coeff - self.entropy_coeff) * done
            self._set_entropy_coeff(coefficient)

    def _set_entropy_coeff(self, coefficient: float) -> None:
        self._entropy_coeff_now = coefficient  # beside the loss's own, which may lie on a device: reading it waits
        self.loss.entropy_coeff.fill_(coefficient)

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
        checkpoint[_RESUME_KEY] = {
            "meter": self._meter.state(),
            "entropy_coeff": self._entropy_coeff_now,
            "learning_rate_scale": self._learning_rate_scale,
            "random_state": random_state(),
        }
        spec = self._game_spec()
        if spec is not None:
            checkpoint[HEADER_KEY] = CheckpointHeader.of(spec).to_dict()
        if self._recipe is not None:
            checkpoint[RECIPE_KEY] = dict(self._recipe)

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
        faults = network_faults(checkpoint["state_dict"], self.state_dict(), path=path)
        if faults:
            raise ConfigError(faults)
        self._restored = checkpoint.get(_RESUME_KEY)  # a checkpoint of version 0.1 has none
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


def _check_numbers(options: Mapping[str, Any]) -> None:
    """Raise one ``ConfigError`` for all numbers that cannot work."""
    faults = []
    if not 0 < options["clip_epsilon"] < 1:
        faults.append(f"clip_epsilon={options['clip_epsilon']}: must be above 0 and below 1")
    above_zero = ("critic_coeff", "learning_rate", "adam_eps", "kl_target")
    from_zero = ("entropy_coeff", "final_entropy_coeff", "final_learning_rate", "weight_decay")
    faults += [
        f"{key}={options[key]}: must be above 0"
        for key in above_zero
        if options[key] is not None and not options[key] > 0
    ]
    faults += [
        f"{key}={options[key]}: must be 0 or more"
        for key in from_zero
        if options[key] is not None and not options[key] >= 0
    ]
    if options["clip_value"] is not None and not options["clip_value"] > 0:
        faults.append(f"clip_value={options['clip_value']}: must be above 0, or null for no limit")
    faults += check_compile_mode("compile_mode", options["compile_mode"])
    if options["critic_loss"] not in ("l2", "smooth_l1", "l1"):
        faults.append(f"critic_loss={options['critic_loss']}: must be l2, smooth_l1 or l1")
    if faults:
        raise ConfigError(faults)
