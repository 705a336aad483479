"""What can be typed after ``keisei positions``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keisei_lightning.published import PREFIX
from keisei_lightning.system.devices import device_option
from keisei_lightning.system.options import Options, option

__all__ = ["PositionsOptions"]


@dataclass(frozen=True, kw_only=True)
class PositionsOptions(Options):
    """The keys of ``keisei positions``."""

    records: list[str] = option(
        sentence="Games: records/ of an evaluation, any folder of records, or files, also .hcpe3.",
        factory=lambda: ["."],
    )
    to: str | None = option(
        None,
        "The file that is written: its ending tells the format, .npz for every game, .psv, .hcpe and .hcpe3 for shogi.",
        form="a file",
    )
    checkpoint: str | None = option(
        None,
        f"Evaluates each position: a checkpoint file of a training run, or {PREFIX}NAME, which comes with the package; "
        "null: values and policies are those of an .hcpe3 record, others have none.",
        form="a checkpoint file",
    )
    simulations: int = option(
        0, "Positions that a tree search looks at for each evaluation; 0: the network alone.", low=0
    )
    batch_size: int = option(256, "Positions that are evaluated at once.", low=1, high=65_536)
    score_scale: float = option(
        600.0, "Centipawns by which the odds of winning grow e-fold: score = score_scale * ln(p / (1 - p)).", above=0
    )
    game: str | None = option(
        None,
        "By a name that `keisei games` lists, or one of OpenSpiel's; null: the checkpoint or the record says it, or "
        "the record's format is that of one game alone.",
        form="the name of a game",
    )
    model: dict[str, Any] | None = option(
        sentence="The network of the checkpoint, where it does not tell it itself, such as "
        "{kind:resnet,num_blocks:2,channels:32}.",
        factory=dict,
    )
    overwrite: bool = option(False, "Replace the file if it is there already.")
    device: str = device_option()
