"""Tries of many trees: where each goes, and what was found there on its way back; in NumPy, or compiled."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from keisei_lightning.search.compiled_tries import CompiledTries, why_not_compiled
from keisei_lightning.search.forest import NO_EDGE, NO_NODE, UNKNOWN, Floats, Forest, Ints
from keisei_lightning.search.selection import Look, Selection

__all__ = ["NumpyTries", "Tries", "make_tries"]


class Tries(Protocol):
    """Goes down trees and up again."""

    def find_leaves(self, roots: Ints, trees: Ints) -> Ints:
        """Begin tries, one after another.

        Args:
            roots: int64 [n], root of the tree of each; a tree may be among them several times.
            trees: int64 [n], which of those that the selection began with.

        Returns:
            int64 [n], edges behind which nobody has looked; ``NO_EDGE`` where all are being looked behind now. All
            edges on the way have one more try that goes on.
        """
        ...

    def back_up(self, leaves: Ints, values: Floats, movers: NDArray[np.int8], results: NDArray[np.int8]) -> None:
        """End tries.

        Args:
            leaves: int64 [n], from :meth:`find_leaves`.
            values: float64 [n], what was found there, in the view of ``movers``.
            movers: int8 [n].
            results: int8 [n], the exact value of each edge in the view of who moves there; ``UNKNOWN`` where it is not.
        """
        ...


class NumpyTries(Tries):
    """The tries in NumPy: where there is no compiled library, and what that is compared with.

    Args:
        forest: the trees.
        selection: how an edge is chosen.
    """

    def __init__(self, forest: Forest, selection: Selection) -> None:
        self._forest, self._selection = forest, selection

    @override
    def find_leaves(self, roots: Ints, trees: Ints) -> Ints:
        leaves, left = np.full(len(roots), NO_EDGE), np.arange(len(roots))
        while left.size:
            _, first = np.unique(trees[left], return_index=True)  # one try of each tree at once
            now = np.sort(left[first])
            leaves[now] = self._descend(roots[now], trees[now])
            found = leaves[now]
            self._forest.begin_tries(found[found != NO_EDGE])
            left = np.setdiff1d(left, now)
        return leaves

    @override
    def back_up(self, leaves: Ints, values: Floats, movers: NDArray[np.int8], results: NDArray[np.int8]) -> None:
        self._forest.end_tries(leaves, values, movers)
        known = results != UNKNOWN
        self._forest.prove(leaves[known], results[known].astype(np.int64))

    def _descend(self, roots: Ints, trees: Ints) -> Ints:
        forest, leaves = self._forest, np.full(len(roots), NO_EDGE)
        at, nodes, is_root = np.arange(len(roots)), roots, True
        while at.size:
            look = Look.at(forest, nodes)
            column = self._selection.try_at_root(look, trees[at]) if is_root else self._selection.try_inside(look)
            rows = np.arange(len(at))
            is_open = look.is_open[rows, column]
            at, edges = at[is_open], look.edges[rows, column][is_open]
            nodes = forest.edges.child[edges]
            leaves[at[nodes == NO_NODE]] = edges[nodes == NO_NODE]
            at, nodes, is_root = at[nodes != NO_NODE], nodes[nodes != NO_NODE], False
        return leaves


def make_tries(forest: Forest, selection: Selection, *, compiled: bool | None = None) -> Tries:
    """Tries of a forest.

    Args:
        forest: the trees.
        selection: how an edge is chosen.
        compiled: by the compiled library; None: where there is one.

    Raises:
        ConfigError: it is asked for, and there is none.
    """
    if compiled is False or (compiled is None and why_not_compiled()):
        return NumpyTries(forest, selection)
    return CompiledTries(forest, selection)
