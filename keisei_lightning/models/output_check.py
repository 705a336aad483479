"""Checks that a network fits a game: once, when a collector, a module or a player gets it, before anything plays."""

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
    """Refuse a network whose outputs do not fit a game.

    The network evaluates two observations of zeros. Its parameters, buffers (the statistics of a batch normalisation,
    say) and modes stay as they are, and so do torch's random streams.

    Args:
        policy: maps uint8 observations [B, *observation_shape] to logits [B, A] and state values [B, 1]; an
            :class:`~keisei_lightning.models.ActorCritic`, or its network.
        spec: the game.
        key: the option's name in the message.

    Raises:
        ConfigError: a line for each output that does not fit.
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
    if errors := list(output_errors(outputs, _PROBES, spec)) or list(_unit_errors(outputs[1])):
        raise ConfigError([f"{name}: {error}" for error in errors])


def probe_module(module: nn.Module, call: Callable[[nn.Module], Outputs]) -> Outputs:
    """Call a module in evaluation mode, without gradients and without side effects.

    Args:
        module: on any device.
        call: gets a copy of the module that shares its parameters.

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
    """Errors in the shapes and dtypes of a network's outputs. No number is read, so no device is waited for.

    Args:
        outputs: result of a forward pass.
        num_rows: positions in that pass.
        spec: the game.

    Yields:
        A line that says what is wrong.
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
