"""Published weights: one copy into shared memory, a version that flips, and readers that can never be torn.

The learner writes into the buffer that nobody has been told of, then flips the version. Each buffer carries a sequence
number that is odd while it is being written (a seqlock): a reader copies the buffer and looks at the number again, and
copies anew if it moved. Publishing never waits for a reader; a reader retries only when two publishes happened during
its one copy, which takes about a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from keisei_lightning.errors import WeightsError
from keisei_lightning.parallel.transport import SharedBuffer
from keisei_lightning.parallel.weight_sources import named_tensors, named_weights

__all__ = ["WeightLayout", "WeightReader", "WeightStore", "copy_weights"]

_ALIGNMENT = 64
_HEADER_BYTES = 256
# int64 slots of the header: the latest version, then for each of the two buffers its sequence number and its version.
_LATEST = 0
_SEQUENCE = (8, 16)  # a cache line each
_STAMP = (9, 17)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Leaf:
    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    is_parameter: bool
    offset: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightLayout:
    """Where each parameter and buffer of a module lies in a flat run of bytes.

    Attributes:
        leaves: one for each tensor, in the module's own order.
        num_bytes: of one set of weights.
    """

    leaves: tuple[_Leaf, ...]
    num_bytes: int

    @classmethod
    def of(cls, module: nn.Module) -> WeightLayout:
        """The layout of a module; strides are kept, so that channels-last weights stay channels-last."""
        leaves, offset = [], 0
        parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
        for name, tensor in named_tensors(module):
            num_bytes = tensor.numel() * tensor.element_size()
            stride = tuple(torch.empty_like(tensor, device="meta").stride())  # dense, in the tensor's own order
            leaves.append(
                _Leaf(
                    name=name,
                    shape=tuple(tensor.shape),
                    stride=stride,
                    dtype=tensor.dtype,
                    is_parameter=name in parameters,
                    offset=offset,
                    num_bytes=num_bytes,
                )
            )
            offset += -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
        return cls(leaves=tuple(leaves), num_bytes=max(offset, _ALIGNMENT))

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The tensors of a flat uint8 [num_bytes] run, by name, sharing its memory."""
        return {
            leaf.name: flat[leaf.offset : leaf.offset + leaf.num_bytes]
            .view(leaf.dtype)
            .as_strided(leaf.shape, leaf.stride)
            for leaf in self.leaves
        }

    def check(self, tensors: Mapping[str, Any]) -> None:
        """Refuse what does not fit this layout (a missing name is no fault here) or would poison the workers.

        Raises:
            WeightsError: an unknown name, a wrong shape or dtype, or a parameter that is not finite. (Buffers may hold
                infinities: attention masks do.)
        """
        expected = {leaf.name: leaf for leaf in self.leaves}
        if unknown := sorted(set(tensors) - set(expected)):
            raise WeightsError(f"weights: unknown name {unknown[0]!r}; the policy has {sorted(expected)}")
        for name, tensor in tensors.items():
            leaf = expected[name]
            if not isinstance(tensor, Tensor):
                raise WeightsError(f"weights: {name!r} is a {type(tensor).__name__}, not a tensor")
            if tuple(tensor.shape) != leaf.shape or tensor.dtype != leaf.dtype:
                raise WeightsError(
                    f"weights: {name!r} is {tensor.dtype} {list(tensor.shape)}, "
                    f"but the policy was started with {leaf.dtype} {list(leaf.shape)}"
                )
        for leaf in self.leaves:
            if leaf.is_parameter and leaf.name in tensors and not _is_finite(tensors[leaf.name].detach()):
                raise WeightsError(f"weights: {leaf.name!r} is not finite")

    def bind(self, module: nn.Module, device: torch.device) -> Tensor:
        """Make the module's parameters and buffers views of one flat run, so that adopting is one copy.

        Args:
            module: of the same structure (on any device, "meta" included); changed in place.
            device: where its weights are to lie.

        Returns:
            The flat uint8 [num_bytes] run.
        """
        flat = torch.zeros(self.num_bytes, dtype=torch.uint8, device=device)
        shared: dict[int, nn.Parameter] = {}  # tied parameters stay tied
        named = dict(named_tensors(module))
        for name, view in self.views(flat).items():
            owner_name, _, attribute = name.rpartition(".")
            owner = module.get_submodule(owner_name)
            if attribute in owner._parameters:
                old = id(named[name])
                shared.setdefault(old, nn.Parameter(view, requires_grad=False))
                owner._parameters[attribute] = shared[old]
            else:
                owner._buffers[attribute] = view
        return flat


