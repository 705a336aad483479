"""Who plays a match: this process alone, or several that share its games out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["Partners"]

T = TypeVar("T")


class Partners(Protocol):
    """Others who play a part of the same match, such as the learners (ranks) of one training.

    Attributes:
        rank: which one this is, from 0.
        size: how many there are.
    """

    rank: int
    size: int

    def collect(self, what: str, work: Callable[[], T]) -> list[T]:
        """Do something on all of them; each gets the results of all.

        Args:
            what: is done, for the message of an error.
            work: does it here. What it returns is pickled; large data stays in a variable of its own.

        Returns:
            The results, in the order of the ranks.

        Raises:
            BaseException: what ``work`` raised here.
            RankError: it raised on another rank.
            Stopped: a signal stopped it on any rank; no rank failed otherwise.
        """
        ...
