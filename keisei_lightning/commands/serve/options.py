"""What can be typed after ``keisei serve``."""

from __future__ import annotations

from dataclasses import dataclass

from keisei_lightning.published import PREFIX
from keisei_lightning.system.devices import device_option
from keisei_lightning.system.options import Options, option

__all__ = ["ServeOptions"]


@dataclass(frozen=True, kw_only=True)
class ServeOptions(Options):
    """The keys of ``keisei serve``."""

    folder: str = option("results", "The folder with the trainings to watch and their checkpoints.", form="a folder")
    checkpoint: str | None = option(
        None,
        f"A policy to be offered first: a checkpoint file, or {PREFIX}NAME, which comes with the package.",
        form="a checkpoint file",
    )
    host: str = option(
        "127.0.0.1",
        "The address to listen at; 0.0.0.0: all of this machine's. Beyond this machine a token is always needed.",
        form="a name or an address",
    )
    port: int = option(8008, "The port to listen at; 0: any free one.", low=0, high=65_535)
    token: str | None = option(
        None,
        "What a browser must know to be let in; null: nothing on this machine alone, and otherwise made and printed.",
        pattern=r"[A-Za-z0-9_-]{16,200}",
        form="at least 16 letters, digits, - or _",
    )
    open: bool = option(True, "Open the page in a browser, if this machine has one.")
    max_games: int = option(
        64, "Games that are kept; for a further one the one that was idle longest goes.", low=1, high=10_000
    )
    threads: int = option(2, "Searches that run side by side.", low=1, high=64)
    device: str = device_option()
