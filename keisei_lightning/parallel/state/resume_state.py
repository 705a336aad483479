"""What a collector starts from, and what a checkpoint keeps of it beside its counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keisei_lightning.parallel.intake import NOTHING_UNDELIVERED

__all__ = ["ResumeState"]


@dataclass(kw_only=True, slots=True)
class ResumeState:
    """The state that a collector starts from: an empty one, or that of a checkpoint.

    Attributes:
        undelivered: counts of complete rollouts that were not delivered, by reason.
        games_in_flight: state of each worker's games (serial only); empty: all games are new.
        opponents: the snapshot pool's state; None: the pool is empty.
    """

    undelivered: Mapping[str, int]
    games_in_flight: Sequence[Mapping[str, Any]] = ()
    opponents: Mapping[str, Any] | None = None

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> ResumeState:
        """From a :meth:`state_dict`, also of an earlier version."""
        return cls(
            undelivered={name: int(state.get(name, 0)) for name in NOTHING_UNDELIVERED},
            games_in_flight=state.get("games_in_flight", ()),
            opponents=state.get("opponents"),
        )

    def state_dict(self) -> dict[str, Any]:
        """This state as plain numbers, text and tensors."""
        return {
            **self.undelivered,
            "games_in_flight": list(self.games_in_flight),
            "opponents": self.opponents,
        }
