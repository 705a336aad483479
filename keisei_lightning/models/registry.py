"""Networks by name, as a file may give it: built-in ones and registered ones. Needs no torch.

A checkpoint says what its network was made from, and a checkpoint may come from anybody: only names that are registered
here are looked up. A package registers its network by an entry point in the group ``keisei_lightning.networks``, a
program by :func:`register_network`::

    [project.entry-points."keisei_lightning.networks"]
    my_network = "my_package.my_network:MyNetwork"

where ``MyNetwork(spec, **options)`` is a :class:`torch.nn.Module`; a configuration names it by
``_target_: my_package.my_network.MyNetwork``. Its options are what the file says: numbers, texts, lists and
dictionaries of such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from keisei_lightning.system.registry import Registry

__all__ = ["NETWORKS", "OUR_NETWORKS", "not_plain", "recorded_network_error", "register_network"]

OUR_NETWORKS: Final = "keisei_lightning.models.build_network"
"""``_target_`` of the networks whose keys we know the meaning of."""

NETWORKS: Final[Registry[Callable[..., Any]]] = Registry(
    "network",
    group="keisei_lightning.networks",
    built_in={OUR_NETWORKS: "keisei_lightning.models.build:build_network"},
    by_path=True,
)
"""Makers of networks by the dotted path that a ``_target_`` gives."""

_HYDRAS_KEYS: Final = frozenset({"_target_", "_args_", "_partial_", "_recursive_", "_convert_"})


def register_network(target: str, maker: Callable[..., Any]) -> None:
    """Let files name a network of this process.

    Args:
        target: as a ``_target_`` gives it, such as ``"my_package.my_network.MyNetwork"``.
        maker: ``maker(spec, **options)`` returns a :class:`torch.nn.Module`.
    """
    NETWORKS.register(target, maker)


def recorded_network_error(model: Mapping[str, Any]) -> str | None:
    """The reason why a network that a file names may not be made; None: it may.

    Args:
        model: from the file, as section ``model`` of a configuration; without ``_target_`` one of ours.
    """
    target = model.get("_target_", OUR_NETWORKS)
    if not isinstance(target, str) or target not in NETWORKS:
        return (
            f"its network is {_short(target)}, and a file may not choose what is called; if you trust it, give it in "
            f"the command as model._target_={_short(target)}, with its other keys, or let its package register it "
            f"(entry-point group {NETWORKS.group})"
        )
    return next(not_plain({key: value for key, value in model.items() if key != "_target_"}, "model"), None)


def not_plain(value: object, name: str) -> Iterator[str]:
    """Find what is more than data in a file's values, at any depth: keys that Hydra acts on, interpolations, objects.

    Args:
        value: from a file.
        name: of it, for the message.

    Yields:
        A line for each.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or key in _HYDRAS_KEYS:
                yield f"{name}.{key}={_short(inner)}: only the command may have such a key, no file"
            else:
                yield from not_plain(inner, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from not_plain(inner, f"{name}[{index}]")
    elif isinstance(value, str):
        if "${" in value:
            yield f"{name}={_short(value)}: only the command may have an interpolation, no file"
    elif value is not None and not isinstance(value, bool | int | float):
        yield f"{name}: is a {type(value).__name__}; must be a number, a text, or a list or dictionary of such"


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
