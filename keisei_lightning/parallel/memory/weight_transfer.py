"""Weights between shared memory and a device: one transfer for all of them, whatever their number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from keisei_lightning.models.transfers import Fetch, host_buffer
from keisei_lightning.parallel.memory.shared_buffer import aligned

__all__ = ["WeightFetcher", "WeightUploader"]


class WeightFetcher:
    """Brings named tensors from a device to host memory.

    They are laid one behind the other on the device, which is quick there, and come in one transfer; one by one each of
    them would be waited for. The memory at both ends is kept for the next time.
    """

    def __init__(self) -> None:
        self._made_for: list[tuple[Any, ...]] = []
        self._there: tuple[Tensor, list[Tensor]] | None = None
        self._here: tuple[Tensor, list[Tensor]] | None = None

    def on_host(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """The same tensors on the CPU, valid until the next call; what is there already (or no tensor) as it is.

        Args:
            tensors: by name, all of those that are not on the CPU on one device.
        """
        far = {name: value for name, value in tensors.items() if isinstance(value, Tensor) and not value.is_cpu}
        if not far:
            return dict(tensors)
        made_for = [(name, value.shape, value.stride(), value.dtype, value.device) for name, value in far.items()]
        if self._here is None or self._there is None or made_for != self._made_for:
            self._make_room(list(far.values()))
            self._made_for = made_for
        assert self._here is not None
        assert self._there is not None
        (source, there), (target, here) = self._there, self._here
        torch._foreach_copy_(there, [value.detach() for value in far.values()])
        Fetch(source, target).wait()
        return {**tensors, **dict(zip(far, here, strict=True))}

    def _make_room(self, tensors: list[Tensor]) -> None:
        offsets, num_bytes = [], 0
        for tensor in tensors:
            offsets.append(num_bytes)
            num_bytes += aligned(tensor.numel() * tensor.element_size())
        device = tensors[0].device
        source = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        target, _ = host_buffer(num_bytes, device)
        self._there, self._here = (
            (flat, [_view(flat, at, tensor) for at, tensor in zip(offsets, tensors, strict=True)])
            for flat in (source, target)
        )


def _view(flat: Tensor, start: int, like: Tensor) -> Tensor:
    """A tensor like another, in a flat run of bytes; dense, in the other's own order."""
    stride = torch.empty_like(like, device="meta").stride()
    num_bytes = like.numel() * like.element_size()
    return flat[start : start + num_bytes].view(like.dtype).as_strided(like.shape, stride)


class WeightUploader:
    """Brings weights from shared memory to where a policy keeps them on a device, in one transfer that is waited for.

    The policy's tensors stay where they are, so a CUDA graph that has been recorded with them stays valid.

    Args:
        target: uint8 [n], the policy's memory.
    """

    def __init__(self, target: Tensor) -> None:
        self._target = target
        self._staging = None if target.device.type != "cuda" else host_buffer(len(target), target.device)[0]

    def upload(self, source: Tensor) -> None:
        """Copy uint8 [n] from the CPU; what the device is given afterwards, in whatever lane, sees the new weights."""
        if self._staging is not None:
            source = self._staging.copy_(source)
        self._target.copy_(source)
