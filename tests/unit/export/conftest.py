"""Exported policies, each made once: an export to ONNX takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from tqdm import tqdm

from keisei_lightning.export import export_policy

tqdm.get_lock()  # one semaphore for the whole interpreter: torch.export makes it, in whichever test comes first

Exported = Callable[[str, str], Path]
"""``exported(name, suffix)``: the file of a published policy; it is not to be changed."""


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def export(name: str, suffix: str) -> Path:
        file = folder / f"{name}{suffix}"
        export_policy(f"published:{name}", file, positions=50)
        return file

    return export
