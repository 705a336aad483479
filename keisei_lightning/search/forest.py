"""Many search trees in flat arrays, so that one NumPy operation advances all of them. It knows no game and no network.

A node is a position, an edge a legal move of it. Everything at a node and its edges is in the view of its *mover*, the
player to move there: going up, a value changes its sign where the movers differ, so turns need not alternate.

**Proofs.** Each edge has bounds on its exact value, [low, high] within [-1, 1] (Cazenave & Saffidine 2010, Score
Bounded Monte-Carlo Tree Search; with the two ends alone: Winands et al. 2008, Monte-Carlo Tree Search Solver). The end
of a game closes them; a node's bounds are the highest of its edges'. An edge whose bounds have met is never tried
again, nor one that cannot be better than what another edge is proven to give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_EDGE", "NO_NODE", "UNKNOWN", "Expansion", "Floats", "Forest", "Ints"]

NO_NODE: Final = -1
NO_EDGE: Final = -1
UNKNOWN: Final = 2  # no exact value

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class _Table:
    """Columns of equal length that grow together; a column is an attribute.

    Args:
        columns: dtype and first value by name.

    Attributes:
        size: number of rows.
        moves: how often the columns have been moved to another place of memory.
    """

    def __init__(self, columns: dict[str, tuple[Any, float]]) -> None:
        self._columns = columns
        self.size = self.moves = 0
        self._room = 1024  # rows beyond the size hold the first values
        for name, (dtype, fill) in columns.items():
            setattr(self, name, np.full(self._room, fill, dtype))

    def add(self, count: int) -> slice:
        """Append rows with the first values."""
        start, self.size = self.size, self.size + count
        if self.size > self._room:
            more = max(self._room, count)
            for name, (dtype, fill) in self._columns.items():
                setattr(self, name, np.concatenate([getattr(self, name), np.full(more, fill, dtype)]))
            self._room, self.moves = self._room + more, self.moves + 1
        return slice(start, self.size)

    def keep(self, rows: Ints) -> None:
        """Keep these rows, in this order."""
        before, self.size = self.size, len(rows)
        for name, (_, fill) in self._columns.items():
            column = getattr(self, name)
            column[: self.size] = column[rows]
            column[self.size : before] = fill


class _Nodes(_Table):
    """Nodes.

    Attributes:
        parent: int64, edge that leads here; ``NO_EDGE`` at a root.
        first, count: int64, its edges.
        mover: int8, the seat to move.
        value: float64, the network's.
        low, high: int8, bounds of the exact value.
    """

    parent: Ints
    first: Ints
    count: Ints
    mover: NDArray[np.int8]
    value: Floats
    low: NDArray[np.int8]
    high: NDArray[np.int8]

    def __init__(self) -> None:
        super().__init__(
            {
                "parent": (np.int64, NO_EDGE),
                "first": (np.int64, 0),
                "count": (np.int64, 0),
                "mover": (np.int8, 0),
                "value": (np.float64, 0),
                "low": (np.int8, -1),
                "high": (np.int8, 1),
            }
        )


class _Edges(_Table):
    """Edges.

    Attributes:
        node: int64, where it starts.
        child: int64, where it leads; ``NO_NODE``: nobody has looked yet, or the game ends there.
        action: int64, label of the move.
        log_prior, prior: float64, log-probability and probability of the policy.
        visits: int64, how often it was tried.
        total: float64, sum of the values of those tries.
        pending: int64, tries that go on.
        low, high: int8, bounds of the exact value.
    """

    node: Ints
    child: Ints
    action: Ints
    log_prior: Floats
    prior: Floats
    visits: Ints
    total: Floats
    pending: Ints
    low: NDArray[np.int8]
    high: NDArray[np.int8]

    def __init__(self) -> None:
        super().__init__(
            {
                "node": (np.int64, NO_NODE),
                "child": (np.int64, NO_NODE),
                "action": (np.int64, 0),
                "log_prior": (np.float64, 0),
                "prior": (np.float64, 1),
                "visits": (np.int64, 0),
                "total": (np.float64, 0),
                "pending": (np.int64, 0),
                "low": (np.int8, -1),
                "high": (np.int8, 1),
            }
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Expansion:
    """Nodes to add.

    Attributes:
        movers: int8 [n].
        counts: int64 [n], legal moves of each.
        actions: int64 [sum(counts)], their labels, node after node.
        log_priors: float64 [sum(counts)].
        values: float64 [n], in the mover's view.
    """

    movers: NDArray[np.int8]
    counts: Ints
    actions: Ints
    log_priors: Floats
    values: Floats


class Forest:
    """Trees, and what is known of their moves.

    Attributes:
        nodes: positions.
        edges: their legal moves.
        most_edges: the most that one node has had.
    """

    def __init__(self) -> None:
        self.nodes, self.edges, self.most_edges = _Nodes(), _Edges(), 1

    # ---- growing

    def add_nodes(self, parents: Ints, expansion: Expansion) -> Ints:
        """Add a node behind each of some edges.

        Args:
            parents: int64 [n]; ``NO_EDGE`` for a root.
            expansion: of n nodes.

        Returns:
            The nodes, int64 [n].
        """
        nodes, edges = self.nodes, self.edges
        rows = nodes.add(len(parents))
        new = np.arange(rows.start, rows.stop)
        added = edges.add(int(expansion.counts.sum()))
        nodes.parent[rows], nodes.mover[rows], nodes.value[rows] = parents, expansion.movers, expansion.values
        nodes.count[rows] = expansion.counts
        self.most_edges = max(self.most_edges, int(expansion.counts.max(initial=1)))
        nodes.first[rows] = added.start + np.cumsum(expansion.counts) - expansion.counts
        edges.node[added] = np.repeat(new, expansion.counts)
        edges.action[added], edges.log_prior[added] = expansion.actions, expansion.log_priors
        edges.prior[added] = np.exp(expansion.log_priors)
        behind = parents != NO_EDGE
        edges.child[parents[behind]] = new[behind]
        return new

    def keep(self, roots: Ints) -> tuple[Ints, Ints]:
        """Forget all nodes that cannot be reached from some nodes, which become roots.

        Args:
            roots: int64 [n].

        Returns:
            The roots' new numbers, int64 [n], and for every node its old number, int64 [N].
        """
        nodes, edges = self.nodes, self.edges
        level, kept = roots, [roots]
        while level.size:
            own, is_edge = self.rows(level)
            children = edges.child[own[is_edge]]
            level = children[children != NO_NODE]
            kept.append(level)
        old_nodes = np.concatenate(kept)
        new_node = np.full(nodes.size + 1, NO_NODE)  # the last entry is for NO_NODE
        new_node[old_nodes] = np.arange(len(old_nodes))
        counts = nodes.count[old_nodes]
        first = np.cumsum(counts) - counts
        old_edges = np.repeat(nodes.first[old_nodes] - first, counts) + np.arange(counts.sum())
        new_edge = np.full(edges.size + 1, NO_EDGE)
        new_edge[old_edges] = np.arange(len(old_edges))
        nodes.parent[roots] = NO_EDGE
        nodes.keep(old_nodes)
        edges.keep(old_edges)
        nodes.parent[: nodes.size] = new_edge[nodes.parent[: nodes.size]]
        nodes.first[: nodes.size] = first
        edges.node[: edges.size] = new_node[edges.node[: edges.size]]
        edges.child[: edges.size] = new_node[edges.child[: edges.size]]
        return np.arange(len(roots)), old_nodes

    # ---- looking

    def rows(self, nodes: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Edges of some nodes, int64 [n, E], and where there is one, bool [n, E] (a node's first one fills its row)."""
        first, count = self.nodes.first[nodes], self.nodes.count[nodes]
        column = np.arange(int(count.max(initial=0)))
        is_edge = column < count[:, None]
        return first[:, None] + np.where(is_edge, column, 0), is_edge

    def children(self, node: int) -> list[int]:
        """Nodes behind the edges of a node."""
        own = slice(self.nodes.first[node], self.nodes.first[node] + self.nodes.count[node])
        children: list[int] = self.edges.child[own].tolist()
        return [child for child in children if child != NO_NODE]

    def count_below(self, node: int) -> int:
        """How often a node was tried: its subtree has at most so many nodes."""
        own = slice(self.nodes.first[node], self.nodes.first[node] + self.nodes.count[node])
        return int(self.edges.visits[own].sum())

    def values(self, edges: Ints, unknown: Floats) -> Floats:
        """What edges are worth, in the mover's view.

        Args:
            edges: int64 [n, E].
            unknown: float64 [n], for those that were never tried.

        Returns:
            float64 [n, E]: the mean of all tries, within the bounds. A try that goes on counts as a loss.
        """
        table = self.edges
        visits, pending = table.visits[edges], table.pending[edges]
        tries = visits + pending
        mean = (table.total[edges] - pending) / np.maximum(tries, 1)
        worth = np.where(tries > 0, mean, unknown[:, None])
        bounded: Floats = np.clip(worth, table.low[edges], table.high[edges])
        return bounded

    def may_be_tried(self, edges: Ints, is_edge: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bool [n, E]: edges that may still change what their node is worth, and at whose end nobody looks now."""
        table = self.edges
        low, high = table.low[edges], table.high[edges]
        floor = np.where(is_edge, low, -1).max(axis=1, keepdims=True)
        is_looked_at = (table.child[edges] == NO_NODE) & (table.pending[edges] > 0)
        may_be: NDArray[np.bool_] = is_edge & (low < high) & (high > floor) & ~is_looked_at
        return may_be

    def is_proven(self, nodes: Ints) -> NDArray[np.bool_]:
        """Whether the exact value of nodes is known, bool [n]."""
        known: NDArray[np.bool_] = self.nodes.low[nodes] == self.nodes.high[nodes]
        return known

    # ---- trying

    def begin_tries(self, leaves: Ints) -> None:
        """Count a try that goes on at edges, int64 [n], and at all above them."""
        while leaves.size:
            np.add.at(self.edges.pending, leaves, 1)
            leaves = self._above(leaves)
            leaves = leaves[leaves != NO_EDGE]

    def end_tries(self, leaves: Ints, values: Floats, movers: NDArray[np.int8]) -> None:
        """Add what was found behind edges to them and to all above them.

        Args:
            leaves: int64 [n].
            values: float64 [n], in the view of ``movers``.
            movers: int8 [n].
        """
        table = self.edges
        while leaves.size:
            same = self.nodes.mover[table.node[leaves]] == movers
            np.add.at(table.total, leaves, np.where(same, values, -values))
            np.add.at(table.visits, leaves, 1)
            np.add.at(table.pending, leaves, -1)
            leaves = self._above(leaves)
            on = leaves != NO_EDGE
            leaves, values, movers = leaves[on], values[on], movers[on]

    def prove(self, edges: Ints, results: Ints) -> None:
        """Exact values of edges, int64 [n], are known, in the mover's view: tighten all bounds that rest on them."""
        for edge, result in zip(edges.tolist(), results.tolist(), strict=True):
            self._tighten(edge, result, result)

    def _above(self, edges: Ints) -> Ints:
        """The edges that lead to where edges start; ``NO_EDGE`` above a root."""
        above: Ints = self.nodes.parent[self.edges.node[edges]]
        return above

    def _tighten(self, edge: int, low: int, high: int) -> None:
        nodes, edges = self.nodes, self.edges
        while True:
            edges.low[edge], edges.high[edge] = low, high
            node = edges.node[edge]
            own = slice(nodes.first[node], nodes.first[node] + nodes.count[node])
            low, high = edges.low[own].max(), edges.high[own].max()
            if (low, high) == (nodes.low[node], nodes.high[node]):
                return
            nodes.low[node], nodes.high[node] = low, high
            edge = int(nodes.parent[node])
            if edge == NO_EDGE:
                return
            if nodes.mover[edges.node[edge]] != nodes.mover[node]:
                low, high = -high, -low
