"""What every test here is held to: it leaves no process, no thread and no shared memory of its own behind."""

from __future__ import annotations

import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import pytest
from leaks import SHARED_MEMORY, mark_shared_memory, own_shared_memory

from keisei_lightning.system.openmp import governed_spinning

Key = TypeVar("Key", int, str)

LEAK_GRACE_S = 30.0
"""How long a thing may take to disappear after its test has ended (a process that is being reaped, say)."""

mark_shared_memory()

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # so starts what a shell runs in its background, and all its children
    signal.signal(signal.SIGINT, signal.default_int_handler)

LASTING_THREADS: tuple[str, ...] = (
    "keisei-openmp-team",  # of the whole run's governor of spinning: it comes and goes with what else the machine does
    "tqdm_monitor",  # one for the whole interpreter, started by whoever draws the first tqdm bar
    "IPythonHistorySavingThread",  # one for the whole interpreter, started by the first notebook kernel client
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the GPU tests where there is no GPU (torch is asked only if there is such a test)."""
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu:
        return
    import torch

    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=gpu)
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]


def _lasting_processes() -> set[int]:
    """The two servers of multiprocessing: they live as long as the interpreter and are shared by all tests."""
    forkserver = multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]
    tracker = multiprocessing.resource_tracker._resource_tracker
    return {pid for pid in (forkserver._forkserver_pid, tracker._pid) if pid is not None}


def _descendants(pid: int) -> set[int]:
    """Processes that a process has started, and those that they have. Linux tells each one's own at once.

    Where it does not, psutil reads the status of every process there is, which takes longer than most tests.
    """
    try:
        children = {
            int(child)
            for thread in os.listdir(f"/proc/{pid}/task")
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
        }
    except OSError:  # another system, a kernel without this file, a thread that has ended meanwhile
        try:
            return {child.pid for child in psutil.Process(pid).children(recursive=True)}
        except psutil.NoSuchProcess:
            return set()
    return children.union(*map(_descendants, children))


def _processes() -> dict[int, str]:
    found: dict[int, str] = {}
    for pid in _descendants(os.getpid()) - _lasting_processes():
        try:
            child = psutil.Process(pid)
            if not child.name().startswith("ray::IDLE"):  # a node of Ray's, which a file of tests shares, keeps some
                found[pid] = f"process {pid} ({child.status()}): {' '.join(child.cmdline())[:120]}"
        except psutil.NoSuchProcess:
            continue
    return found


def _threads() -> dict[int, str]:
    return {
        id(thread): f"thread {thread.name} (daemon={thread.daemon})"
        for thread in threading.enumerate()
        if thread.name not in LASTING_THREADS
    }


def _shared_memory(before: frozenset[str] = frozenset()) -> dict[str, str]:
    return {name: f"shared memory {SHARED_MEMORY / name}" for name in own_shared_memory(before)}


def _left_over(probe: Callable[[], dict[Key, str]], before: dict[Key, str]) -> dict[Key, str]:
    """What ``probe`` finds that was not there before, after a grace time for what is on its way out."""
    deadline = time.monotonic() + LEAK_GRACE_S
    while True:
        left = {key: text for key, text in probe().items() if key not in before}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


@pytest.fixture(autouse=True, scope="session")
def _a_busy_machine_stays_quick() -> Iterator[None]:
    """Tests run beside other work, and make a good deal of it themselves."""
    with governed_spinning():
        yield


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    """Fail a test that leaves a child process (or zombie), a thread or shared memory; put the environment back.

    What other programs have in ``/dev/shm`` meanwhile is theirs: what counts is what this run's processes made or use.
    """
    processes, threads = _processes(), _threads()
    names = frozenset(os.listdir(SHARED_MEMORY)) if SHARED_MEMORY.is_dir() else frozenset()
    environment = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)
    left = [
        *_left_over(lambda: _shared_memory(names), {}).values(),
        *_left_over(_processes, processes).values(),
        *_left_over(_threads, threads).values(),
    ]
    for child in psutil.Process().children() if left else []:
        if child.pid not in processes and child.pid not in _lasting_processes():
            child.kill()  # one leak must not fail the tests after it as well, and nor must a zombie
            child.wait(10)
    assert not left, "the test left behind: " + "; ".join(left)


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_test() -> None:
    """Seed the global generators, so that a test gives the same result alone and in a full run."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries draw from it
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)
