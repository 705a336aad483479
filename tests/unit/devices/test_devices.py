"""What a GPU would complain of or wait for is found without one: both paths of the data on a device that is not there.

The checks run in one process of their own, because naming a backend of torch is for good.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import checks
import pytest

REPOSITORY = Path(__file__).parents[3]

pytestmark = pytest.mark.process


@functools.cache
def results() -> dict[str, str]:
    """What each check has raised, "" where nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", checks.__file__],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    raised: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return raised


@pytest.mark.parametrize("name", checks.CHECKS)
def test_the_path_stays_on_the_device_and_waits_for_nothing_else(name: str) -> None:
    raised = results()[name]
    assert not raised, raised


@pytest.mark.parametrize("fault", checks.FAULTS)
def test_a_planted_cpu_tensor_is_found(fault: str) -> None:
    raised = results()[f"planted: {fault}"]
    assert not raised, raised
