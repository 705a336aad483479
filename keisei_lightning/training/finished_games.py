"""Values of plies beside the results of their games, as far as these have ended."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tensordict import TensorDictBase

from keisei_lightning.models.transfers import to_host

__all__ = ["FinishedGames", "ValuedPlies"]

_KEPT: Final = 20_000
_MOST_PENDING: Final = 2_000_000
"""Games of a worker that was replaced never end: their plies are forgotten when there are so many."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ValuedPlies:
    """Some n plies.

    Attributes:
        game: int64 [n], the number of the game.
        mover: int8 [n], the seat to move.
        value: float32 [n], the result that the policy which played expected for the mover, from -1 to 1.
        result: int8 [n], what came of it for the mover: 1, 0 or -1; 0 of a game that has not ended.
    """

    game: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    mover: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    value: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    result: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))

    def chosen(self, which: NDArray[np.bool_] | slice) -> ValuedPlies:
        """Some of them."""
        return ValuedPlies(
            game=self.game[which], mover=self.mover[which], value=self.value[which], result=self.result[which]
        )

    @staticmethod
    def joined(*parts: ValuedPlies) -> ValuedPlies:
        """All plies of some."""
        return ValuedPlies(
            game=np.concatenate([part.game for part in parts]),
            mover=np.concatenate([part.mover for part in parts]),
            value=np.concatenate([part.value for part in parts]),
            result=np.concatenate([part.result for part in parts]),
        )


class FinishedGames:
    """The learner's plies of the games that ended last, each with its result.

    A game lies in several rollouts: its plies wait here until it ends, so that long games are in it as whole as short
    ones. A game that is cut short (``truncated``) has no result, and is left out; so are plies of frozen opponents.

    Args:
        num_kept: plies that are kept at least, where there have been as many: of the games that ended in the newest
            rollouts.
    """

    def __init__(self, num_kept: int = _KEPT) -> None:
        self._num_kept = num_kept
        self._pending = ValuedPlies()
        self._finished: deque[ValuedPlies] = deque()

    @property
    def plies(self) -> ValuedPlies:
        """Those of finished games."""
        return ValuedPlies.joined(ValuedPlies(), *self._finished)

    def add(self, rollout: TensorDictBase) -> None:
        """Take note of a rollout; nothing of it is kept that it lends.

        Args:
            rollout: [G, T] with the keys of the batch table. One without ``("collector", "traj_ids")``, as another
                package's collector may yield it, is passed over: its games cannot be told apart.
        """
        if rollout.get(("collector", "traj_ids"), None) is None:
            return
        game, mover, value, trainable, reward, done, terminated = (
            to_host(rollout.get(key).detach().flatten()).numpy() for key in _KEYS
        )
        own = trainable.astype(np.bool_)
        new = ValuedPlies(
            game=game[own],
            mover=mover[own],
            value=value[own].astype(np.float32),
            result=np.zeros(int(own.sum()), dtype=np.int8),
        )
        plies = ValuedPlies.joined(self._pending, new)
        ends = np.flatnonzero(terminated)
        ends = ends[np.argsort(game[ends], kind="stable")]
        has_ended = np.isin(plies.game, game[ends])
        if ends.size:
            of_first = np.sign(reward[ends]).astype(np.int8) * _sign(mover[ends])
            finished = plies.chosen(has_ended)
            result = of_first[np.searchsorted(game[ends], finished.game)] * _sign(finished.mover)
            self._finished.append(
                ValuedPlies(game=finished.game, mover=finished.mover, value=finished.value, result=result)
            )
        is_over = np.isin(plies.game, game[done])
        self._pending = plies.chosen(~is_over).chosen(slice(-_MOST_PENDING, None))
        while sum(len(part.game) for part in islice(self._finished, 1, None)) >= self._num_kept:
            self._finished.popleft()


def _sign(mover: NDArray[np.int8]) -> NDArray[np.int8]:
    """1 of the first seat, -1 of the second."""
    return (1 - 2 * mover).astype(np.int8)


_KEYS: Final = (
    ("collector", "traj_ids"),
    "mover",
    "state_value",
    "trainable",
    ("next", "reward"),
    ("next", "done"),
    ("next", "terminated"),
)
