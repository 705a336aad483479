"""Names of metrics. Whoever only reads them needs no torch."""

from __future__ import annotations

import re

__all__ = ["metric_name"]


def metric_name(player: str) -> str:
    """A player's name as a part of a metric's: ``alpha_beta(depth=5)`` becomes ``alpha_beta_depth_5``."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", player).strip("_")
