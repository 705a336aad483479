"""What can be typed after ``keisei export``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from keisei_lightning.published import PREFIX
from keisei_lightning.system.options import Options, option

__all__ = ["ExportOptions"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """The keys of ``keisei export``."""

    checkpoint: str | None = option(
        None,
        f"The policy: a checkpoint file of a training run, or {PREFIX}NAME, which comes with the package; must be "
        "given.",
        form="a checkpoint file",
    )
    to: str | None = option(
        None,
        "The file to write: FILE.onnx, FILE.pt2 (torch.export) or FILE.safetensors; must be given. Its card is written "
        "beside it, as FILE.onnx.json.",
        form="a file",
    )
    format: Literal["onnx", "torch_export", "safetensors"] | None = option(
        None, "Format of the file; null: as its suffix says."
    )
    positions: int = option(
        1000, "Positions of random games on which the file is compared with the checkpoint.", low=1, high=1_000_000
    )
    tolerance: float = option(
        1e-4,
        "The largest difference in a file that is written: of a value, or of a log-probability as a part of its "
        "position's largest one.",
        above=0,
    )
    seed: int = option(0, "Seed of these games.", low=0, high=2**31 - 1)
    overwrite: bool = option(False, "Replace the file if it is there.")
    model: dict[str, Any] | None = option(
        sentence="The network of the checkpoint, where it does not tell it itself, such as "
        "{kind:resnet,num_blocks:2,channels:32}.",
        factory=dict,
    )
