"""Starting a child process that does not import the user's script again.

multiprocessing imports the main module again in every child, so that functions of a script can be unpickled. Here they
travel by cloudpickle, and importing a script (with Lightning and Hydra at its top, or without an
``if __name__ == "__main__"``) would cost seconds for each worker, or start the training again in each.

The function ``multiprocessing.spawn.get_preparation_data`` returns what a child learns about the main module. No option
leaves that out, so the function is wrapped, once, and its result is changed only for threads that request it: other
threads may start processes of their own at the same time. ``sys.modules["__main__"]`` is never changed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from multiprocessing import spawn
from typing import Any

__all__ = ["without_main_module"]

_MAIN_KEYS = ("init_main_from_name", "init_main_from_path")

_this_thread = threading.local()
_installing = threading.Lock()
_original: Callable[[str], dict[str, Any]] | None = None


def _get_preparation_data(name: str) -> dict[str, Any]:
    assert _original is not None
    data = _original(name)
    if getattr(_this_thread, "omits_main", False):
        for key in _MAIN_KEYS:
            data.pop(key, None)
    return data


def _install() -> None:
    global _original
    with _installing:
        if _original is None:
            _original, spawn.get_preparation_data = spawn.get_preparation_data, _get_preparation_data


@contextlib.contextmanager
def without_main_module() -> Iterator[None]:
    """Context in which this thread starts processes that do not import the main module."""
    _install()
    before = getattr(_this_thread, "omits_main", False)
    _this_thread.omits_main = True
    try:
        yield
    finally:
        _this_thread.omits_main = before
