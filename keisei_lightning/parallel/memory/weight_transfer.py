"""Transfers of weights between shared memory and a device: one transfer for all tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from keisei_lightning.models.transfers import Fetch, host_buffer
from keisei_lightning.parallel.memory.shared_buffer import aligned

__all__ = ["WeightFetcher", "WeightUploader"]


class WeightFetcher:
    """Copies named tensors from a device to host memory.

    They are packed on the device, which is fast there, and transferred at once; one by one, each would be waited for.
    The memory at both ends is kept for the next call.
    """

    def __init__(self) -> None:
        self._made_for: list[tuple[Any, ...]] = []
        self._device_side: tuple[Tensor, list[Tensor]] | None = None
        self._host_side: tuple[Tensor, list[Tensor]] | None = None

    def on_host(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """The same tensors on the CPU, valid until the next call; what is there already, or is no tensor, is unchanged.

        Args:
            tensors: by name; those that are not on the CPU are all on one device.
        """
        remote = {name: value for name, value in tensors.items() if isinstance(value, Tensor) and not value.is_cpu}
        if not remote:
            return dict(tensors)
        made_for = [(name, value.shape, value.stride(), value.dtype, value.device) for name, value in remote.items()]
        if self._host_side is None or self._device_side is None or made_for != self._made_for:
            self._allocate(list(remote.values()))
            self._made_for = made_for
        assert self._host_side is not None
        assert self._device_side is not None
        (source, on_device), (target, on_host) = self._device_side, self._host_side
        torch._foreach_copy_(on_device, [value.detach() for value in remote.values()])
        Fetch(source, target).wait()
        return {**tensors, **dict(zip(remote, on_host, strict=True))}

    def _allocate(self, tensors: list[Tensor]) -> None:
        offsets, num_bytes = [], 0
        for tensor in tensors:
            offsets.append(num_bytes)
            num_bytes += aligned(tensor.numel() * tensor.element_size())
        device = tensors[0].device
        source = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        target, _ = host_buffer(num_bytes, device)
        self._device_side, self._host_side = (
            (flat, [_view(flat, at, tensor) for at, tensor in zip(offsets, tensors, strict=True)])
            for flat in (source, target)
        )


def _view(flat: Tensor, start: int, like: Tensor) -> Tensor:
    """A tensor like another, as a view of a flat run of bytes; dense, in the other's dimension order."""
    stride = torch.empty_like(like, device="meta").stride()
    num_bytes = like.numel() * like.element_size()
    return flat[start : start + num_bytes].view(like.dtype).as_strided(like.shape, stride)


class WeightUploader:
    """Copies weights from shared memory to the policy's memory on a device, in one transfer that is waited for.

    The policy's tensors keep their addresses, so a CUDA graph that was captured with them stays valid.

    Args:
        target: uint8 [n], the policy's memory.
    """

    def __init__(self, target: Tensor) -> None:
        self._target = target
        self._staging = None if target.device.type != "cuda" else host_buffer(len(target), target.device)[0]

    def upload(self, source: Tensor) -> None:
        """Copy uint8 [n] from the CPU. All later work of the device, in any lane, sees the new weights."""
        if self._staging is not None:
            source = self._staging.copy_(source)
        self._target.copy_(source)
