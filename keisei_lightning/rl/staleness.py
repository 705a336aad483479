"""How old the policy that played a rollout is.

The *policy lag* of a rollout is the latest published policy version minus the version that played it. PPO's clipping
tolerates a little of it; :class:`StalenessBudget` says how much a learner accepts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from keisei_lightning.errors import ConfigError

__all__ = ["StalenessBudget", "policy_lag"]

VersionT = TypeVar("VersionT", int, Tensor)


def policy_lag(latest: int, policy_version: VersionT) -> VersionT:
    """Latest published version minus the version that played.

    Args:
        latest: latest published version.
        policy_version: one version, or int64 [...] of them.

    Returns:
        The lag, 0 or more, like ``policy_version``.

    Raises:
        ValueError: a version is newer than the latest one, so it was never published.
    """
    lag = latest - policy_version
    lowest = lag if isinstance(lag, int) else int(lag.min()) if lag.numel() else 0
    if lowest < 0:
        raise ValueError(f"policy_version={latest - lowest} is newer than the latest published version {latest}")
    return lag


@dataclass(frozen=True, slots=True)
class StalenessBudget:
    """How much policy lag a learner accepts.

    Args:
        max_policy_lag: greatest lag still accepted; 0 accepts the latest version alone (on-policy).

    Raises:
        ConfigError: the greatest lag is negative.
    """

    max_policy_lag: int

    def __post_init__(self) -> None:
        if self.max_policy_lag < 0:
            raise ConfigError(f"parallel.max_policy_lag={self.max_policy_lag}: must be 0 or more")
