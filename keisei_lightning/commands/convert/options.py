"""What can be typed after ``keisei convert``."""

from __future__ import annotations

from dataclasses import dataclass

from keisei_lightning.system.options import Options, option

__all__ = ["ConvertOptions"]


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(Options):
    """The keys of ``keisei convert``."""

    record: list[str] = option(sentence="Files of games; a folder stands for all records in it.", factory=lambda: ["."])
    to: str | None = option(
        None, "Where they are written: a file, or a folder where `format` is given.", form="a file or a folder"
    )
    format: str | None = option(
        None,
        "The format in the folder `to`: an ending such as csa; null: `to` is a file, whose ending says it.",
        pattern=r"\.?[A-Za-z0-9]+",
        form="the ending of a file's name",
    )
    game: str | None = option(
        None,
        "By a name that `keisei games` lists, or one of OpenSpiel's; null: the record says it, or its format is that "
        "of one game alone.",
        form="the name of a game",
    )
    overwrite: bool = option(False, "Replace files that are there already.")
