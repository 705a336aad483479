"""What can be typed after ``keisei usi`` and ``keisei engine``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from keisei_lightning.engine.settings import EngineSettings
from keisei_lightning.system.options import option

__all__ = ["EngineOptions", "UsiOptions"]


@dataclass(frozen=True, kw_only=True)
class UsiOptions(EngineSettings):
    """The keys of ``keisei usi``."""

    install: str | None = option(
        None, "Write an executable file that is this engine with these keys, and end.", form="a file"
    )


@dataclass(frozen=True, kw_only=True)
class EngineOptions(EngineSettings):
    """The keys of ``keisei engine``."""

    protocol: Literal["ugi", "gtp"] = option("ugi", "What is spoken.")
