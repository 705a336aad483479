"""Which values a checkpoint may hold: those that are read back without running code (``weights_only=True``)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from pathlib import PurePath
from typing import Any, Final

import numpy as np
import torch

__all__ = ["first_unsaveable", "plain"]

_VALUES: Final = (
    *(type(None), bool, int, float, complex, str, bytes),
    *(torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device),
)
_MAPPINGS: Final = (dict, OrderedDict)
_SEQUENCES: Final = (list, tuple, set)


def plain(value: Any) -> Any:
    """Convert a value to dictionaries, lists and Python's own numbers.

    Args:
        value: may hold containers of other libraries, such as OmegaConf's, arrays and paths. Anything else is
            returned as it is.
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | Set) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value) if isinstance(value, PurePath) else value


def first_unsaveable(value: Any, place: str = "checkpoint") -> str | None:
    """Find a value that could not be read back, with its place in the checkpoint; None: there is none.

    Args:
        value: the checkpoint, or a part of it.
        place: its name in the message.
    """
    kind = type(value)  # exactly: a subclass would have to be called when it is read back
    if kind in _VALUES:
        return None
    if kind not in (*_MAPPINGS, *_SEQUENCES):
        return f"{place} is a {kind.__module__}.{kind.__qualname__}"
    items = value.items() if kind in _MAPPINGS else enumerate(value)
    for key, item in items:
        of_key = first_unsaveable(key, f"a key of {place}") if kind in _MAPPINGS else None
        if (found := of_key or first_unsaveable(item, f"{place}[{key!r}]")) is not None:
            return found
    return None
