"""How processes are started: the one choice between multiprocessing's start methods."""

from __future__ import annotations

import multiprocessing
from typing import Final

__all__ = ["START_METHODS", "choose_start_method"]

START_METHODS: Final = tuple(
    name for name in ("forkserver", "spawn") if name in multiprocessing.get_all_start_methods()
)
"""Those that this system offers, the best first. Never ``fork``: torch has threads, which a forked process loses."""


def choose_start_method(start_method: str | None = None) -> str:
    """The given start method; None: the best that this system offers."""
    return START_METHODS[0] if start_method is None else start_method
