"""All transfers to an accelerator and back: no other module of the library moves data.

An asynchronous transfer needs *pinned* host memory, which the device reads and writes by itself, and a place in the
device's order of work: a :class:`Lane`, which is a CUDA stream. :class:`Fetch` alone waits for results, and all results
of one piece of work come back in one transfer.

On the CPU nothing is moved. On other backends of torch, transfers are synchronous.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor, nn

__all__ = [
    "DeviceEvent",
    "Fetch",
    "Lane",
    "PinnedMemory",
    "fetch_tensors",
    "host_buffer",
    "module_to_device",
    "plies_to_device",
    "to_device",
    "to_host",
]

_ALIGNMENT: Final = 8  # bytes: so that each tensor's part of a run of bytes is a view of its own dtype

_NUMPY_DTYPES: Final[dict[torch.dtype, Any]] = {
    torch.bool: np.bool_,
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.int64: np.int64,
    torch.uint8: np.uint8,
}

_log = logging.getLogger(__name__)


def _is_on(data: Tensor | TensorDict, device: torch.device) -> bool:
    place = data.device
    return place is not None and place.type == device.type and device.index in (None, place.index)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device; a tensor that is there already is returned itself.

    To a CUDA device the transfer is asynchronous, from pinned memory, in the order of the current stream.

    Args:
        tensor: any shape and dtype, on the CPU or on the device.
        device: the target device.
    """
    if _is_on(tensor, device):
        return tensor
    is_cuda = device.type == "cuda"
    source = tensor.pin_memory() if is_cuda and tensor.device.type == "cpu" else tensor
    return source.to(device, non_blocking=is_cuda)


def plies_to_device(plies: TensorDict, device: torch.device) -> TensorDict:
    """Move the columns of plies to a device, each in one transfer; columns that are there already are not copied.

    Args:
        plies: TensorDict [M].
        device: the target device.
    """
    columns = dict(plies.items())
    if all(_is_on(column, device) for column in columns.values()):
        return plies
    moved = {key: to_device(column, device) for key, column in columns.items()}
    return TensorDict(moved, batch_size=plies.batch_size)


def to_host(tensor: Tensor, *, copy: bool = False) -> Tensor:
    """Move a tensor to the CPU and wait for it.

    Args:
        tensor: on any device.
        copy: return a copy even if the tensor is on the CPU already.
    """
    return tensor.to("cpu", copy=copy)


def module_to_device(module: nn.Module, device: torch.device) -> None:
    """Move a module's parameters and buffers to a device, in place."""
    module.to(device)


def host_buffer(num_bytes: int, device: torch.device) -> tuple[Tensor, NDArray[np.uint8]]:
    """Allocate host memory for transfers from or to a device; it is pinned for a CUDA device.

    Args:
        num_bytes: size of the memory.
        device: the device that it is transferred to or from.

    Returns:
        uint8 [num_bytes], as a tensor and as an array of the same memory.
    """
    if device.type == "cuda":
        pinned = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        return pinned, pinned.numpy()
    array = np.zeros(num_bytes, np.uint8)
    return torch.from_numpy(array), array


class DeviceEvent:
    """A point in a lane's work.

    Args:
        event: the CUDA event; None: the point is reached already.
    """

    def __init__(self, event: torch.cuda.Event | None = None) -> None:
        self._event = event

    def is_reached(self) -> bool:
        """Whether the device has reached the point; does not wait."""
        return self._event is None or self._event.query()

    def wait(self) -> None:
        """Wait until the device has reached the point."""
        if self._event is not None:
            self._event.synchronize()


class Lane:
    """Work of a device that is done in order, beside the work of other lanes: a CUDA stream.

    On other devices all lanes are one, and calls return when their work is done.

    Args:
        device: the device that does the work.

    Attributes:
        device: the device that does the work.
        stream: the CUDA stream; None on other devices.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def entered(self) -> AbstractContextManager[Any]:
        """Context in which work is queued on this lane."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def catch_up(self) -> None:
        """Delay further work of this lane until the current stream's present work is done."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))


def _mark(device: torch.device) -> DeviceEvent:
    """Mark the end of the current stream's present work."""
    if device.type != "cuda":
        return DeviceEvent()
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return DeviceEvent(event)


class Fetch:
    """One transfer from a device to host memory.

    Args:
        source: uint8 [n], on the device.
        target: uint8 [n], on the CPU; pinned for an asynchronous transfer.
    """

    def __init__(self, source: Tensor, target: Tensor) -> None:
        self._source = source  # kept: its memory must not be reused before it is read
        target.copy_(source, non_blocking=source.device.type == "cuda")
        self._event = _mark(source.device)

    def is_done(self) -> bool:
        """Whether the bytes have arrived; does not wait."""
        return self._event.is_reached()

    def wait(self) -> None:
        """Wait until the bytes have arrived: the only place that waits for a device."""
        self._event.wait()


def fetch_tensors(tensors: Sequence[Tensor]) -> tuple[Fetch, list[NDArray[Any]]]:
    """Copy several tensors of one device to host memory, in one transfer.

    Args:
        tensors: any shapes, on one device; float32, float64, int64, uint8 or bool.

    Returns:
        The transfer, and an array for each tensor, valid once the transfer is done.
    """
    parts, arrays_of, start = [], [], 0
    for tensor in tensors:
        num_bytes = tensor.numel() * tensor.element_size()
        padding = -num_bytes % _ALIGNMENT
        flat = tensor.contiguous().reshape(-1).view(torch.uint8)
        parts += [flat, flat.new_zeros(padding)] if padding else [flat]
        arrays_of.append((start, num_bytes, tuple(tensor.shape), _NUMPY_DTYPES[tensor.dtype]))
        start += num_bytes + padding
    source = torch.cat(parts)
    target, array = host_buffer(start, source.device)
    arrays = [array[at : at + size].view(dtype).reshape(shape) for at, size, shape, dtype in arrays_of]
    return Fetch(source, target), arrays


class PinnedMemory(AbstractContextManager["PinnedMemory"]):
    """Context that pins existing host memory, such as shared memory, in place.

    If it cannot be pinned (another device, a limit on locked memory) it stays as it is, and transfers need a
    :func:`host_buffer`.

    Args:
        memory: uint8 [n].
        device: the device that is to read and write the memory.

    Attributes:
        is_pinned: whether the memory is pinned.
    """

    def __init__(self, memory: NDArray[np.uint8], device: torch.device) -> None:
        self._memory, self._device, self.is_pinned = memory, device, False
        if device.type != "cuda" or not memory.size:
            return
        with torch.cuda.device(device):
            torch.cuda.init()
            error = int(torch.cuda.cudart().cudaHostRegister(memory.ctypes.data, memory.nbytes, 0))
            self.is_pinned = error == 0
            if error:
                _log.warning("%d MiB of shared memory cannot be pinned (CUDA error %d)", memory.nbytes >> 20, error)
                with contextlib.suppress(RuntimeError):  # the next kernel would report the error as its own
                    torch.zeros(1, device=device)

    def close(self) -> None:
        """Wait for all transfers and unpin the memory. May be repeated."""
        if self.is_pinned:
            self.is_pinned = False
            torch.cuda.synchronize(self._device)
            torch.cuda.cudart().cudaHostUnregister(self._memory.ctypes.data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
