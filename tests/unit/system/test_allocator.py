"""Memory that was freed is there again at once."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from keisei_lightning.system import allocator

IN_A_PROCESS_OF_ITS_OWN = """
import resource, sys
import torch
from keisei_lightning import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        tensors = [torch.ones(8 << 20, dtype=torch.uint8) for _ in range(4)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
assert keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
@pytest.mark.slow
def test_pages_are_asked_for_once_and_not_with_every_tensor() -> None:
    run = subprocess.run([sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN], capture_output=True, text=True, check=True)
    before, after = map(int, run.stdout.split())
    assert before > 20 * 4  # at least a page for each tensor: it was given back every time
    assert after < 20  # nothing was asked for again


def test_another_c_library_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert allocator.keep_freed_memory() is False
