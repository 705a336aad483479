"""Things by name."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from keisei_lightning.errors import ConfigError
from keisei_lightning.system.registry import Registry, nearest

GROUP = "keisei_lightning.tests"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry[object]:
    entries = [EntryPoint("root", "math:sqrt", GROUP), EntryPoint("ours", "math:pi", GROUP)]
    monkeypatch.setattr("keisei_lightning.system.registry.entry_points", lambda group: entries)
    return Registry("thing", group=GROUP, built_in={"ours": "math:e", "broken": "no_such_module:x"})


def test_a_program_goes_before_us_and_we_go_before_a_package(registry: Registry[object]) -> None:
    import math

    assert registry.names() == ["broken", "ours", "root"]
    assert (registry.load("root"), registry.load("ours")) == (math.sqrt, math.e)
    registry.register("ours", 5)
    assert registry.load("ours") == 5
    assert ("root" in registry, "nothing" in registry) == (True, False)


def test_an_error_is_one_line_with_the_nearest_name(registry: Registry[object]) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.load("rot")
    assert caught.value.errors == ("thing rot: there is none (did you mean root?); must be one of broken, ours, root",)
    with pytest.raises(ConfigError, match=r"^thing broken: cannot be loaded \(ModuleNotFoundError: .*no_such_module"):
        registry.load("broken")
    assert nearest("zzz", registry) == ""


def test_nothing_is_imported_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazily_registered.py").write_text("raise RuntimeError('it was\\nimported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry[object] = Registry("thing", group=GROUP, built_in={"lazy": "lazily_registered:x"})
    assert registry.names() == ["lazy"]
    assert registry.built_in_modules() == ["lazily_registered"]
    assert "lazily_registered" not in sys.modules
    with pytest.raises(ConfigError, match=r"thing lazy: cannot be loaded \(RuntimeError: it was imported\)"):
        registry.load("lazy")


def test_a_path_may_be_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [EntryPoint("any", "os.path:join", GROUP)]
    monkeypatch.setattr("keisei_lightning.system.registry.entry_points", lambda group: entries)
    registry: Registry[object] = Registry("thing", group=GROUP, built_in={}, by_path=True)
    assert registry.names() == ["os.path.join"]
