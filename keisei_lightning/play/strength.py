"""How strongly a policy plays with people, declared once."""

from __future__ import annotations

from dataclasses import dataclass

from keisei_lightning.system.options import Options, option

__all__ = ["StrengthOptions"]


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
