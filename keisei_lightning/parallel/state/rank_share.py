"""One collection on several learners (ranks): each collector plays a part of the workers, and counts its own plies.

The workers of all ranks are numbered through, and a batch is the batches of all ranks together. So R collectors of W
workers play the games that one collector of R x W workers would play, and what a checkpoint says of the collection does
not depend on the number of ranks: :func:`joined_states` makes it of the ranks' own, :func:`own_state` gives each rank
its part of it.
"""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keisei_lightning.parallel.intake import NOTHING_UNDELIVERED

__all__ = ["RankShare", "joined_states", "own_state"]

_OF_ALL = "plies_of_all_ranks"
_COUNTS = ("plies", "games", *NOTHING_UNDELIVERED)


@dataclass(frozen=True, kw_only=True, slots=True)
class RankShare:
    """A collector's part of the collection.

    Attributes:
        rank: which learner it plays for.
        num_ranks: how many there are. All have as many workers, and deliver as many batches.
        before: plies that all ranks together had delivered when this share began to count.
        own_before: how many of them this collector had delivered.
    """

    rank: int = 0
    num_ranks: int = 1
    before: int = 0
    own_before: int = 0

    @classmethod
    def counting(cls, rank: int, num_ranks: int, plies: int, own: int) -> RankShare:
        """A share that begins to count where all ranks have delivered ``plies``, this collector ``own`` of them."""
        return cls(rank=rank, num_ranks=num_ranks, before=plies, own_before=own)

    def state(self, own: int) -> dict[str, int]:
        """The counts of a checkpoint; alone, a collector's own are those of all."""
        return {"plies": own, **({_OF_ALL: self.plies(own)} if self.num_ranks > 1 else {})}

    def restored(self, state: Mapping[str, Any], own: int) -> RankShare:
        """The share that resumes from a collector's state."""
        return RankShare.counting(self.rank, self.num_ranks, int(state.get(_OF_ALL, own)), own)

    def plies(self, own: int) -> int:
        """Plies that all ranks have delivered, where this collector has delivered ``own``."""
        return self.before + self.num_ranks * (own - self.own_before)

    def workers(self, num_workers: int) -> range:
        """The numbers of this collector's workers among those of all ranks, each of which has ``num_workers``."""
        return range(self.rank * num_workers, (self.rank + 1) * num_workers)


def joined_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The state of the whole collection.

    Args:
        states: of the collectors of all ranks (:meth:`SelfPlayCollector.state_dict`), between the same two batches.
    """
    first = states[0]
    joined = {**first, **{name: sum(int(state[name]) for state in states) for name in _COUNTS}}
    joined.pop(_OF_ALL, None)
    games = [state["games_in_flight"] for state in states]
    joined["games_in_flight"] = [game for part in games for game in part] if all(games) else []
    if first["opponents"] is not None:
        pools = [state["opponents"] for state in states]
        joined["opponents"] = {
            **pools[0],
            "draws": dict(functools.reduce(operator.or_, (Counter(pool["draws"]) for pool in pools))),  # the largest
            **{name: {k: v for pool in pools for k, v in pool[name].items()} for name in ("in_flight", "weights")},
        }
    return joined


def own_state(state: Mapping[str, Any], *, rank: int, num_ranks: int, workers_per_rank: int) -> dict[str, Any]:
    """A rank's part of the state of the whole collection.

    The counts go to the first rank: what matters is their sum. Games go on where there are as many workers, of all
    ranks, as there were; otherwise all games are new.

    Args:
        state: of the whole collection, of any number of ranks.
        rank: whose part.
        num_ranks: learners there are now.
        workers_per_rank: workers of each.
    """
    workers = RankShare(rank=rank, num_ranks=num_ranks).workers(workers_per_rank)
    plies = int(state["plies" if "plies" in state else "frames"])  # an older name
    own: dict[str, Any] = {**state, "plies": plies}
    if num_ranks > 1:
        own[_OF_ALL] = plies
    if rank > 0:
        own |= dict.fromkeys(_COUNTS, 0)
    games = list(state.get("games_in_flight", ()))
    own["games_in_flight"] = games[workers.start : workers.stop] if len(games) == num_ranks * workers_per_rank else []
    if (pool := state.get("opponents")) is not None:
        in_flight = {worker: versions for worker, versions in pool["in_flight"].items() if int(worker) in workers}
        own["opponents"] = {**pool, "in_flight": in_flight}
    return own
