"""Whom the learner plays against, beside frozen selves: other policies, scripts, searches and engines."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass

from torch import Tensor, nn

from keisei_lightning.errors import ConfigError, WeightsError
from keisei_lightning.parallel.memory.weight_sources import named_weights
from keisei_lightning.parallel.memory.weights import WeightLayout
from keisei_lightning.parallel.opponents.players import PlayerMember
from keisei_lightning.parallel.options import OpponentOptions

__all__ = ["League", "PolicyMember", "guest_version", "pinned_version"]

_FIRST_PINNED = 1 << 40
"""Stands for a policy of a league where a snapshot's version is expected; no run publishes as many versions."""

_FIRST_GUEST = 1 << 60
"""Stands for the first snapshot of another run; the further ones follow."""


@dataclass(frozen=True, slots=True)
class PolicyMember:
    """A policy that stays in the league: one from another run, say.

    Attributes:
        name: in tables and metrics; different from those of the other members.
        policy: of the learner's structure; its weights are copied when the collector starts.
    """

    name: str
    policy: nn.Module


@dataclass(frozen=True, kw_only=True, slots=True)
class League:
    """The opponents of a collector.

    Attributes:
        options: share of the games, size of the ring of snapshots, choice of an opponent.
        players: opponents that choose moves by themselves, in the workers.
        policies: frozen policies that never leave.

    Raises:
        ConfigError: two members have the same name.
    """

    options: OpponentOptions
    players: tuple[PlayerMember, ...] = ()
    policies: tuple[PolicyMember, ...] = ()

    def __post_init__(self) -> None:
        counts = Counter([player.name for player in self.players] + [policy.name for policy in self.policies])
        if errors := [f"league: {name} is a member {n} times; must be one once" for name, n in counts.items() if n > 1]:
            raise ConfigError(errors)

    @classmethod
    def of(cls, opponents: OpponentOptions | League) -> League:
        """A league; of options alone, one whose only members are snapshots."""
        return opponents if isinstance(opponents, League) else cls(options=opponents)

    @classmethod
    def checked(cls, opponents: OpponentOptions | League, policy: nn.Module) -> League:
        """The same, whose policies are of the learner's network; ConfigError with a line for each that is not."""
        league = cls.of(opponents)
        league._check_policies(WeightLayout.of(policy))
        return league

    @property
    def num_buffers(self) -> int:
        """Sets of weights in shared memory."""
        return self.options.num_buffers + len(self.policies)

    def _check_policies(self, layout: WeightLayout) -> None:
        errors = []
        for member in self.policies:
            tensors = named_weights(member.policy)
            try:
                layout.check(tensors)
            except WeightsError as error:
                errors.append(f"league: {member.name} is no policy of the learner's network ({error})")
                continue
            if missing := next((leaf.name for leaf in layout.leaves if leaf.name not in tensors), None):
                errors.append(f"league: {member.name} is no policy of the learner's network (it has no {missing})")
        if errors:
            raise ConfigError(errors)


def guest_version(number: int) -> int:
    """What stands for a snapshot of another run where a version is expected.

    Args:
        number: how many of them came before.
    """
    return _FIRST_GUEST + number


def pinned_version(number: int, weights: Tensor) -> int:
    """What stands for a policy that never leaves where a snapshot's version is expected; other weights, another one.

    Args:
        number: of the policy, among those of its league.
        weights: uint8 [n].
    """
    return _FIRST_PINNED | number << 32 | zlib.crc32(weights.numpy().data)
