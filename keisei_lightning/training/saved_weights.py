"""The weights in a checkpoint file: as training has them, or in fewer bits, as a published policy has them.

A run's own checkpoints keep every bit. For a file that only plays, :func:`compact_weights` writes vectors as they are,
matrices in half precision, and those that are large in 8 bits: each row times a scale of its own, so that its largest
weight becomes 127 (symmetric, per output channel; as in H. Wu et al. 2020, "Integer quantization for deep learning
inference: principles and empirical evaluation", https://arxiv.org/abs/2004.09602). The scales stand beside the state
dictionary, and :func:`saved_weights` multiplies them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from keisei_lightning.errors import ConfigError

__all__ = ["SCALES_KEY", "compact_weights", "saved_weights"]

SCALES_KEY: Final = "keisei_scales"
"""Where a checkpoint keeps the scales of its 8-bit weights: float32 [rows] by the name of the weight."""

_EIGHT_BITS_FROM: Final = 65_536
_LARGEST: Final = 127


def compact_weights(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights in fewer bits.

    Args:
        weights: a state dictionary.

    Returns:
        The state dictionary of the file: float matrices are float16, or int8 from 65,536 weights on; all others are as
        they were. And what belongs under :data:`SCALES_KEY`.

    Raises:
        ValueError: a weight that half precision cannot hold.
    """
    compact, scales = dict(weights), {}
    for name, weight in weights.items():
        if weight.ndim < 2 or not weight.is_floating_point():
            continue
        if weight.numel() < _EIGHT_BITS_FROM:
            compact[name] = weight.half()
            if not compact[name].isfinite().all():
                raise ValueError(f"{name}: has a weight that is not finite in half precision")
        else:
            rows = weight.float().flatten(1)
            scale = rows.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
            compact[name] = (rows / scale[:, None]).round().to(torch.int8).view(weight.shape)
            scales[name] = scale
    return compact, scales


def saved_weights(checkpoint: Mapping[str, Any], *, path: str) -> Mapping[str, Any]:
    """The state dictionary of a loaded checkpoint.

    Args:
        checkpoint: as it was loaded.
        path: for the message.

    Returns:
        As it is in the file; where it has scales, a copy with their weights as float32.

    Raises:
        ConfigError: there is none, or one whose scales do not fit.
    """
    weights, scales = checkpoint.get("state_dict"), checkpoint.get(SCALES_KEY, {})
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        reason = "it has no 'state_dict' of names and weights"
    elif not isinstance(scales, Mapping) or not all(_fits(weights.get(name), scales[name]) for name in scales):
        reason = f"its {SCALES_KEY!r} do not fit its weights"
    else:
        whole = {name: _multiplied(weights[name], scale) for name, scale in scales.items()}
        return {**weights, **whole} if whole else weights
    raise ConfigError(f"ckpt_path={path}: cannot be read as a checkpoint ({reason})")


def _fits(weight: object, scale: object) -> bool:
    return (
        isinstance(weight, Tensor)
        and isinstance(scale, Tensor)
        and (weight.dtype, scale.dtype) == (torch.int8, torch.float32)
        and weight.ndim > 0
        and scale.shape == weight.shape[:1]
    )


def _multiplied(weight: Tensor, scale: Tensor) -> Tensor:
    return weight.float() * scale.view(-1, *[1] * (weight.ndim - 1))
