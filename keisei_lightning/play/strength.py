"""How strongly a policy plays with people, declared once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from keisei_lightning.errors import ConfigError
from keisei_lightning.system.options import Options, option, spelled
from keisei_lightning.system.paths import one_line

__all__ = ["StrengthOptions", "change_strength"]


@dataclass(frozen=True, kw_only=True)
class StrengthOptions(Options):
    """How a policy chooses its moves."""

    simulations: int = option(
        64, "Positions that the policy's search looks at for a move; 0: the policy alone.", low=0, high=10_000_000
    )
    seconds: float | None = option(
        None, "The longest time for a move of the policy, in seconds, within simulations; null: no limit.", above=0
    )
    temperature: float = option(
        0.0, "Of the policy's choice: 0 plays the best move, 1 samples from what it thinks of all.", low=0, high=100
    )

    def __str__(self) -> str:
        """The values as they can be typed."""
        values = ((key.name, getattr(self, key.name)) for key in dataclasses.fields(StrengthOptions))
        return " ".join(f"{name}={spelled(value, none='null')}" for name, value in values)


def change_strength(strength: StrengthOptions, words: str) -> StrengthOptions:
    """A strength with some values changed.

    Args:
        strength: as it was.
        words: such as ``"simulations=800 temperature=0.5"``.

    Raises:
        ConfigError: a word names no value, or a value is not legal.
    """
    known = [key.name for key in dataclasses.fields(strength)]
    values: dict[str, Any] = {}
    for word in words.split():
        key, equals, text = word.partition("=")
        if not equals or key not in known:
            raise ConfigError(f"strength {one_line(word)}: must be KEY=VALUE with KEY one of {', '.join(known)}")
        values[key] = _read(text)
    return dataclasses.replace(strength, **values)


def _read(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None if text in ("null", "none") else text
