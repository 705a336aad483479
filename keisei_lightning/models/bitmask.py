"""Legal-move masks as bits: one byte for eight actions, in ``np.packbits`` order.

A dense boolean mask of shogi is 2187 bytes a position; as bits it is 274, less than three times the observation. Both
directions run on any device, without a Python loop. On the CPU there is no arithmetic on single bits either: one table
look-up turns a byte into eight booleans, and one integer multiplication turns eight booleans into a byte. On other
devices the bits are shifted out: arithmetic is cheap there, and no table must be transferred.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["pack_mask", "unpack_mask"]

_GATHER_BITS = -0x7FBFDFEFF7FBFDFF
"""0x8040201008040201 as a signed 64-bit number: moves bit 8 i of a word to bit 63 - i."""


@cache
def _bools_of_byte() -> Tensor:
    """int64 [256]: entry b holds the eight booleans of byte b, first action first in memory."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    with torch.inference_mode(mode=False):
        return torch.from_numpy(bits).view(torch.int64).flatten()


def _unpack_by_table(packed: Tensor) -> Tensor:
    """Bool [..., 8 n] of uint8 [..., n], on the CPU."""
    words = _bools_of_byte().index_select(0, packed.reshape(-1).int())
    return words.view(torch.bool).view(*packed.shape[:-1], 8 * packed.shape[-1])


def _unpack_by_shifts(packed: Tensor) -> Tensor:
    """Bool [..., 8 n] of uint8 [..., n], on any device."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    bits = packed.unsqueeze(-1).bitwise_right_shift(shifts).bitwise_and(1)
    return bits.view(torch.bool).flatten(-2)


def unpack_mask(packed: Tensor, num_actions: int) -> Tensor:
    """Turn bits into booleans.

    Args:
        packed: uint8 [..., ceil(A / 8)], in ``np.packbits`` order.
        num_actions: A.

    Returns:
        bool [..., A].

    Raises:
        ValueError: the dtype or the number of bytes does not fit.
    """
    if packed.dtype != torch.uint8 or packed.shape[-1] != (num_actions + 7) // 8:
        raise ValueError(
            f"a packed mask of {num_actions} actions is uint8 [..., {(num_actions + 7) // 8}], "
            f"not {packed.dtype} {list(packed.shape)}"
        )
    unpack = _unpack_by_table if packed.device.type == "cpu" else _unpack_by_shifts
    return unpack(packed)[..., :num_actions]


def pack_mask(mask: Tensor) -> Tensor:
    """Turn booleans into bits.

    Args:
        mask: bool [..., A].

    Returns:
        uint8 [..., ceil(A / 8)], in ``np.packbits`` order; the unused bits of the last byte are zero.

    Raises:
        ValueError: the mask is not boolean.
    """
    if mask.dtype != torch.bool:
        raise ValueError(f"a mask to pack must be bool, not {mask.dtype}")
    num_actions = mask.shape[-1]
    padded = mask.new_zeros(*mask.shape[:-1], (num_actions + 7) // 8, 8)
    padded.flatten(-2)[..., :num_actions] = mask
    return (padded.view(torch.int64).squeeze(-1) * _GATHER_BITS).bitwise_right_shift(56).to(torch.uint8)
