"""Policies that serve a rollout's requests in this process: our own, and any that TorchRL can make."""

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
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.models.actor_critic import ActorCritic
from keisei_lightning.models.bitmask import unpack_mask
from keisei_lightning.models.output_check import check_network, probe_module
from keisei_lightning.models.transfers import fetch_tensors, to_device
from keisei_lightning.parallel.policy.inference_requests import (
    CompletedResult,
    InferenceRequest,
    InferenceResult,
    PendingResult,
    PolicyServer,
)

__all__ = ["ActingPolicy", "LocalPolicyServer", "TensorDictActing", "acting_policy", "check_policy", "new_generator"]

_NO_MOVES = np.zeros(0, np.int64), np.zeros(0, np.float32)

Evaluation = tuple[Tensor, ...]
"""On the policy's device: action int64 [B], log-probability float32 [B], value float32 [B, 1]; or only the value."""


class ActingPolicy(Protocol):
    """The interface that a policy needs to play (``ActorCritic`` has it; any TorchRL policy is wrapped)."""

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

    TorchRL samples from torch's global generator. So each wrapper keeps a state of that generator, and swaps it in.
    """

    def __init__(self, module: TensorDictModuleBase, num_actions: int) -> None:
        self._module = module
        self._num_actions = num_actions
        self.manual_seed(0)

    def manual_seed(self, seed: int) -> None:
        """Begin this wrapper's own random stream."""
        self._seed: int | None = seed
        self._rng_state = torch.empty(0, dtype=torch.uint8)

    def _run(self, observation: Tensor, action_mask: Tensor) -> TensorDict:
        mask = unpack_mask(action_mask, self._num_actions)
        data = TensorDict({"observation": observation, "action_mask": mask}, batch_size=observation.shape[:1])
        outer = _get_global_stream(observation.device)
        if self._seed is not None:  # a stream begins
            self._rng_state, self._seed = new_generator(observation.device).manual_seed(self._seed).get_state(), None
        _set_global_stream(self._rng_state, observation.device)
        try:
            return self._module(data)
        finally:
            self._rng_state = _get_global_stream(observation.device)
            _set_global_stream(outer, observation.device)

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
        everything = torch.full((len(observation), num_bytes), 255, dtype=torch.uint8, device=observation.device)
        value: Tensor = self._run(observation, everything)["state_value"]
        return value


def new_generator(device: torch.device) -> torch.Generator:
    """A random stream on a device."""
    return torch.Generator(device=device)


