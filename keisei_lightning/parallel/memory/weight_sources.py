"""Reads weights in all forms that TorchRL's trainers and users pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tensordict import TensorDictBase
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError

__all__ = ["choose_weights", "named_tensors", "named_weights"]


def choose_weights(
    given: Sequence[Any], *, models: Collection[str], worker_ids: object, unknown: Collection[str]
) -> Any | None:
    """Find the one set of weights among the arguments of ``update_policy_weights_``; None if there is none.

    Args:
        given: every argument that may be weights.
        models: names of the models that they are for.
        worker_ids: of the workers that they are for; only None (all) is possible.
        unknown: names of further arguments.

    Raises:
        ConfigError: more than one was given, or an argument that is impossible with one policy for all workers.
    """
    if worker_ids is not None:
        raise ConfigError(f"worker_ids={worker_ids}: weights are published for all workers at once; leave it out")
    if set(models) != {"policy"} or unknown:
        raise ConfigError('update_policy_weights_: the only model is "policy"')
    weights = [item for item in given if item is not None]
    if len(weights) > 1:
        raise ConfigError("update_policy_weights_: give the weights once")
    return weights[0] if weights else None


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer of a module by its dotted name; tied ones under each of their names."""
    # Buffers that are not persistent count too: a worker starts from the bare structure and gets all its values here.
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def named_weights(source: nn.Module | TensorDictBase | Mapping[str, Any]) -> dict[str, Any]:
    """Weights in any form, as one flat mapping.

    Args:
        source: a module, a TensorDict (``TensorDict.from_module``), or a flat or nested mapping of names to tensors.

    Returns:
        The tensors by dotted name, not copied.
    """
    if isinstance(source, nn.Module) and not isinstance(source, TensorDictBase):  # TensorDictParams is both
        return dict(named_tensors(source))
    out: dict[str, Any] = {}
    for name, value in source.items():
        if isinstance(value, Mapping | TensorDictBase):
            out |= {f"{name}.{inner}": tensor for inner, tensor in named_weights(value).items()}
        else:
            out[name] = value
    return out
