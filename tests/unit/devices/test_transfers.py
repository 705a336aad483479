"""One module moves data to devices and from them, and it does so as it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict

import keisei_lightning
from keisei_lightning.models.transfers import Lane, PinnedMemory, fetch_tensors, plies_to_device, to_device, to_host

PACKAGE = Path(keisei_lightning.__file__).parent
PATHS = ("models", "rl", "parallel", "training")
MOVES = re.compile(r"\.(cpu|cuda|pin_memory)\(|\.to\(\s*(?:self\.)?_?(?:device|\"c)|non_blocking=")
ALLOWED = {
    "models/transfers.py",
    "parallel/memory/weight_transfer.py",  # waits for a transfer on purpose, by transfers.Fetch
    "parallel/policy/batched_server.py",  # copies between memory that is allocated once
    "training/evaluation.py",  # between two iterations
    "training/random_state.py",  # of a checkpoint
}


def test_no_other_module_of_these_paths_moves_data() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}"
        for folder in PATHS
        for path in (PACKAGE / folder).rglob("*.py")
        if MOVES.search(path.read_text())
    }
    assert found <= ALLOWED, found - ALLOWED
    assert {"models/transfers.py", "parallel/policy/batched_server.py"} <= found  # the pattern finds such modules


def test_on_the_cpu_nothing_is_moved() -> None:
    cpu = torch.device("cpu")
    tensor = torch.arange(3)
    plies = TensorDict({"action": tensor}, batch_size=3)
    assert to_device(tensor, cpu) is tensor
    assert to_host(tensor) is tensor
    assert to_host(tensor, copy=True) is not tensor
    assert plies_to_device(plies, cpu) is plies


def test_tensors_of_several_dtypes_come_in_one_run_of_bytes_as_they_were() -> None:
    tensors = [
        torch.arange(3),
        torch.tensor([0.5, -1.0, 2.0]),
        torch.tensor([[True], [False], [True]]),
        torch.arange(6, dtype=torch.float64).view(2, 3).T,
        torch.zeros(0),
    ]
    fetch, arrays = fetch_tensors(tensors)
    assert fetch.is_done()
    fetch.wait()
    for tensor, array in zip(tensors, arrays, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())
        assert array.dtype == tensor.numpy().dtype


def test_memory_is_pinned_for_cuda_devices_alone_and_lanes_are_streams_there_alone() -> None:
    memory = np.zeros(64, np.uint8)
    with PinnedMemory(memory, torch.device("cpu")) as pinned:
        assert not pinned.is_pinned
    lane = Lane(torch.device("cpu"))
    assert lane.stream is None
    with lane.entered():
        lane.catch_up()


@pytest.mark.gpu
def test_memory_of_somebody_else_is_pinned_in_place_until_it_is_let_go() -> None:
    memory = np.arange(1 << 16, dtype=np.uint8)
    tensor, device = torch.from_numpy(memory), torch.device("cuda:0")
    with PinnedMemory(memory, device) as pinned:
        assert pinned.is_pinned
        assert tensor.is_pinned()
        torch.cuda.set_sync_debug_mode("error")
        try:
            there = tensor.to(device, non_blocking=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(there.cpu(), tensor)
    assert not tensor.is_pinned()