def _get_global_stream(device: torch.device) -> Tensor:
    """State of the generator that TorchRL samples from there."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_global_stream(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


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


def check_policy(policy: nn.Module, spec: GameSpec) -> None:
    """Refuse a policy that cannot play a game, before a worker is started. The policy is not changed.

    Args:
        policy: an ``ActorCritic``, whose network is looked at; or what :func:`acting_policy` takes, which must find the
            one legal action on two boards.
        spec: of the game.

    Raises:
        ConfigError: it cannot.
    """
    acting_policy(policy, num_actions=spec.num_actions)
    if isinstance(policy, ActorCritic):
        check_network(policy, spec)
        return
    last, name = spec.num_actions - 1, type(policy).__name__
    device = next((parameter.device for parameter in policy.parameters()), torch.device("cpu"))
    observation = torch.zeros(2, *spec.observation_shape, dtype=torch.uint8, device=device)
    legal = torch.zeros(2, spec.mask_bytes, dtype=torch.uint8, device=device)
    legal[:, last // 8] = 128 >> last % 8

    def act(probe: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        return acting_policy(probe, num_actions=spec.num_actions).act(
            observation, legal, generator=new_generator(device)
        )

    try:
        action, log_prob, value = probe_module(policy, act)
        reason = _shape_error((action, log_prob, value), len(observation))
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ConfigError(f"policy={name}: cannot choose on boards of {spec.name} ({reason})") from error
    if not reason and (action != last).any():
        reason = f"chooses {action.tolist()} on two boards of {spec.name} where {last} alone is legal"
    if reason:
        raise ConfigError(f"policy={name}: {reason}")


class LocalPolicyServer(PolicyServer):
    """Serves requests by a policy in this process.

    Args:
        policy: on the device.
        device: where its weights are.
        generator: samples the actions, on the device; None: a new one. Several policies may share one.
        precision: "32-true", or "bf16-mixed": as Lightning's, so that a learner of that precision sees the same policy.

    Attributes:
        device: where the weights are.
        generator: samples the actions.
    """

    def __init__(
        self,
        policy: ActingPolicy,
        device: torch.device,
        generator: torch.Generator | None = None,
        *,
        precision: str = "32-true",
    ) -> None:
        self._policy, self.device, self._precision = policy, device, precision
        self.generator = new_generator(device) if generator is None else generator

    def with_policy(self, policy: ActingPolicy) -> LocalPolicyServer:
        """A server of another policy on the same device, which samples from the same random stream."""
        return LocalPolicyServer(policy, self.device, self.generator, precision=self._precision)

    @property
    def is_capturable(self) -> bool:
        """Whether a CUDA graph may capture a pass: the policy keeps no state on the CPU meanwhile."""
        return not isinstance(self._policy, TensorDictActing)

    @override
    def begin_rollout(self, seed: int) -> None:
        self.generator.manual_seed(seed)
        if isinstance(self._policy, TensorDictActing):
            self._policy.manual_seed(seed)

    @torch.inference_mode()
    def evaluate(self, observation: Tensor, legal: Tensor | None) -> Evaluation:
        """Sample actions, or only evaluate positions; the results stay on the device.

        Args:
            observation: uint8 [B, *observation_shape], on the device.
            legal: packed uint8 [B, ceil(A / 8)], on the device; None: only the state values are wanted.

        Raises:
            RolloutError: the policy's results are of a wrong shape or dtype.
        """
        is_mixed = self._precision == "bf16-mixed"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=is_mixed):
            if legal is None:
                results: Evaluation = (self._policy.value(observation),)
            else:
                results = self._policy.act(observation, legal, generator=self.generator)
        if error := _shape_error(results, len(observation)):
            raise RolloutError(f"policy: {error}")
        return tuple(tensor.float() if tensor.is_floating_point() else tensor for tensor in results)

    def evaluate_request(self, request: InferenceRequest) -> Evaluation:
        """Transfer a request to the device and evaluate it there; see :meth:`evaluate`."""
        observation = to_device(torch.from_numpy(request.observation), self.device)
        legal = None if request.legal is None else to_device(torch.from_numpy(request.legal), self.device)
        return self.evaluate(observation, legal)

    @override
    def infer(self, request: InferenceRequest) -> InferenceResult:
        return self.submit(request).result()

    @override
    def submit(self, request: InferenceRequest) -> PendingResult:
        return self.fetch(self.evaluate_request(request))

    def fetch(self, evaluation: Evaluation) -> PendingResult:
        """Begin to transfer an evaluation from the device."""
        if self.device.type == "cpu":
            return CompletedResult(_to_result([tensor.numpy() for tensor in evaluation]))
        return _FetchedResult(evaluation)


_NAMES = ("action", "action_log_prob", "state_value")


def _shape_error(evaluation: Evaluation, num_games: int) -> str:
    """What is wrong with the first result of a wrong shape or dtype; empty where all are right."""
    shapes = ((num_games,), (num_games,), (num_games, 1))[-len(evaluation) :]
    for name, tensor, shape in zip(_NAMES[-len(evaluation) :], evaluation, shapes, strict=True):
        if tuple(tensor.shape) != shape:
            return f"{name} is {list(tensor.shape)}, must be {list(shape)}"
        if tensor.is_floating_point() == (name == "action") or tensor.dtype == torch.bool:
            wanted = "integers" if name == "action" else "floating point"
            return f"{name} is {str(tensor.dtype).removeprefix('torch.')}, must be {wanted}"
    return ""


class _FetchedResult(PendingResult):
    """A result whose one transfer from the device is in progress.

    Args:
        evaluation: see :meth:`LocalPolicyServer.evaluate`.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self._fetch, self._arrays = fetch_tensors(evaluation)

    @override
    def is_done(self) -> bool:
        return self._fetch.is_done()

    @override
    def result(self) -> InferenceResult:
        self._fetch.wait()
        return _to_result(self._arrays)


def _to_result(arrays: list[NDArray[Any]]) -> InferenceResult:
    return InferenceResult(*arrays) if len(arrays) == len(_NAMES) else InferenceResult(*_NO_MOVES, *arrays)
