"""The leak fixture blames a test for what its own processes left in shared memory, and for nothing else."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory

import pytest
from leaks import SHARED_MEMORY, own_shared_memory, shared_memory_of

pytestmark = pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="shared memory has no folder here")

ANOTHER_PROGRAM = """
import multiprocessing, os
from multiprocessing import resource_tracker
semaphore = multiprocessing.get_context("spawn").Semaphore()
print(semaphore._semlock.name, flush=True)
resource_tracker.unregister(semaphore._semlock.name, "semaphore")
input()
os._exit(0)
"""


@pytest.fixture
def before() -> set[str]:
    return set(os.listdir(SHARED_MEMORY))


@pytest.fixture
def another_program() -> Iterator[subprocess.Popen[str]]:
    """A program that has a semaphore with a name, and leaves it there when it ends."""
    command = [sys.executable, "-c", ANOTHER_PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def test_what_another_program_leaves_there_is_not_ours(
    before: set[str], another_program: subprocess.Popen[str]
) -> None:
    assert another_program.stdout is not None
    name = "sem." + another_program.stdout.readline().strip().lstrip("/")
    another_program.communicate("\n")
    try:
        assert name in set(os.listdir(SHARED_MEMORY)) - before
        assert own_shared_memory(before) == set()
    finally:
        (SHARED_MEMORY / name).unlink()


def test_memory_that_was_closed_and_not_unlinked_is_ours(before: set[str]) -> None:
    memory = SharedMemory(create=True, size=64)
    memory.close()
    assert own_shared_memory(before) == {memory.name}
    memory.unlink()
    assert own_shared_memory(before) == set()


def test_memory_that_one_of_our_processes_uses_is_ours_whatever_its_name(before: set[str]) -> None:
    name = f"a_name_of_its_own_{os.getpid()}"
    memory = SharedMemory(name, create=True, size=64)
    assert name in own_shared_memory(before)
    assert name in shared_memory_of([os.getpid()])
    memory.close()
    memory.unlink()


def test_a_semaphore_of_a_child_is_ours_after_the_child_is_gone(before: set[str]) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=leave_a_semaphore, args=(theirs,))
    child.start()
    name = "sem." + ours.recv().lstrip("/")
    child.join()
    child.close()
    ours.close()
    theirs.close()
    try:
        assert own_shared_memory(before) == {name}
    finally:
        (SHARED_MEMORY / name).unlink()


def leave_a_semaphore(pipe: multiprocessing.connection.Connection) -> None:
    from multiprocessing import resource_tracker

    semaphore = multiprocessing.get_context("spawn").Semaphore()
    resource_tracker.unregister(semaphore._semlock.name, "semaphore")  # type: ignore[attr-defined]
    pipe.send(semaphore._semlock.name)  # type: ignore[attr-defined]
    os._exit(0)
