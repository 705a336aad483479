"""A network that chooses moves and evaluates positions: plain tensors for workers, TensorDict modules for TorchRL."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import InteractionType, TensorDictModule, TensorDictModuleBase
from torch import Tensor, nn
from torchrl.envs.utils import exploration_type
from torchrl.modules import ProbabilisticActor

from keisei_lightning.models.distribution import LegalCategorical
from keisei_lightning.models.drawing import draw_moves

__all__ = ["NEW_STATE_VALUE", "ActorCritic", "logits_actor", "value_selector"]

NEW_STATE_VALUE = "new_state_value"
"""Key under which :meth:`ActorCritic.as_evaluator` writes the current state value.

``state_value`` stays the behaviour policy's: clipping the value loss compares with it.
"""


class ActorCritic(nn.Module):
    """A policy over legal moves and a state value from one trunk.

    Args:
        network: maps uint8 observations [B, *observation_shape], of zeros too, to logits float [B, A] and state values
            float [B, 1], the expected result for the mover, from -1 to 1. All its values must live in parameters and
            buffers, because workers are sent its structure once and those tensors at every publish. One with a head of
            win, draw and loss has ``predicts_outcomes`` and ``evaluate_outcomes`` too
            (:class:`~keisei_lightning.models.two_heads.TwoHeads`).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate positions.

        Args:
            observation: uint8 [B, *observation_shape].

        Returns:
            logits float32 [B, A] of all actions, legal or not, and state value float32 [B, 1].
        """
        return self.network(observation)  # type: ignore[no-any-return]

    @property
    def predicts_outcomes(self) -> bool:
        """Whether the network has a head of win, draw and loss."""
        return bool(getattr(self.network, "predicts_outcomes", False))

    def evaluate_outcomes(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate positions by a network with a head of win, draw and loss.

        Args:
            observation: uint8 [B, *observation_shape].

        Returns:
            logits float32 [B, A] and log-probabilities float32 [B, 3] of the mover's win, draw and loss.
        """
        return self.network.evaluate_outcomes(observation)  # type: ignore[operator, no-any-return]

    def value(self, observation: Tensor) -> Tensor:
        """State value float32 [B, 1] of positions uint8 [B, *observation_shape], in the mover's view."""
        return self(observation)[1]  # type: ignore[no-any-return]

    def act(
        self,
        observation: Tensor,
        action_mask: Tensor,
        *,
        generator: torch.Generator | None = None,
        greedy: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choose moves. No gradient is needed; the caller sets the inference mode.

        Args:
            observation: uint8 [B, *observation_shape].
            action_mask: bit-packed uint8 [B, ceil(A / 8)] or bool [B, A].
            generator: source of random numbers; the default one where None.
            greedy: choose the most probable move instead of a sample.

        Returns:
            action int64 [B] (``NO_MOVE`` for a row without a legal move, and for one whose legal logits are no
            distribution), its log-probability float32 [B] under this policy (0 for the former, not finite for the
            latter), and the state value float32 [B, 1].
        """
        logits, state_value = self(observation)
        if logits.device.type == "cpu":
            return *draw_moves(logits, action_mask, generator=generator, greedy=greedy), state_value
        distribution = LegalCategorical(logits, action_mask)
        action = distribution.mode if greedy else distribution.sample_with(generator)
        return action, distribution.log_prob(action), state_value

    def as_policy(self) -> TensorDictModule:
        """A TorchRL policy: writes ``action``, ``action_log_prob`` and ``state_value`` from one pass of the trunk.

        It is greedy under ``set_exploration_type(ExplorationType.DETERMINISTIC)`` (or ``MODE``) and samples otherwise.
        """
        return TensorDictModule(
            _Policy(self),
            in_keys=["observation", "action_mask"],
            out_keys=["action", "action_log_prob", "state_value"],
        )

    def as_actor(self) -> ProbabilisticActor:
        """A TorchRL actor: ``observation``, ``action_mask`` to ``logits``, ``action``, ``action_log_prob``."""
        return _legal_actor(TensorDictModule(self, in_keys=["observation"], out_keys=["logits", "_"]))

    def as_critic(self) -> TensorDictModule:
        """A TorchRL value operator: ``observation`` to ``state_value``."""
        return TensorDictModule(self, in_keys=["observation"], out_keys=["_", "state_value"])

    def as_evaluator(self) -> TensorDictModule:
        """One pass of the trunk for a whole PPO loss: ``observation`` to ``logits`` and ``new_state_value``.

        With :func:`logits_actor` and :func:`value_selector` the loss then costs one pass instead of two::

            loss = ClipPPOLoss(logits_actor(), value_selector(), functional=False)
            losses = loss(actor_critic.as_evaluator()(minibatch))
        """
        return TensorDictModule(self, in_keys=["observation"], out_keys=["logits", NEW_STATE_VALUE])


class _Policy(nn.Module):
    """``ActorCritic.act`` as a module, following TorchRL's exploration type."""

    def __init__(self, actor_critic: ActorCritic) -> None:
        super().__init__()
        self.actor_critic = actor_critic

    def forward(self, observation: Tensor, action_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        greedy = exploration_type() in (InteractionType.DETERMINISTIC, InteractionType.MODE)
        return self.actor_critic.act(observation, action_mask, greedy=greedy)


class _Passthrough(TensorDictModuleBase):
    """Copies an entry of a TensorDict to another key, in a tenth of the time of a ``TensorDictModule`` of an identity.

    Args:
        in_key: key of the entry.
        out_key: key of the copy.
    """

    def __init__(self, in_key: str, out_key: str) -> None:
        super().__init__()
        self.in_keys, self.out_keys = [in_key], [out_key]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict.set(self.out_keys[0], tensordict.get(self.in_keys[0]))
        return tensordict


def logits_actor() -> ProbabilisticActor:
    """An actor without parameters: reads ``logits`` and ``action_mask`` from the TensorDict."""
    return _legal_actor(_Passthrough("logits", "logits"))


def value_selector() -> TensorDictModuleBase:
    """A critic without parameters: writes ``new_state_value`` as ``state_value``."""
    return _Passthrough(NEW_STATE_VALUE, "state_value")


def _legal_actor(module: TensorDictModuleBase) -> ProbabilisticActor:
    """Put a :class:`LegalCategorical` over ``logits`` and ``action_mask`` behind a module that writes ``logits``."""
    return ProbabilisticActor(
        module=module,
        in_keys=["logits", "action_mask"],
        out_keys=["action"],
        distribution_class=LegalCategorical,
        return_log_prob=True,
        default_interaction_type=InteractionType.RANDOM,
    )
