"""Published weights: one copy into shared memory, a version that flips, and readers that play straight from it.

There are two buffers more than readers. The learner writes into one that is neither the latest nor in use, then flips
the version. A reader notes in shared memory which buffer it is going to use, looks whether that is still the latest,
and then points its parameters at it: adopting copies nothing, so it costs the same for one worker and for eight, and
all workers on one machine read the same physical memory. The learner writes to no noted buffer until its reader notes
another (the note is a hazard pointer, Michael 2004). Publishing never waits for a reader, and a reader looks again only
if a publish ended in the microseconds between its note and its look.

A check, and not only this argument, shows that no weights were torn: every buffer has a sequence number that each
publish into it raises, and a reader compares it after each rollout (:meth:`WeightReader.verify`).

Processors reorder loads and stores, so there is a fence (``|``, see ``fences``) wherever order matters::

    publish:  | look at the notes, raise the sequence number | copy | flip the version
    adopt:    look at the version | note the buffer | look again, play
    verify:   (play) | compare the sequence number

- A reader that sees the version sees all of the copy: fences before the flip (release) and after the first look
  (acquire).
- Either the reader's second look sees a flip, or the publish after that flip sees the note: each has a fence between
  its store and its look (as in Dekker's algorithm).
- The learner never writes to a buffer that is still read: fences before the note that releases a buffer, and before the
  copy.
- A reader that sees any of a copy sees the raised sequence number: fences before the copy and before the comparison.

A flip, a note and a number are aligned stores of eight bytes, which are never seen in part. Buffers of a module
(running means, noise) are copied, since a policy may write to its own. On another device than the CPU, a worker's
policy has a copy of everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from keisei_lightning.errors import WeightsError
from keisei_lightning.parallel.memory.fences import memory_fence
from keisei_lightning.parallel.memory.shared_buffer import ALIGNMENT, SharedBuffer, aligned
from keisei_lightning.parallel.memory.weight_sources import named_tensors, named_weights
from keisei_lightning.parallel.memory.weight_transfer import WeightFetcher, WeightUploader

__all__ = ["WeightLayout", "WeightMemory", "WeightReader", "WeightStore", "bind_weights", "copy_weights"]

_LINE = ALIGNMENT // 8  # int64 numbers of the header that are a cache line, so that no two writers share one
_NOT_PUBLISHED = _NOT_IN_USE = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Leaf:
    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    is_parameter: bool
    offset: int
    num_bytes: int

    def view(self, flat: Tensor, first_byte: int = 0) -> Tensor:
        """This tensor in a flat run of bytes that begins at ``first_byte`` of the set, sharing its memory."""
        start = self.offset - first_byte
        return flat[start : start + self.num_bytes].view(self.dtype).as_strided(self.shape, self.stride)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightLayout:
    """Where each parameter and buffer of a module lies in a flat run of bytes.

    Attributes:
        leaves: one for each tensor, in the module's own order: parameters, then buffers.
        num_bytes: of one set of weights.
        parameter_bytes: of its parameters, which come first.
    """

    leaves: tuple[_Leaf, ...]
    num_bytes: int
    parameter_bytes: int

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
            offset += aligned(num_bytes)
        parameter_bytes = next((leaf.offset for leaf in leaves if not leaf.is_parameter), offset)
        return cls(leaves=tuple(leaves), num_bytes=max(offset, ALIGNMENT), parameter_bytes=parameter_bytes)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The tensors of a flat uint8 [num_bytes] run, by name, sharing its memory."""
        return {leaf.name: leaf.view(flat) for leaf in self.leaves}

    def check(self, tensors: Mapping[str, Any]) -> None:
        """Refuse weights that do not fit this layout, or are not finite; a name may be missing.

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


def _is_finite(tensor: Tensor) -> bool:
    # A sum is many times faster than a test of each number; it may overflow, and only then is each number tested.
    return math.isfinite(tensor.sum().item()) or bool(tensor.isfinite().all())


@torch.no_grad()
def copy_weights(source: nn.Module | TensorDictBase | Mapping[str, Any], module: nn.Module) -> None:
    """Copy weights into a module, checked as a publish checks them.

    Args:
        source: see :func:`~keisei_lightning.parallel.memory.weight_sources.named_weights`.
        module: receives them.

    Raises:
        WeightsError: see :meth:`WeightLayout.check`; nothing is copied then.
    """
    if source is module:
        return
    given, own = named_weights(source), named_weights(module)
    WeightLayout.of(module).check(given)
    for name, tensor in given.items():
        own[name].copy_(tensor)


def bind_weights(
    module: nn.Module, layout: WeightLayout, parameters: Tensor, buffers: Tensor, *, buffers_from: int
) -> dict[_Leaf, nn.Parameter]:
    """Make a module's parameters and buffers views of given memory.

    Args:
        module: of the layout's structure, on any device, "meta" included.
        layout: where each tensor lies.
        parameters: uint8, a set of weights from its first byte on.
        buffers: uint8, a set of weights from ``buffers_from`` on.
        buffers_from: a byte of the set.

    Returns:
        The new parameter of each leaf; tied parameters stay tied, under the first of their names.
    """
    named = dict(named_tensors(module))
    made: dict[int, nn.Parameter] = {}
    bound: dict[_Leaf, nn.Parameter] = {}
    for leaf in layout.leaves:
        owner_name, _, attribute = leaf.name.rpartition(".")
        owner = module.get_submodule(owner_name)
        if not leaf.is_parameter:
            owner._buffers[attribute] = leaf.view(buffers, buffers_from)
            continue
        old = id(named[leaf.name])
        if old not in made:
            # .data: it counts its writes alone
            made[old] = bound[leaf] = nn.Parameter(leaf.view(parameters).data, requires_grad=False)
        owner._parameters[attribute] = made[old]
    return bound


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightMemory:
    """The published weights' shared memory and its layout. Every worker receives it when it is started.

    Attributes:
        layout: of one set of weights.
        num_readers: how many workers there are.
        shared: the memory, reserved by :meth:`reserve`.
    """

    layout: WeightLayout
    num_readers: int
    shared: SharedBuffer

    @classmethod
    def reserve(cls, layout: WeightLayout, num_readers: int) -> WeightMemory:
        """Reserve memory for two sets of weights more than there are readers.

        Raises:
            ConfigError: the machine cannot reserve this much.
        """
        num_buffers = num_readers + 2
        shared = SharedBuffer((1 + num_buffers + num_readers) * ALIGNMENT + num_buffers * layout.num_bytes)
        return cls(layout=layout, num_readers=num_readers, shared=shared)


class _WeightArrays:
    """The shared memory as arrays: a header, then the buffers.

    The header holds, a cache line each: the latest publish (``version * num_buffers + buffer``: one store sets both);
    the sequence number of each buffer; the buffer that each reader uses and the version that it has adopted.
    """

    def __init__(self, memory: WeightMemory) -> None:
        self.num_buffers = memory.num_readers + 2
        memory_array, size = memory.shared.array(), memory.layout.num_bytes
        start = memory.shared.num_bytes - self.num_buffers * size
        lines = memory_array[:start].view(np.int64).reshape(-1, _LINE)
        self.latest = lines[:1, 0]
        self.sequences = lines[1 : 1 + self.num_buffers, 0]
        self.in_use, self.adopted = lines[1 + self.num_buffers :, :2].T
        self.flats = torch.from_numpy(memory_array[start:]).split(size)


class WeightStore:
    """The learner's side: buffers in shared memory, and the version that names the latest.

    Args:
        layout: of the policy.
        num_readers: how many workers there are.

    Attributes:
        memory: for the workers.
    """

    def __init__(self, layout: WeightLayout, num_readers: int) -> None:
        self.memory = WeightMemory.reserve(layout, num_readers)
        self._arrays = _WeightArrays(self.memory)
        self._arrays.in_use[:] = _NOT_IN_USE
        self._arrays.latest[0] = self._arrays.adopted[:] = _NOT_PUBLISHED
        self._views = [layout.views(flat) for flat in self._arrays.flats]
        self._fetcher = WeightFetcher()

    @property
    def latest_version(self) -> int:
        """The version that workers adopt next; -1 before the first publish."""
        return int(self._arrays.latest[0]) // self._arrays.num_buffers

    @property
    def latest(self) -> Tensor:
        """The latest published weights: uint8 [layout.num_bytes], valid until the second publish from now."""
        flat: Tensor = self._arrays.flats[int(self._arrays.latest[0]) % self._arrays.num_buffers]
        return flat

    def adopted_version(self, reader_id: int) -> int | None:
        """The version that a worker has adopted last; None before its first."""
        version = int(self._arrays.adopted[reader_id])
        return None if version == _NOT_PUBLISHED else version

    @torch.no_grad()
    def publish(self, source: nn.Module | Mapping[str, Any], version: int) -> None:
        """Copy weights into a buffer that is not in use, then flip the version. Never waits for a worker.

        Args:
            source: the policy, or its parameters and buffers by name (:func:`named_weights`); a missing one keeps
                its last value.
            version: of these weights; more than the last.

        Raises:
            WeightsError: a name, shape or dtype differs, or a parameter is not finite; nothing is published then.
        """
        tensors = self._fetcher.on_host(named_weights(source))
        self.memory.layout.check(tensors)
        missing = [leaf.name for leaf in self.memory.layout.leaves if leaf.name not in tensors]
        arrays, latest = self._arrays, int(self._arrays.latest[0])
        if missing and latest == _NOT_PUBLISHED:
            raise WeightsError(f"weights: {missing[0]!r} is missing, and there is no earlier version to take it from")
        target = self._unused_buffer()
        arrays.sequences[target] += 1  # also if what follows is interrupted
        memory_fence()
        if missing:
            arrays.flats[target].copy_(arrays.flats[latest % arrays.num_buffers])
        views = self._views[target]
        if tensors:  # a policy may have no weights at all
            torch._foreach_copy_([views[name] for name in tensors], list(tensors.values()))
        memory_fence()
        arrays.latest[0] = version * arrays.num_buffers + target

    def _unused_buffer(self) -> int:
        """A buffer that is not the latest and that no reader has noted: of R + 2, R can be noted and one the latest."""
        memory_fence()  # a reader that notes a buffer after this look sees the flip of the previous publish
        taken = {int(self._arrays.latest[0]) % self._arrays.num_buffers, *self._arrays.in_use.tolist()}
        return next(index for index in range(self._arrays.num_buffers) if index not in taken)

    def close(self) -> None:
        """Close the shared memory's descriptor."""
        self.memory.shared.close()


