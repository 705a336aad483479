"""A device that is not there, and a watch over what is moved to it and from it.

``torch`` lets a backend be named and its tensors be fakes: they have shape, dtype and device, and no numbers. So what a
GPU would complain of (operands on two devices) is complained of here, and every transfer can be counted. Naming a
backend is for the whole process and for good: this is imported only by the process that ``test_devices.py`` starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "faraway"

_MOVES = ("aten::_to_copy", "aten::to", "aten::copy_", "aten::_foreach_copy_")  # "to" as it stands in inference mode
_WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::bincount", "aten::masked_select", "aten::unique")


def install() -> torch.device:
    """Name the backend; once in a process."""
    torch.utils.rename_privateuse1_backend(NAME)
    _setup_privateuseone_for_python_backend(NAME)
    module: Any = getattr(torch, NAME)
    module.get_amp_supported_dtype = lambda: [torch.bfloat16]
    _LIBRARIES.append(torch.library.Library("_", "IMPL", "AutocastPrivateUse1"))
    _LIBRARIES[-1].fallback(torch.library.fallthrough_kernel)
    _LIBRARIES.append(torch.library.Library("aten", "IMPL", "AutocastPrivateUse1"))
    for name in ("linear", "conv2d", "matmul"):
        _LIBRARIES[-1].impl(name, _in_bfloat16(getattr(torch.ops.aten, name)))
    return torch.device(NAME)


_LIBRARIES: list[Any] = []  # what they register lasts as long as they do


def _in_bfloat16(operation: Any) -> Any:
    """What autocast does on a device: the layers that profit compute in bfloat16."""
    autocast = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def cast(value: Any) -> Any:
        is_float = isinstance(value, Tensor) and value.dtype == torch.float32
        return value.to(torch.bfloat16) if is_float else value

    def run(*args: Any, **options: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(autocast):
            return operation(*map(cast, args), **options)

    return run


class MixedDevicesError(AssertionError):
    """An operation had operands on two devices, which a GPU refuses, or waits for."""


class Watch(TorchDispatchMode):
    """Counts what is moved and what is waited for, and refuses operands on two devices.

    (Fake tensors refuse most of them by themselves, but not an index on the CPU, which torch accepts on a GPU too, and
    waits while it is moved.)

    Attributes:
        to_device: transfers from the CPU.
        to_host: transfers to the CPU, each of which somebody waits for.
        waits: other operations that wait for the device: numbers and shapes that depend on its data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.to_device: list[str] = []
        self.to_host: list[str] = []
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = [operand for operand in operands if operand.device.type == NAME]
        if name in _WAITS and on_device:
            self.waits.append(name)
        if name == "aten::_local_scalar_dense" and isinstance(args[0], FakeTensor):
            return 1.0  # fakes have no numbers
        out = func(*args, **(kwargs or {}))
        if name in _MOVES:
            self._note(name, args, out)
        elif on_device and any(operand.device.type == "cpu" and operand.ndim for operand in operands):
            raise MixedDevicesError(f"{name}: operands on {sorted({str(operand.device) for operand in operands})}")
        return out

    def _note(self, name: str, args: Any, out: Any) -> None:
        target, source = (out, args[0]) if name in _MOVES[:2] else (args[0], args[1])
        pairs = zip(target, source, strict=True) if name == "aten::_foreach_copy_" else [(target, source)]
        for to, of in pairs:
            match of.device.type, to.device.type:
                case ("cpu", there) if there == NAME:
                    self.to_device.append(f"{name} {list(to.shape)}")
                case (there, "cpu") if there == NAME:
                    self.to_host.append(f"{name} {list(to.shape)}")

    def counts(self) -> tuple[int, int, int]:
        """Transfers to the device, transfers to the host, other waits."""
        return len(self.to_device), len(self.to_host), len(self.waits)


@contextmanager
def far_away() -> Iterator[None]:
    """Inside, tensors are fakes, and the device is one like others."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
