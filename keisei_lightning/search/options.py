"""How a search looks at moves, declared once: for players, matches and training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from keisei_lightning.system.options import Options, option

__all__ = ["SearchOptions"]


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Options):
    """Options of a tree search."""

    simulations: int = option(64, "Positions that a search adds to its tree for a move; 0: the policy alone.", low=0)
    seconds: float | None = option(None, "The longest time for a move, in seconds; null: no limit.", above=0)
    method: Literal["gumbel", "puct"] = option(
        "gumbel", "How moves are tried: by sequential halving and improved policies (gumbel), or by PUCT (puct)."
    )
    considered_moves: int = option(16, "Moves that sequential halving begins with (gumbel).", low=1)
    value_scale: float = option(1.0, "Weight of values beside the policy (gumbel).", above=0)
    exploration: float = option(1.5, "Weight of the policy beside values (puct).", above=0)
    leaves: int = option(
        8, "Positions of one tree that are evaluated at once, where there are not as many trees.", low=1
    )
    max_nodes: int = option(100_000, "Positions that one tree may hold, those of earlier moves included.", low=1)
    mirror: bool = option(False, "Every position is evaluated as the mean over the game's symmetries.")
    mate_nodes: int = option(
        1000, "Positions of the game's own search for a forced win (mate) before each move; 0: none.", low=0
    )
    leaf_mate_nodes: int = option(0, "The same at each new position of the tree.", low=0)
