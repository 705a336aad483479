"""Weights as they travel to other machines: a flat run of bytes, perhaps in fewer bits, perhaps compressed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keisei_lightning.errors import WeightsError
from keisei_lightning.parallel.memory.shared_buffer import aligned
from keisei_lightning.parallel.memory.weights import WeightLayout
from keisei_lightning.parallel.options import WeightCompression, WeightDtype

__all__ = ["WeightCodec"]

_ZSTD_LEVEL = 1  # weights are close to noise: a higher level takes longer and saves nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightCodec:
    """Encodes one set of weights, and decodes it.

    Attributes:
        layout: of the weights.
        dtype: of float32 parameters on the way; buffers, and parameters of other types, travel as they are.
        compression: of all bytes.
    """

    layout: WeightLayout
    dtype: WeightDtype = "float32"
    compression: WeightCompression = "none"

    def encode(self, flat: Tensor) -> NDArray[np.uint8]:
        """Encode weights.

        Args:
            flat: uint8 [layout.num_bytes].

        Returns:
            uint8 [number of bytes]. Weights that travel as they are are not copied.
        """
        if self.dtype == "bfloat16":
            parts = [
                flat[start:end].view(torch.float32).to(torch.bfloat16).view(torch.uint8)
                if is_rounded
                else flat[start:end]
                for start, end, is_rounded in self._runs()
            ]
            flat = torch.cat(parts)
        array: NDArray[np.uint8] = flat.numpy()
        return np.frombuffer(_zstd().ZstdCompressor(_ZSTD_LEVEL).compress(array), np.uint8) if self._packs else array

    def decode(self, data: NDArray[np.uint8]) -> Tensor:
        """The weights of :meth:`encode`: uint8 [layout.num_bytes], which may share the memory of ``data``.

        Raises:
            WeightsError: the bytes are not of this layout.
        """
        if self._packs:
            unpacked = _zstd().ZstdDecompressor().decompress(data, max_output_size=self.layout.num_bytes)
            data = np.frombuffer(unpacked, np.uint8)
        flat = torch.from_numpy(data if data.flags.writeable else _as_writeable(data))
        runs = list(self._runs()) if self.dtype == "bfloat16" else [(0, self.layout.num_bytes, False)]
        sizes = [(end - start) // 2 if is_rounded else end - start for start, end, is_rounded in runs]
        if len(flat) != sum(sizes):
            raise WeightsError(f"weights: {len(flat)} bytes came, must be {sum(sizes)}")
        if self.dtype == "float32":
            return flat
        parts = [
            part.view(torch.bfloat16).to(torch.float32).view(torch.uint8) if is_rounded else part
            for part, (_, _, is_rounded) in zip(flat.split(sizes), runs, strict=True)
        ]
        return torch.cat(parts)

    @property
    def _packs(self) -> bool:
        return self.compression == "zstd"

    def _runs(self) -> Iterator[tuple[int, int, bool]]:
        """Runs of leaves: (first byte, end, whether they are rounded on the way)."""
        start, end, is_rounded = 0, 0, False
        for leaf in self.layout.leaves:
            rounds = leaf.is_parameter and leaf.dtype is torch.float32
            if rounds is not is_rounded and leaf.offset > start:
                yield start, leaf.offset, is_rounded
                start = leaf.offset
            is_rounded, end = rounds, leaf.offset + aligned(leaf.num_bytes)
        yield start, max(end, self.layout.num_bytes), is_rounded


def _as_writeable(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same memory, which torch takes without a warning that it may not be written to; nobody writes to it."""
    interface: dict[str, Any] = {**array.__array_interface__, "data": (array.ctypes.data, False)}
    holder = type("_Holder", (), {"__array_interface__": interface, "owner": array})()
    return np.asarray(holder)


def _zstd() -> Any:
    import zstandard

    return zstandard
