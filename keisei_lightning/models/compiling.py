"""``torch.compile`` for networks: an option of learners and players that costs time before the first batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.system.compile_modes import COMPILE_MODES

__all__ = ["Evaluator", "FixedBatches", "check_compile_mode", "compile_for_batches"]

Evaluator = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Observations [B, *obs] to logits [B, A] and state values [B, 1]."""

_log = logging.getLogger(__name__)


def check_compile_mode(key: str, mode: str | None, policy: nn.Module | None = None) -> list[str]:
    """Errors of an option that names a mode of ``torch.compile``: no line, or one.

    Args:
        key: the option's name.
        mode: the option's value; None: no compilation.
        policy: the policy whose ``network`` is to be compiled.
    """
    if mode is None:
        return []
    if mode not in COMPILE_MODES:
        return [f"{key}={mode}: must be None or one of {', '.join(COMPILE_MODES)}"]
    if policy is not None and not isinstance(getattr(policy, "network", None), nn.Module):
        return [f"{key}={mode}: must be None for a policy without a module 'network' (ActorCritic has one)"]
    return []


class FixedBatches:
    """Evaluates positions in batches of one size: a smaller batch is padded, a larger one is split.

    ``torch.compile`` would compile again for another size, which takes longer than a worker's heartbeat allows; and
    CUDA graphs have one shape.

    Args:
        evaluator: evaluates batches of ``batch_size`` positions.
        batch_size: that size.
    """

    def __init__(self, evaluator: Evaluator, batch_size: int) -> None:
        self._evaluator, self._batch_size = evaluator, batch_size

    def __call__(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate positions: uint8 [B, *obs] to logits [B, A] and state values [B, 1]."""
        if len(observation) == self._batch_size:
            return self._evaluator(observation)
        # Copies: a CUDA graph writes the next part's results where this part's lie.
        parts = [
            tuple(out.clone() for out in self._evaluate_part(part)) for part in observation.split(self._batch_size)
        ]
        logits, state_value = (torch.cat(column) for column in zip(*parts, strict=True))
        return logits, state_value

    def _evaluate_part(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        given = len(observation)
        missing = observation.new_zeros(self._batch_size - given, *observation.shape[1:])
        logits, state_value = self._evaluator(torch.cat([observation, missing]))
        return logits[:given], state_value[:given]


def compile_for_batches(policy: nn.Module, *, mode: str, batch_size: int, warm_up: Callable[[], object]) -> float:
    """Compile a policy's network for one batch size, in place.

    Parameters, buffers and their names stay as they are.

    Args:
        policy: has a module ``network``, as :class:`~keisei_lightning.models.ActorCritic`.
        mode: one of :data:`COMPILE_MODES`.
        batch_size: boards of one forward pass.
        warm_up: evaluates so many positions by the policy, as it will be used later.

    Returns:
        Seconds that the compilation took.

    Raises:
        ConfigError: ``torch.compile`` failed (no C++ compiler, say, or code that it does not support).
    """
    network = policy.network
    assert isinstance(network, nn.Module)
    network.forward = FixedBatches(torch.compile(network.forward, mode=mode, dynamic=False), batch_size)
    start = time.perf_counter()
    try:
        warm_up()
    except Exception as error:
        raise ConfigError(f"compile_mode={mode}: the network could not be compiled: {error}") from error
    seconds = time.perf_counter() - start
    _log.info("network compiled (%s) in %.1f s", mode, seconds)
    return seconds