class WeightReader:
    """A worker's side: lets a policy play with the latest published weights.

    Args:
        memory: of the learner's :class:`WeightStore`.
        reader_id: which reader, 0 to ``num_readers - 1``; only one of each may be alive.
        module: of the policy's structure (on any device, "meta" included); its parameters and buffers are replaced.
        device: of its weights. On the CPU its parameters are views of the shared memory itself.

    Attributes:
        version: that the module holds; -1 before the first :meth:`adopt`.
    """

    def __init__(self, memory: WeightMemory, *, reader_id: int, module: nn.Module, device: torch.device) -> None:
        self.version = -1
        self._arrays = _WeightArrays(memory)
        self._layout, self._reader_id = memory.layout, reader_id
        self._arrays.in_use[reader_id] = _NOT_IN_USE  # of an earlier incarnation
        self._arrays.adopted[reader_id] = _NOT_PUBLISHED
        self._adopted = _NOT_PUBLISHED
        self._sequence = 0
        self._writes: list[int] = []
        in_place = device.type == "cpu"
        self._copied_from = self._layout.parameter_bytes if in_place else 0
        self._copied = torch.zeros(self._layout.num_bytes - self._copied_from, dtype=torch.uint8, device=device)
        self._uploader = WeightUploader(self._copied)
        parameters = self._arrays.flats[0] if in_place else self._copied
        bound = bind_weights(module, self._layout, parameters, self._copied, buffers_from=self._copied_from)
        self._in_place = bound if in_place else {}
        self._views: dict[int, list[Tensor]] = {}  # of each buffer, made when it is first used

    @torch.no_grad()
    def adopt(self) -> int:
        """Let the module use the latest weights.

        Returns:
            Their version. The learner does not write to them before the next call.
        """
        for _ in self._adopt_in_steps():
            pass
        return self.version

    def is_latest(self) -> bool:
        """Whether no weights newer than the adopted ones were published."""
        return int(self._arrays.latest[0]) == self._adopted

    def _adopt_in_steps(self) -> Iterator[None]:
        """Adopt, with a yield wherever the learner may interleave (tests make it do so)."""
        arrays = self._arrays
        while (latest := int(arrays.latest[0])) != self._adopted:
            yield
            buffer = latest % arrays.num_buffers
            memory_fence()
            arrays.in_use[self._reader_id] = buffer
            memory_fence()
            yield
            if int(arrays.latest[0]) != latest:
                continue  # published again since: the note may have come too late
            yield
            self._sequence = int(arrays.sequences[buffer])
            for parameter, view in zip(self._in_place.values(), self._views_of(buffer), strict=True):
                parameter.data = view
            self._writes = [parameter._version for parameter in self._in_place.values()]
            self._uploader.upload(arrays.flats[buffer][self._copied_from :])
            self._adopted, self.version = latest, latest // arrays.num_buffers
            arrays.adopted[self._reader_id] = self.version
            return

    def _views_of(self, buffer: int) -> list[Tensor]:
        if buffer not in self._views:
            self._views[buffer] = [leaf.view(self._arrays.flats[buffer]) for leaf in self._in_place]
        return self._views[buffer]

    def verify(self) -> None:
        """Check that the adopted weights have not been written to since.

        Raises:
            WeightsError: the policy changed a parameter of its own (all workers see it), or the learner published into
                memory that was in use, which would be an error of this module.
        """
        for (leaf, parameter), before in zip(self._in_place.items(), self._writes, strict=True):
            if parameter._version != before:
                raise WeightsError(
                    f"weights: the policy writes to its parameter {leaf.name!r} while it plays, but workers share "
                    "their parameters' memory; keep what changes in a buffer (register_buffer): each has its own"
                )
        memory_fence()
        if int(self._arrays.sequences[self._adopted % self._arrays.num_buffers]) != self._sequence:
            raise WeightsError(f"weights: version {self.version} was overwritten while it was in use")
