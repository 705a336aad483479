"""Names of devices, as options give them: their one pattern, and what "auto" means. No torch is needed to read them."""

from __future__ import annotations

import re
from typing import Any, Final

from keisei_lightning.system.options import option

__all__ = ["DEVICE_NAMES", "DEVICE_PATTERN", "cuda_index", "device_errors", "device_option", "resolve_device_name"]

DEVICE_NAMES: Final = "auto, cpu, cuda or cuda:N"
"""What may be given, in words."""

DEVICE_PATTERN: Final = r"auto|cpu|cuda(:\d+)?"
"""The same, as a regular expression."""


def device_option() -> Any:
    """The option ``device`` of a command that reads policies."""
    sentence = "Of the networks; auto: cuda if there is one. An exported model (.onnx) is evaluated on the CPU."
    return option("auto", sentence, pattern=DEVICE_PATTERN, form=DEVICE_NAMES)


def cuda_index(name: str) -> int | None:
    """The number of the CUDA device that a name asks for; None for "cpu" and "auto"."""
    if not name.startswith("cuda"):
        return None
    return int(name.partition(":")[2] or 0)


def device_errors(key: str, name: object, *, num_cuda_devices: int | None = None) -> list[str]:
    """Check a device's name, and that the device exists.

    Args:
        key: of the option, as the message is to name it.
        name: "auto", "cpu", "cuda" or "cuda:N".
        num_cuda_devices: how many there are (``torch.cuda.device_count()``); None: not known, so that only the form of
            the name is checked.

    Returns:
        No line, or one that says what is legal.
    """
    if not isinstance(name, str) or not re.fullmatch(DEVICE_PATTERN, name):
        return [f"{key}={name}: must be {DEVICE_NAMES}"]
    index = cuda_index(name)
    if index is None or num_cuda_devices is None or index < num_cuda_devices:
        return []
    legal = f"cuda:0 to cuda:{num_cuda_devices - 1}" if num_cuda_devices else "cpu (there is no GPU here)"
    return [f"{key}={name}: must be {legal}"]


def resolve_device_name(name: str, *, num_cuda_devices: int, number: int = 0) -> str:
    """The device that a name stands for: "auto" is a CUDA device where there is one, else the CPU.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N"; all but "auto" are returned as they are.
        num_cuda_devices: how many there are (``torch.cuda.device_count()``).
        number: of the process that asks; "auto" assigns the CUDA devices to processes in turn.
    """
    if name != "auto":
        return name
    return f"cuda:{number % num_cuda_devices}" if num_cuda_devices else "cpu"
