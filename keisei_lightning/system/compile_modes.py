"""Modes of ``torch.compile``, as options give them. No torch is needed to read them."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["COMPILE_MODES", "CompileMode"]

CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""The second and third record CUDA graphs on an accelerator."""

COMPILE_MODES: Final[tuple[str, ...]] = get_args(CompileMode)
