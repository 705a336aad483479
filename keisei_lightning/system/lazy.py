"""Names that a package imports when they are first used (PEP 562), because torch takes seconds and rules need none."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, module_of: Mapping[str, str], namespace: dict[str, Any]) -> Callable[[str], object]:
    """Make a package's ``__getattr__``.

    Args:
        package: the package's name.
        module_of: public name -> module of the package that defines it.
        namespace: the package's ``globals()``, which keeps what was imported.

    Returns:
        A function that imports a name, and raises ``AttributeError`` for a name that is not public.
    """

    def get(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        namespace[name] = value
        return value

    return get
