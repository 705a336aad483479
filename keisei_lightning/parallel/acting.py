"""Policies that answer a rollout's questions: our own, and those of TorchRL's making."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from typing_extensions import override

from keisei_lightning.errors import ConfigError, RolloutError
from keisei_lightning.parallel.questions import Answer, MoveSource, Question

__all__ = ["ActingPolicy", "PolicyMoves", "TensorDictActing", "acting_policy"]


_NO_MOVES = np.zeros(0, np.int64), np.zeros(0, np.float32)


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


class PolicyMoves(MoveSource):
    """A policy in this process that answers a rollout's questions.

    Args:
        policy: on the device.
        device: where its weights are.
        generator: to sample with, on the device; None: one of its own. Several policies may share one.
        precision: "32-true", or "bf16-mixed": as Lightning's, so that a learner of that precision sees the same policy.
    """

    def __init__(
        self,
        policy: ActingPolicy,
        device: torch.device,
        generator: torch.Generator | None = None,
        *,
        precision: str = "32-true",
    ) -> None:
        self._policy, self._device, self._precision = policy, device, precision
        self._generator = torch.Generator(device=device) if generator is None else generator

    def beside(self, policy: ActingPolicy) -> PolicyMoves:
        """Another policy on the same device, which samples from the same random stream."""
        return PolicyMoves(policy, self._device, self._generator, precision=self._precision)

    @override
    def begin_rollout(self, seed: int) -> None:
        self._generator.manual_seed(seed)
        if isinstance(self._policy, TensorDictActing):
            self._policy.manual_seed(seed)

    @override
    @torch.inference_mode()
    def answer(self, question: Question) -> Answer:
        num_games = len(question.observation)
        observation = torch.from_numpy(question.observation).to(self._device)
        is_mixed = self._precision == "bf16-mixed"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_mixed):
            if question.legal is None:
                value = self._policy.value(observation)
                return Answer(*_NO_MOVES, _to_array("state_value", value, (num_games, 1)))
            legal = torch.from_numpy(question.legal).to(self._device)
            action, log_prob, value = self._policy.act(observation, legal, generator=self._generator)
        return Answer(
            _to_array("action", action, (num_games,)),
            _to_array("action_log_prob", log_prob, (num_games,)),
            _to_array("state_value", value, (num_games, 1)),
        )


def _to_array(name: str, tensor: Tensor, shape: tuple[int, ...]) -> NDArray[Any]:
    if tuple(tensor.shape) != shape:
        raise RolloutError(f"policy: {name} is {list(tensor.shape)}, must be {list(shape)}")
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
    return array
