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
    """The same in dictionaries, lists and Python's own numbers.

    Args:
        value: may hold containers of other libraries, such as OmegaConf's, arrays and paths. What is none of these is
            left as it is.
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | Set) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value) if isinstance(value, PurePath) else value


def first_unsaveable(value: Any, place: str = "checkpoint") -> str | None:
    """Where a checkpoint holds what could not be read back, and what that is; None: it was not found.

    Args:
        value: the checkpoint, or a part of it.
        place: its name in the message.
    """
    kind = type(value)  # a subclass of these is a class of its own, which would have to be called
    if kind in _VALUES:
        return None
    if kind not in (*_MAPPINGS, *_SEQUENCES):
        return f"{place} is a {kind.__module__}.{kind.__qualname__}"
    items = value.items() if kind in _MAPPINGS else enumerate(value)
    for key, item in items:
        key_fault = first_unsaveable(key, f"a key of {place}") if kind in _MAPPINGS else None
        if (fault := key_fault or first_unsaveable(item, f"{place}[{key!r}]")) is not None:
            return fault
    return None
