"""Every way in which data gets to an accelerator and back: no other module of the library moves any.

A transfer that nobody waits for needs host memory that is *pinned* (the device reads and writes it by itself), and a
place in the device's order of work: a :class:`Lane`, which is a CUDA stream. What comes back is waited for in one
place, :class:`Fetch`, and everything that is wanted from one piece of work comes back in one transfer.

On the CPU nothing is moved. On a device that is neither (another backend of torch) transfers are plain, and waited for.
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
    """A tensor on a device; the very same where it is there already.

    To a CUDA device it goes from pinned memory, in the order of the current stream, and nobody waits.

    Args:
        tensor: of any shape and dtype, on the CPU or on the device.
        device: where it is wanted.
    """
    if _is_on(tensor, device):
        return tensor
    is_cuda = device.type == "cuda"
    source = tensor.pin_memory() if is_cuda and tensor.device.type == "cpu" else tensor
    return source.to(device, non_blocking=is_cuda)


def plies_to_device(plies: TensorDict, device: torch.device) -> TensorDict:
    """Columns of plies on a device, each in one transfer; the very same where they are there already.

    Args:
        plies: TensorDict [M].
        device: where they are wanted.
    """
    columns = dict(plies.items())
    if all(_is_on(column, device) for column in columns.values()):
        return plies
    moved = {key: to_device(column, device) for key, column in columns.items()}
    return TensorDict(moved, batch_size=plies.batch_size)


def to_host(tensor: Tensor, *, copy: bool = False) -> Tensor:
    """A tensor on the CPU, waited for.

    Args:
        tensor: anywhere.
        copy: also where it is there already; else it is the very same then.
    """
    return tensor.to("cpu", copy=copy)


def module_to_device(module: nn.Module, device: torch.device) -> None:
    """Bring a module's parameters and buffers to a device, in place."""
    module.to(device)


def host_buffer(num_bytes: int, device: torch.device) -> tuple[Tensor, NDArray[np.uint8]]:
    """Host memory for transfers from or to a device: pinned where that is a CUDA device.

    Args:
        num_bytes: its size.
        device: at the other end.

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
        event: of CUDA; None: it is reached already.
    """

    def __init__(self, event: torch.cuda.Event | None = None) -> None:
        self._event = event

    def is_reached(self) -> bool:
        """Whether the device has come so far; does not wait."""
        return self._event is None or self._event.query()

    def wait(self) -> None:
        """Wait until it has."""
        if self._event is not None:
            self._event.synchronize()


class Lane:
    """Work of a device that is done in order, beside the work of other lanes: a CUDA stream.

    On other devices all lanes are one, and calls return when their work is done.

    Args:
        device: that works.

    Attributes:
        device: that works.
        stream: of CUDA; None on another device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def entered(self) -> AbstractContextManager[Any]:
        """Context in which work is queued on this lane."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def catch_up(self) -> None:
        """Begin nothing more of this lane before what the current stream has been given so far is done."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))


def _mark(device: torch.device) -> DeviceEvent:
    """The present end of the current stream's work."""
    if device.type != "cuda":
        return DeviceEvent()
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return DeviceEvent(event)


class Fetch:
    """Bytes of a device on their way to host memory, in one transfer.

    Args:
        source: uint8 [n], on the device.
        target: uint8 [n], on the CPU; pinned if nobody is to wait.
    """

    def __init__(self, source: Tensor, target: Tensor) -> None:
        self._source = source  # kept: it must not be given to somebody else before it is read
        target.copy_(source, non_blocking=source.device.type == "cuda")
        self._event = _mark(source.device)

    def is_done(self) -> bool:
        """Whether they have arrived; does not wait."""
        return self._event.is_reached()

    def wait(self) -> None:
        """Wait until they have: the only wait for a device that there is."""
        self._event.wait()


def fetch_tensors(tensors: Sequence[Tensor]) -> tuple[Fetch, list[NDArray[Any]]]:
    """Bring several tensors of one device to host memory, in one transfer.

    Args:
        tensors: of any shapes, on one device; float32, float64, int64, uint8 or bool.

    Returns:
        The transfer, and an array for each tensor, valid when it is done.
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
    """Host memory that somebody else has made (shared memory, say), pinned in place as long as this is open.

    Where it cannot be pinned (another device, a limit on locked memory) it stays as it is, and whoever transfers goes
    through a :func:`host_buffer`.

    Args:
        memory: uint8 [n].
        device: that is to read and write it by itself.

    Attributes:
        is_pinned: whether it is.
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
                with contextlib.suppress(RuntimeError):  # the next kernel would find the error and think it its own
                    torch.zeros(1, device=device)

    def close(self) -> None:
        """Let the memory go, when no transfer is under way any more; twice is harmless."""
        if self.is_pinned:
            self.is_pinned = False
            torch.cuda.synchronize(self._device)
            torch.cuda.cudart().cudaHostUnregister(self._memory.ctypes.data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
