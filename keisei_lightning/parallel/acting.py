"""What a rollout asks of a policy, and the adapter for policies of TorchRL's making."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError

__all__ = ["ActingPolicy", "TensorDictActing", "acting_policy"]


class ActingPolicy(Protocol):
    """What a rollout needs of a policy (``ActorCritic`` has it; any TorchRL policy is wrapped)."""

    def act(
        self, observation: Tensor, action_mask: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choose: uint8 [B, *obs] and packed uint8 [B, ceil(A/8)] -> action [B], log-probability [B], value [B, 1]."""
        ...

    def value(self, observation: Tensor) -> Tensor:
        """State values [B, 1] in the mover's view."""
        ...


class TensorDictActing:
    """Any TorchRL policy that writes ``action``, ``action_log_prob`` and ``state_value``.

    TorchRL samples from torch's global generator, so this keeps a global state for each player and swaps it in.
    """

    def __init__(self, module: TensorDictModuleBase, num_actions: int) -> None:
        self._module = module
        self._num_actions = num_actions
        self.manual_seed(0)

    def manual_seed(self, seed: int) -> None:
        """Begin a random stream of its own."""
        self._rng_state = torch.Generator().manual_seed(seed).get_state()

    def _run(self, observation: Tensor, action_mask: Tensor) -> TensorDict:
        bits = torch.from_numpy(np.unpackbits(action_mask.cpu().numpy(), axis=-1, count=self._num_actions))
        mask = bits.bool().to(observation.device)
        data = TensorDict({"observation": observation, "action_mask": mask}, batch_size=observation.shape[:1])
        outer = torch.get_rng_state()
        torch.set_rng_state(self._rng_state)
        try:
            return self._module(data)
        finally:
            self._rng_state = torch.get_rng_state()
            torch.set_rng_state(outer)

    def act(
        self, observation: Tensor, action_mask: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choose by the module; ``generator`` is not used (see above)."""
        out = self._run(observation, action_mask)
        action = out["action"]
        if action.ndim == 2:  # TorchRL's one-hot form
            action = action.argmax(-1)
        return action, out["action_log_prob"], out["state_value"]

    def value(self, observation: Tensor) -> Tensor:
        """State values [B, 1] in the mover's view."""
        num_bytes = -(-self._num_actions // 8)
        everything = torch.full((len(observation), num_bytes), 255, dtype=torch.uint8)
        value: Tensor = self._run(observation, everything)["state_value"]
        return value


def acting_policy(policy: nn.Module, *, num_actions: int) -> ActingPolicy:
    """The acting side of a policy: itself if it has ``act`` and ``value``, else a wrapper around a TorchRL policy.

    Raises:
        ConfigError: it is neither.
    """
    if callable(getattr(policy, "act", None)) and callable(getattr(policy, "value", None)):
        return policy  # type: ignore[return-value]
    if isinstance(policy, TensorDictModuleBase):
        written = {"action", "action_log_prob", "state_value"}
        if missing := sorted(written - {key for key in policy.out_keys if isinstance(key, str)}):
            raise ConfigError(
                f"policy: its out_keys lack {missing}; self-play stores {sorted(written)}, so that advantages and the "
                "ratio can be computed (ProbabilisticActor: return_log_prob=True, log_prob_key='action_log_prob')"
            )
        return TensorDictActing(policy, num_actions)
    raise ConfigError(
        f"policy: {type(policy).__name__} has neither act() and value() (use ActorCritic(network)) "
        "nor is it a TensorDictModule"
    )
