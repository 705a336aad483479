"""TorchRL's clipped PPO loss, with a trust region around a policy of one's choice, and without waits for the device."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.objectives import ClipPPOLoss
from typing_extensions import override

from keisei_lightning.models import logits_actor, value_selector
from keisei_lightning.training.options import PPOOptions

__all__ = [
    "LOSS_TERMS",
    "MAX_IMPORTANCE",
    "OUTCOME_LOG_PROBS",
    "OUTCOME_TARGET",
    "PROXIMAL_LOG_PROB",
    "LegalMovesPPOLoss",
    "make_loss",
]

LOSS_TERMS: Final = ("loss_objective", "loss_critic", "loss_entropy")
"""The parts of the loss; their sum is minimised."""

OUTCOME_TARGET: Final = "outcome_target"
"""Key of a minibatch: probabilities of the mover's win, draw and loss, float32 [b, 3], for a head that learns them."""

OUTCOME_LOG_PROBS: Final = "outcome_log_probs"
"""Key under which the loss finds what such a head says, float [b, 3]."""

PROXIMAL_LOG_PROB: Final = "proximal_log_prob"
"""Key of a minibatch: logarithm of the proximal policy's probability of each action, where it is not the behaviour
policy. Without it the two are one."""

MAX_IMPORTANCE: Final = 5.0
"""Bound of the weight of a ply that the proximal policy likes much better than the one that played it."""


class LegalMovesPPOLoss(ClipPPOLoss):
    r"""``ClipPPOLoss`` for a policy whose entropy is known in closed form, with the decoupled objective.

    With :math:`\beta` the behaviour policy (``action_log_prob``), :math:`\pi` the proximal one
    (:data:`PROXIMAL_LOG_PROB`) and :math:`r = \pi_\theta / \pi`, the objective is

    .. math::
        w \min(r A, \operatorname{clip}(r, 1 - \epsilon, 1 + \epsilon) A), \qquad w = \min(\pi / \beta, 5)

    which is PPO's own where the minibatch has no proximal policy, or where it is the behaviour policy.

    TorchRL's own looks in every minibatch whether the entropy is finite, to estimate it from samples otherwise. For
    that an accelerator is waited for; and an entropy over legal moves is finite wherever the logits are.

    Adds to TorchRL's metrics ``behaviour_kl``, mean of log(beta / pi_theta), and ``behaviour_ratio``, mean of
    pi_theta / beta: where learner and workers disagree about a policy, these show it. ``mean_ratio``, like
    ``kl_approx`` and ``clip_fraction``, is of the present policy and the proximal one; ``ESS`` is of the weights w r.

    References:
        J. Hilton, K. Cobbe, J. Schulman (2022), "Batch size-invariance for policy optimization", arXiv:2110.00641,
        equation 3. The bound of w is ours.
    """

    @override
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Terms of the loss and metrics of a minibatch [b]; each is one float32 number.

        Args:
            tensordict: as ``ClipPPOLoss`` takes it, and where the objective is to be decoupled
                :data:`PROXIMAL_LOG_PROB`, float32 [b].
        """
        losses: TensorDictBase = super().forward(tensordict)
        log_ratio, self._log_ratio = self._log_ratio, None
        assert log_ratio is not None
        if PROXIMAL_LOG_PROB not in tensordict.keys():  # noqa: SIM118 - a TensorDict's `in` is not for keys
            losses.set("behaviour_kl", losses.get("kl_approx"))
            losses.set("behaviour_ratio", losses.get("mean_ratio"))
            return losses
        to_proximal = _log_importance(tensordict)
        losses.set("mean_ratio", log_ratio.exp().mean())
        losses.set("behaviour_kl", -(log_ratio + to_proximal).mean())
        losses.set("behaviour_ratio", (log_ratio + to_proximal).exp().mean())
        return losses

    _log_ratio: Tensor | None = None  # log(pi_theta / pi) [b], while there is a forward pass

    @override
    def _log_weight(self, tensordict: TensorDictBase, adv_shape: torch.Size) -> tuple[Tensor, Any, Tensor, Any]:
        proximal = tensordict.get(PROXIMAL_LOG_PROB, None)
        log_importance = None
        if proximal is not None:
            # The last of the four is TorchRL's own place for log(proximal / behaviour), which is without gradient.
            log_importance = _log_importance(tensordict).clamp(max=math.log(MAX_IMPORTANCE)).unsqueeze(-1)
            tensordict = tensordict.clone(False).set("action_log_prob", proximal)
        log_weight, distribution, kl_approx, _ = super()._log_weight(tensordict, adv_shape)
        self._log_ratio = log_weight.detach().squeeze(-1)
        return log_weight, distribution, kl_approx, log_importance

    @override
    def loss_critic(self, tensordict: TensorDictBase) -> tuple[Tensor | None, ...]:
        """Cross-entropy of win, draw and loss, where the minibatch has targets of them; else the distance of values."""
        target, log_probs = (tensordict.get(key, None) for key in (OUTCOME_TARGET, OUTCOME_LOG_PROBS))
        if target is None or log_probs is None:
            result: tuple[Tensor | None, ...] = super().loss_critic(tensordict)
            return result
        cross_entropy = -(target * log_probs.float()).sum(-1, keepdim=True)
        return self.critic_coeff * cross_entropy, None, None

    @override
    def _get_entropy(self, dist: Any, adv_shape: Any) -> Tensor:
        entropy: Tensor = dist.entropy()
        return entropy.unsqueeze(-1)


def make_loss(options: PPOOptions) -> LegalMovesPPOLoss:
    """The loss of minibatches whose ``logits`` and new state values are computed before, in one pass of the network.

    Args:
        options: its coefficients, its clipping, and the distance of values.
    """
    return LegalMovesPPOLoss(
        logits_actor(),
        value_selector(),
        functional=False,
        clip_epsilon=options.clip_epsilon,
        entropy_bonus=True,
        entropy_coeff=options.entropy_coeff,
        critic_coeff=options.critic_coeff,
        loss_critic_type=options.critic_loss,
        clip_value=options.clip_value,
        normalize_advantage=False,
        log_explained_variance=False,  # of each minibatch; the meter computes that of the epoch
    )


def _log_importance(tensordict: TensorDictBase) -> Tensor:
    """float32 [b]: log(pi / beta) of each action."""
    difference: Tensor = tensordict.get(PROXIMAL_LOG_PROB) - tensordict.get("action_log_prob")
    return difference