def _is_finite(tensor: Tensor) -> bool:
    # A sum is many times quicker than looking at each number; it may overflow, so only what it suspects is looked at.
    return math.isfinite(tensor.sum().item()) or bool(tensor.isfinite().all())


@torch.no_grad()
def copy_weights(source: nn.Module | TensorDictBase | Mapping[str, Any], module: nn.Module) -> None:
    """Copy weights into a module, checked as a publish checks them.

    Args:
        source: see :func:`~keisei_lightning.parallel.weight_sources.named_weights`.
        module: takes them over.

    Raises:
        WeightsError: see :meth:`WeightLayout.check`; nothing is copied then.
    """
    if source is module:
        return
    given, own = named_weights(source), named_weights(module)
    WeightLayout.of(module).check(given)
    for name, tensor in given.items():
        own[name].copy_(tensor)


class WeightStore:
    """The learner's side: two buffers in shared memory and the version that tells which is the latest.

    Args:
        layout: of the policy.
    """

    def __init__(self, layout: WeightLayout) -> None:
        self.layout = layout
        self.buffer = SharedBuffer(_HEADER_BYTES + 2 * layout.num_bytes)
        self._header, self._flats = _split(self.buffer, layout)
        self._header[:] = -1
        self._header[list(_SEQUENCE)] = 0
        self._views = [layout.views(flat) for flat in self._flats]

    @property
    def latest_version(self) -> int:
        """The version that workers adopt next; -1 before the first publish."""
        return int(self._header[_LATEST])

    @torch.no_grad()
    def publish(self, source: nn.Module | Mapping[str, Any], version: int) -> None:
        """Copy weights into the inactive buffer, then flip the version. Never waits for a worker.

        Args:
            source: the policy, or its parameters and buffers by name (:func:`named_weights`); one that is missing keeps
                its last value.
            version: of these weights; one more than the last.

        Raises:
            WeightsError: a name, shape or dtype differs, or a parameter is not finite; nothing is published then.
        """
        tensors = named_weights(source)
        self.layout.check(tensors)
        missing = [leaf.name for leaf in self.layout.leaves if leaf.name not in tensors]
        if missing and self.latest_version < 0:
            raise WeightsError(f"weights: {missing[0]!r} is missing, and there is no earlier version to take it from")
        active = version % 2
        sequence = int(self._header[_SEQUENCE[active]])
        self._header[_SEQUENCE[active]] = (sequence + 1) | 1  # odd: being written (also after an interrupted one)
        views = self._views[active]
        if missing:
            self._flats[active].copy_(self._flats[1 - active])
        torch._foreach_copy_([views[name] for name in tensors], list(tensors.values()))
        self._header[_STAMP[active]] = version
        self._header[_SEQUENCE[active]] += 1  # even: whole
        self._header[_LATEST] = version

    def close(self) -> None:
        """Give up the shared memory's descriptor."""
        self.buffer.close()


class WeightReader:
    """A worker's side: adopts the latest weights into a flat run that the policy's parameters are views of.

    Args:
        buffer: of the learner's :class:`WeightStore`.
        layout: the same.
    """

    def __init__(self, buffer: SharedBuffer, layout: WeightLayout) -> None:
        self._header, self._flats = _split(buffer, layout)
        self.version = -1

    def adopt(self, flat: Tensor) -> int:
        """Copy the latest weights into ``flat`` unless they are there already.

        Args:
            flat: uint8 [num_bytes], as :meth:`WeightLayout.bind` made it; only this reader writes to it.

        Returns:
            The version that ``flat`` now holds, whole.
        """
        while self.version != (latest := int(self._header[_LATEST])):
            active = latest % 2
            before = int(self._header[_SEQUENCE[active]])
            if before % 2:
                continue  # the learner is two publishes ahead already: read the newer version
            flat.copy_(self._flats[active])
            stamp = int(self._header[_STAMP[active]])
            if int(self._header[_SEQUENCE[active]]) == before:
                self.version = stamp
                break
        return self.version


def _split(buffer: SharedBuffer, layout: WeightLayout) -> tuple[Any, tuple[Tensor, Tensor]]:
    memory = buffer.array()
    header = memory[:_HEADER_BYTES].view(np.int64)
    start, size = _HEADER_BYTES, layout.num_bytes
    flats = tuple(torch.from_numpy(memory[start + i * size : start + (i + 1) * size]) for i in range(2))
    return header, (flats[0], flats[1])
