"""What ends a cluster of a learner's own: Ray's processes that use its folder, and nobody else."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_helpers import wait_until

from keisei_lightning.parallel.cluster.guard import ClusterGuard

pytestmark = pytest.mark.process

HANG_S = 60.0
LEARNER = """
import os, signal, sys
from pathlib import Path
from keisei_lightning.parallel.cluster.guard import ClusterGuard
guard = ClusterGuard(Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kl-ray-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def user_of(file: Path, name: str) -> subprocess.Popen[bytes]:
    """A process of some name that has a file open, and waits."""
    code = f"file = open({str(file)!r}, 'a'); print(flush=True); import time; time.sleep({HANG_S})"
    process = subprocess.Popen([name, "-c", code], executable=sys.executable, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_the_end_of_a_guard_ends_rays_processes_of_its_folder_and_no_others(folder: Path, tmp_path: Path) -> None:
    of_the_cluster = user_of(folder / "agent.log", "ray::DashboardAgent")
    of_another = user_of(tmp_path / "agent.log", "ray::DashboardAgent")
    guard = ClusterGuard(folder)
    guard.end()
    assert not folder.exists()
    with of_the_cluster, of_another:
        assert of_the_cluster.wait(HANG_S) == -9
        assert of_another.poll() is None
        of_another.kill()


def test_a_learner_that_is_killed_leaves_neither_processes_nor_folder(folder: Path) -> None:
    with user_of(folder / "agent.log", "ray::RuntimeEnvAgent") as of_the_cluster:
        subprocess.run([sys.executable, "-c", LEARNER, str(folder)], check=False, timeout=HANG_S)
        assert of_the_cluster.wait(HANG_S) == -9
    wait_until(lambda: not folder.exists())


def test_the_end_of_a_guard_that_was_killed_leaves_nothing_either(folder: Path) -> None:
    guard = ClusterGuard(folder)
    guard._process.kill()
    guard.end()
    assert not folder.exists()
