"""Does a network fit a game? Asked once, when a collector, a module or a player is given it, before anything plays."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec

__all__ = ["MAX_STATE_VALUE", "check_network", "output_errors", "probe_module"]

Outputs = TypeVar("Outputs")

MAX_STATE_VALUE: Final = 2.0
"""Results lie in [-1, 1]. A head without a bound may overshoot them a little; what is larger is of another unit."""

_PROBES: Final = 2  # positions: with one, a value that is a mean over the batch would look right


def check_network(policy: nn.Module, spec: GameSpec, *, key: str = "network") -> None:
    """Refuse a network whose results are not those of a game.

    It evaluates two observations of zeros. What it is made of stays as it was: parameters, buffers (the statistics of a
    batch normalisation, say), modes, and torch's random streams.

    Args:
        policy: maps uint8 observations [B, *observation_shape] to logits [B, A] and state values [B, 1]; an
            :class:`~keisei_lightning.models.ActorCritic`, or its network.
        spec: of the game.
        key: what is named in the message.

    Raises:
        ConfigError: with a line for each fault.
    """
    name = f"{key}={type(getattr(policy, 'network', policy)).__name__}"
    observation = torch.zeros(_PROBES, *spec.observation_shape, dtype=torch.uint8, device=_device_of(policy))
    try:
        outputs: Any = probe_module(policy, lambda probe: probe(observation))
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ConfigError(
            f"{name}: cannot evaluate observations uint8 {list(observation.shape)} of {spec.name} ({reason})"
        ) from error
    faults = list(output_errors(outputs, _PROBES, spec)) or list(_unit_errors(outputs[1]))
    if faults:
        raise ConfigError([f"{name}: {fault}" for fault in faults])


def probe_module(module: nn.Module, call: Callable[[nn.Module], Outputs]) -> Outputs:
    """Call a module in evaluation mode, without gradients, and leave no trace of it.

    Args:
        module: on any device.
        call: is given a module that has its parameters.

    Returns:
        What ``call`` returns.
    """
    # A copy of everything but the parameters: a forward pass may write to buffers and to attributes.
    probe = copy.deepcopy(module, {id(parameter): parameter for parameter in module.parameters()}).eval()
    device = _device_of(module)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        return call(probe)


def _device_of(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def output_errors(outputs: object, num_rows: int, spec: GameSpec) -> Iterator[str]:
    """What is wrong with the shapes and dtypes of a network's results; no number is read, so no device is waited for.

    Args:
        outputs: of a forward pass.
        num_rows: positions that it was given.
        spec: of the game.
    """
    if not isinstance(outputs, tuple) or len(outputs) != 2 or not all(isinstance(part, Tensor) for part in outputs):
        yield f"gives {_kind(outputs)}; must give two tensors, logits and state values"
        return
    logits, value = outputs
    for what, tensor, shape, meaning in (
        ("logits", logits, (num_rows, spec.num_actions), f"one for each action of {spec.name}"),
        ("state values", value, (num_rows, 1), "the expected result for the mover"),
    ):
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            yield f"its {what} are {dtype} {list(tensor.shape)}; must be floating point {list(shape)}, {meaning}"
            return


def _unit_errors(value: Tensor) -> Iterator[str]:
    """Whether state values are expected results, and not pawns or rating points."""
    if (furthest := float(value.detach().float().abs().max())) > MAX_STATE_VALUE:
        yield f"its state values reach {furthest:.3g}; must be expected results for the mover, from -1 to 1"


def _kind(outputs: object) -> str:
    if isinstance(outputs, tuple):
        return f"a tuple of {', '.join(type(part).__name__ for part in outputs)}"
    return f"a {type(outputs).__name__}"
