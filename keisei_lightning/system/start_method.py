"""How processes are started: the one choice between multiprocessing's start methods."""

from __future__ import annotations

import multiprocessing
from typing import Final, Literal, get_args

__all__ = ["START_METHODS", "StartMethod", "choose_start_method", "use_known_start_method"]

StartMethod = Literal["forkserver", "spawn"]
"""The best first. Never ``fork``: torch has threads, which a forked process loses."""

START_METHODS: Final = tuple(name for name in get_args(StartMethod) if name in multiprocessing.get_all_start_methods())
"""Those that this system offers."""


def choose_start_method(start_method: str | None = None) -> str:
    """The given start method; None: the best that this system offers."""
    return START_METHODS[0] if start_method is None else start_method


def use_known_start_method() -> None:
    """Let this process start others, if a library has made a method of its own the default.

    A process learns the default of the one that has started it, and ends if it does not know that method. In a process
    of joblib's the default is ``loky``.
    """
    if multiprocessing.get_start_method(allow_none=True) not in (None, *multiprocessing.get_all_start_methods()):
        multiprocessing.set_start_method(START_METHODS[0], force=True)
