"""The main module is hidden from the started child only: not from other threads, and not from this process."""

from __future__ import annotations

import sys
import threading
import types
from multiprocessing import spawn

import pytest

from keisei_lightning.parallel.supervision.main_module import without_main_module


@pytest.fixture(autouse=True)
def main_module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A script that was started by its path."""
    module = types.ModuleType("__main__")
    module.__file__ = "/somewhere/script.py"
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def main_of_child() -> object:
    data = spawn.get_preparation_data("child")
    return data.get("init_main_from_path", data.get("init_main_from_name"))


def test_a_child_learns_nothing_about_the_main_module_and_its_parent_keeps_it(main_module: types.ModuleType) -> None:
    assert main_of_child() == "/somewhere/script.py"
    with without_main_module():
        assert main_of_child() is None
        with without_main_module():
            pass
        assert main_of_child() is None
        assert sys.modules["__main__"] is main_module
    assert main_of_child() == "/somewhere/script.py"


def test_other_threads_start_their_children_as_ever() -> None:
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(main_of_child()))
    with without_main_module():
        thread.start()
        thread.join()
    assert seen == ["/somewhere/script.py"]
