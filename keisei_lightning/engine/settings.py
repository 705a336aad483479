"""What can be set of an engine, declared once: on the command line by key, and by a program with ``setoption``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from keisei_lightning.errors import ConfigError
from keisei_lightning.system.devices import DEVICE_NAMES, DEVICE_PATTERN
from keisei_lightning.system.options import Options, declared, option
from keisei_lightning.system.registry import nearest

__all__ = ["POSITIONS_PER_MB", "EngineSettings", "option_lines", "with_option"]

POSITIONS_PER_MB: Final = 200
"""Positions of a tree that a megabyte holds: with 80 legal moves each one takes 4 to 5 kB."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings(Options):
    """Options of an engine."""

    checkpoint: str = option(
        "published:shogi",
        "The policy: a checkpoint file of a training run, published:NAME, which comes with the package, or an exported "
        "model (.onnx).",
        form="a checkpoint file",
    )
    device: str = option("cpu", "Of the network.", pattern=DEVICE_PATTERN, form=DEVICE_NAMES)
    threads: int = option(1, "Threads of the network on a CPU.", low=1, high=256)
    simulations: int | None = option(
        None,
        "Positions that a search looks at for each move, whatever the clock allows; 0: the policy alone; null: as many "
        "as the time allows.",
        low=0,
        high=1_000_000,
    )
    temperature: float = option(0.0, "0: the best move; above it a sample of the search's policy.", low=0, high=10)
    lines: int = option(1, "Variations that are told of each search (MultiPV).", low=1, high=100)
    resign_value: float = option(
        0.0, "It resigns where it expects a lower score than this, from 0 to 1.", low=0, high=1
    )
    max_plies: int | None = option(
        None, "A game is drawn after so many plies; null: as in the training run.", low=1, high=10_000
    )
    network_delay_ms: int = option(
        120,
        "Milliseconds of each move's time that are kept for the way to the clock; at most half of it are.",
        low=0,
        high=60_000,
    )
    hash_mb: int = option(
        1000, f"Megabytes for a search's tree, {POSITIONS_PER_MB} positions each.", low=1, high=1_000_000
    )
    mirror: bool = option(False, "Every position is evaluated as the mean over the game's symmetries.")
    seed: int = option(0, "Root seed of the samples (temperature).", low=0, high=2**32 - 1)


@dataclass(frozen=True, slots=True)
class _Spelling:
    """How programs write a setting.

    Attributes:
        field: of :class:`EngineSettings`.
        per_unit: what 1 of the setting is for a program, which knows whole numbers alone.
        none: the number that means null.
    """

    field: str
    per_unit: int = 1
    none: int | None = None


_SPELLINGS: Final = {
    "Checkpoint": _Spelling("checkpoint"),
    "Device": _Spelling("device"),
    "Threads": _Spelling("threads"),
    "Simulations": _Spelling("simulations", none=-1),
    "Temperature": _Spelling("temperature", per_unit=100),
    "MultiPV": _Spelling("lines"),
    "ResignValue": _Spelling("resign_value", per_unit=1000),
    "MaxPlies": _Spelling("max_plies", none=0),
    "MaxMovesToDraw": _Spelling("max_plies", none=0),  # what YaneuraOu calls it, and programs look for
    "NetworkDelay": _Spelling("network_delay_ms"),
    "USI_Hash": _Spelling("hash_mb"),
    "Mirror": _Spelling("mirror"),
    "Seed": _Spelling("seed"),
}

# Programs set these everywhere. There is no book; and it ponders where it is told to.
_WITHOUT_EFFECT: Final = {"USI_Ponder": False, "OwnBook": False}


def option_lines(settings: EngineSettings, *, names: Iterable[str] = ("USI_Ponder", "OwnBook")) -> list[str]:
    """The lines ``option name ... type ...`` that tell a program what can be set.

    Args:
        settings: the defaults.
        names: of options without an effect that are told too.
    """
    known = {each.name: each for each in declared(EngineSettings)}
    lines = [f"option name {name} type check default {_word(_WITHOUT_EFFECT[name])}" for name in names]
    for name, spelling in _SPELLINGS.items():
        declaration, value = known[spelling.field], getattr(settings, spelling.field)
        if isinstance(value, bool):
            lines.append(f"option name {name} type check default {_word(value)}")
        elif declaration.bounds is None:
            lines.append(f"option name {name} type string default {value}")
        else:
            low, high = (int(end * spelling.per_unit) for end in (declaration.bounds.low, declaration.bounds.high))
            default = spelling.none if value is None else round(value * spelling.per_unit)
            low = low if spelling.none is None else min(low, spelling.none)
            lines.append(f"option name {name} type spin default {default} min {low} max {high}")
    return lines


def with_option(settings: EngineSettings, name: str, value: str) -> EngineSettings:
    """The settings with another value of one.

    Args:
        settings: before.
        name: as a program writes it; the case of letters does not matter.
        value: likewise.

    Raises:
        ConfigError: there is no such option, or it does not allow the value.
    """
    by_lower = {each.lower(): each for each in (*_SPELLINGS, *_WITHOUT_EFFECT)}
    found = by_lower.get(name.lower())
    if found is None:
        raise ConfigError(f"option {name}: there is none of this name{nearest(name, list(by_lower.values()))}")
    if found in _WITHOUT_EFFECT:
        return settings
    spelling = _SPELLINGS[found]
    line = next(line for line in option_lines(settings, names=()) if line.startswith(f"option name {found} "))
    wrong = f"option {found}: value {value!r}: must be {line.partition(' type ')[2]}"
    before = getattr(settings, spelling.field)
    given: Any = value
    if isinstance(before, bool):
        if value.lower() not in ("true", "false"):
            raise ConfigError(wrong)
        given = value.lower() == "true"
    elif " type spin " in line:
        try:
            number = int(value)
        except ValueError:
            raise ConfigError(wrong) from None
        given = None if number == spelling.none else number / spelling.per_unit if spelling.per_unit > 1 else number
    try:
        return dataclasses.replace(settings, **{spelling.field: given})
    except ConfigError:
        raise ConfigError(wrong) from None


def _word(value: bool) -> str:
    return "true" if value else "false"
