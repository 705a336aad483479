"""Every command once: where its program is, and its keys. Nothing of it is imported before it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from keisei_lightning.system.options import Options

__all__ = ["COMMANDS", "Command"]


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        module: within :mod:`keisei_lightning.commands`; its ``main`` takes the words behind the command's name and
            returns an exit code.
        options: where the dataclass of its keys is, ``module:Class``; empty: it takes no keys, or has words of its own.
    """

    module: str
    options: str = ""

    def main(self) -> Callable[[Sequence[str]], int]:
        """The program."""
        return cast(Callable[[Sequence[str]], int], _named(self.module, "main"))

    def keys(self) -> type[Options] | None:
        """The dataclass of its keys."""
        return cast(type[Options], _named(*self.options.split(":"))) if self.options else None


COMMANDS: Final = {
    "train": Command("train"),
    "eval": Command("evaluate", "evaluate.options:EvalOptions"),
    "play": Command("play", "play.options:PlayOptions"),
    "usi": Command("usi", "engine_options:UsiOptions"),
    "engine": Command("engine", "engine_options:EngineOptions"),
    "serve": Command("serve", "serve.options:ServeOptions"),
    "export": Command("export", "export.options:ExportOptions"),
    "convert": Command("convert", "convert.options:ConvertOptions"),
    "positions": Command("positions", "positions.options:PositionsOptions"),
    "runs": Command("runs"),
    "bench": Command("bench"),
    "doctor": Command("doctor", "doctor:DoctorOptions"),
    "games": Command("games"),
}


def _named(module: str, name: str) -> object:
    return getattr(importlib.import_module(f"keisei_lightning.commands.{module}"), name)
