"""Networks by name, with their options checked."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.models.equivariance import equivariance_errors
from keisei_lightning.models.mlp import MLPNetwork
from keisei_lightning.models.options import NetworkKind, NetworkOptions, ValueKind
from keisei_lightning.models.registry import NETWORKS, OUR_NETWORKS, recorded_network_error
from keisei_lightning.models.resnet import ResidualNetwork

__all__ = ["build_network", "build_recorded_network", "num_parameters"]


def build_network(
    spec: GameSpec,
    *,
    kind: NetworkKind = NetworkOptions.kind,
    num_blocks: int = NetworkOptions.num_blocks,
    channels: int = NetworkOptions.channels,
    value_head: ValueKind = NetworkOptions.value_head,
    equivariant: bool = NetworkOptions.equivariant,
) -> nn.Module:
    """Make a network for a game.

    Args:
        spec: the game.
        kind: as all that follows, see :class:`~keisei_lightning.models.options.NetworkOptions`.
        num_blocks: its depth.
        channels: its width.
        value_head: its kind of value.
        equivariant: whether it is symmetric by construction.

    Returns:
        A module that maps uint8 observations [B, *observation_shape] to logits float32 [B, A] and state values float32
        [B, 1], both in the mover's view.

    Raises:
        ConfigError: a value is illegal (a line for each), or no encoder fits the game.
    """
    NetworkOptions(kind=kind, num_blocks=num_blocks, channels=channels, value_head=value_head, equivariant=equivariant)
    if equivariant and (errors := equivariance_errors(spec, kind=kind, channels=channels)):
        raise ConfigError(errors)
    if kind == "mlp":
        return MLPNetwork(spec, num_blocks=num_blocks, channels=channels, value_head=value_head)
    return ResidualNetwork(
        spec, num_blocks=num_blocks, channels=channels, value_head=value_head, equivariant=equivariant
    )


def build_recorded_network(model: Mapping[str, Any], spec: GameSpec) -> nn.Module:
    """Make the network that a file describes, and call nothing that only the file chose.

    Args:
        model: from the file, as section ``model`` of a configuration; without ``_target_`` one of ours.
        spec: the game.

    Raises:
        ConfigError: it is neither ours nor registered (:mod:`keisei_lightning.models.registry`); it holds more than
            plain values; or it cannot be made.
    """
    if error := recorded_network_error(model):
        raise ConfigError(error)
    target = model.get("_target_", OUR_NETWORKS)
    options = {key: value for key, value in model.items() if key != "_target_"}
    if target != OUR_NETWORKS:
        return _build_registered(target, options, spec)
    known = [name for name in inspect.signature(build_network).parameters if name != "spec"]
    if unknown := next((name for name in options if name not in known), None):
        raise ConfigError(f"model.{unknown}={options[unknown]}: no such key; must be one of {', '.join(known)}")
    return build_network(spec, **options)


def _build_registered(target: str, options: Mapping[str, Any], spec: GameSpec) -> nn.Module:
    maker = NETWORKS.load(target)
    try:
        network = maker(spec, **options)
    except Exception as error:  # a third party's package may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"its network {target} cannot be made ({reason})") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"its network {target} makes a {type(network).__name__}; must make a torch.nn.Module")
    return network


def num_parameters(module: nn.Module) -> int:
    """Count the trainable parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
