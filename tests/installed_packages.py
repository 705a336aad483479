"""Other packages' entry points, as if they were installed."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from keisei_lightning.system.registry import Registry

__all__ = ["installed"]


def installed(monkeypatch: pytest.MonkeyPatch, registry: Registry[Any], *entries: EntryPoint) -> None:
    """Let a registry find these entry points of other packages, and no others."""
    fresh: Registry[Any] = Registry(
        registry.kind, group=registry.group, built_in=registry._built_in, by_path=registry._by_path
    )
    with monkeypatch.context() as while_it_looks:
        while_it_looks.setattr("keisei_lightning.system.registry.entry_points", lambda group: entries)
        found = fresh._entries
    monkeypatch.setattr(registry, "_entries", found)
