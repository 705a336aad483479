"""Libraries that were compiled at the installation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from keisei_lightning.system.compiled import library_of, why_no_library

PACKAGE = Path(__file__).resolve().parents[3] / "keisei_lightning"


@pytest.mark.parametrize("room", ["games/shogi", "search"])
def test_an_old_library_is_not_taken_for_the_new_one(room: str, tmp_path: Path) -> None:
    source = PACKAGE / room / "kernel.c"
    if reason := why_no_library(source):
        pytest.skip(f"not compiled here: {reason}")
    folder = tmp_path / source.parent.name
    folder.mkdir()
    changed = folder / "kernel.c"
    changed.write_bytes(source.read_bytes() + b"\n")
    shutil.copy(library_of(source), library_of(changed))
    assert why_no_library(changed) == "it was built from other source; install anew"
