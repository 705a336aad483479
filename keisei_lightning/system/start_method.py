"""How processes are started: the one choice between multiprocessing's start methods."""

from __future__ import annotations

import multiprocessing
from typing import Final, Literal, get_args

__all__ = ["START_METHODS", "StartMethod", "choose_start_method"]

StartMethod = Literal["forkserver", "spawn"]
"""The best first. Never ``fork``: torch has threads, which a forked process loses."""

START_METHODS: Final = tuple(name for name in get_args(StartMethod) if name in multiprocessing.get_all_start_methods())
"""Those that this system offers."""


def choose_start_method(start_method: str | None = None) -> str:
    """The given start method; None: the best that this system offers."""
    return START_METHODS[0] if start_method is None else start_method
