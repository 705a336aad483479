r"""Which move of a position a search tries next, and which it plays in the end: PUCT, and Gumbel AlphaZero's rules.

**PUCT** (Silver et al. 2018, A general reinforcement learning algorithm that masters chess, shogi and Go through
self-play) tries the move with the highest

.. math:: Q(a) + c \, P(a) \frac{\sqrt{\sum_b N(b)}}{1 + N(a)}

and plays the one that was tried most.

**Gumbel** (Danihelka et al. 2022, Policy improvement by planning with Gumbel). The value of a move that was never tried
is completed by

.. math:: v_\text{mix} = \frac{1}{1 + \sum_b N(b)} \left( v + \frac{\sum_b N(b)}{\sum_{b: N(b) > 0} P(b)}
    \sum_{b: N(b) > 0} P(b) Q(b) \right)

and the improved policy is :math:`\pi' = \text{softmax}(\log P + \sigma(Q))` with :math:`\sigma(q) =
(50 + \max_b N(b)) \, s \, q`, q in [0, 1]. Inside a tree the move with the highest
:math:`\pi'(a) - N(a) / (1 + \sum_b N(b))` is tried. At the root, sequential halving shares the tries out among the
moves with the highest :math:`g + \log P`, half of which drop out in each phase by :math:`g + \log P + \sigma(Q)`;
g are Gumbel noises in training, and 0 in play.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from keisei_lightning.search.forest import Floats, Forest, Ints
from keisei_lightning.search.options import SearchOptions

__all__ = [
    "FIRST_PLAY_REDUCTION",
    "LEAST_VISITS",
    "Gumbel",
    "Look",
    "Puct",
    "Selection",
    "considered_visits",
    "make_selection",
]

LEAST_VISITS: Final = 50.0
"""c_visit of the paper."""
FIRST_PLAY_REDUCTION: Final = 0.25
"""How much worse than its node a move is taken to be before it is tried, times the root of the tried moves' policy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What is known of some nodes and their edges. Columns beyond a node's edges hold nothing.

    Attributes:
        nodes: int64 [n].
        edges: int64 [n, E].
        is_edge: bool [n, E].
        visits: int64 [n, E], tries, also those that go on.
        log_priors: float64 [n, E].
        values: float64 [n, E], in the mover's view; of an edge that was never tried, what its node is worth.
        low, high: int8 [n, E], bounds of the exact values.
        own_values: float64 [n], the network's of the nodes themselves.
        is_open: bool [n, E], which may be tried.
    """

    nodes: Ints
    edges: Ints
    is_edge: NDArray[np.bool_]
    visits: Ints
    log_priors: Floats
    values: Floats
    low: NDArray[np.int8]
    high: NDArray[np.int8]
    own_values: Floats
    is_open: NDArray[np.bool_]

    @classmethod
    def at(cls, forest: Forest, nodes: Ints) -> Look:
        """Look at some nodes."""
        edges, is_edge = forest.rows(nodes)
        visits = np.where(is_edge, forest.edges.visits[edges] + forest.edges.pending[edges], 0)
        log_priors = np.where(is_edge, forest.edges.log_prior[edges], -np.inf)
        total = np.where(is_edge, forest.edges.total[edges], 0.0).sum(axis=1)
        mean = (forest.nodes.value[nodes] + total) / (1 + visits.sum(axis=1))
        return cls(
            nodes=nodes,
            edges=edges,
            is_edge=is_edge,
            visits=visits,
            log_priors=log_priors,
            values=forest.values(edges, mean),
            low=forest.edges.low[edges],
            high=forest.edges.high[edges],
            own_values=forest.nodes.value[nodes],
            is_open=forest.may_be_tried(edges, is_edge),
        )


class Selection(ABC):
    """How a search chooses among the edges of nodes; answers are columns, int64 [n]."""

    def begin(self, root: Look, simulations: int) -> None:  # noqa: B027 - not everybody prepares something
        """A search begins.

        Args:
            root: of all trees.
            simulations: how many positions it will add to each tree.
        """

    def try_at_root(self, root: Look, trees: Ints) -> Ints:
        """Which edge of each root to try next.

        Args:
            root: of n trees.
            trees: int64 [n], which of those that :meth:`begin` saw.
        """
        return self.try_inside(root)

    @abstractmethod
    def try_inside(self, look: Look) -> Ints:
        """Which edge of each node inside a tree to try next."""

    @abstractmethod
    def preference(self, root: Look) -> Floats:
        """How good each move is to play, float64 [n, E]: the best one has the highest number."""

    @abstractmethod
    def policy(self, root: Look) -> Floats:
        """What a network should learn of the search, float64 [n, E]: probabilities."""


class Puct(Selection):
    """See the module's text.

    Args:
        exploration: c.

    Attributes:
        exploration: likewise.
    """

    def __init__(self, exploration: float) -> None:
        self.exploration = exploration

    @override
    def try_inside(self, look: Look) -> Ints:
        priors, total = np.exp(look.log_priors), look.visits.sum(axis=1, keepdims=True)
        seen = np.where(look.visits > 0, priors, 0.0).sum(axis=1, keepdims=True)
        values = np.where(look.visits > 0, look.values, look.values - FIRST_PLAY_REDUCTION * np.sqrt(seen))
        bonus = self.exploration * priors * np.sqrt(np.maximum(total, 1)) / (1 + look.visits)
        return _column(look.is_open, values + bonus)

    @override
    def preference(self, root: Look) -> Floats:
        # The better mean among equals, and then the likelier move.
        best: Floats = root.visits + 0.1 * root.values + 1e-3 * np.exp(root.log_priors)
        return best

    @override
    def policy(self, root: Look) -> Floats:
        visits: Floats = np.where(root.visits.any(axis=1, keepdims=True), root.visits, np.exp(root.log_priors))
        shares: Floats = visits / visits.sum(axis=1, keepdims=True)
        return shares


class Gumbel(Selection):
    """See the module's text.

    Args:
        considered_moves: moves that sequential halving begins with.
        value_scale: s.
        noise: source of the Gumbel noises; None: they are 0.

    Attributes:
        noise: float64 [n, E], g of the search that goes on.
        visits_before: int64 [n, E], tries before it began.
        schedules: int64 [k, simulations], see :func:`considered_visits`.
        schedule_of: int64 [n], each tree's row of them.
    """

    def __init__(self, considered_moves: int, value_scale: float, noise: np.random.Generator | None = None) -> None:
        self._considered_moves, self.value_scale, self._source = considered_moves, value_scale, noise

    @override
    def begin(self, root: Look, simulations: int) -> None:
        shape = root.is_edge.shape
        self.noise = np.zeros(shape) if self._source is None else self._source.gumbel(size=shape)
        self.visits_before = root.visits
        counts = np.minimum(root.is_edge.sum(axis=1), self._considered_moves)
        different, self.schedule_of = np.unique(counts, return_inverse=True)
        self.schedules = np.array([considered_visits(int(count), simulations) for count in different])

    @override
    def try_at_root(self, root: Look, trees: Ints) -> Ints:
        width = root.visits.shape[1]  # of these trees alone
        visits = root.visits - self.visits_before[trees, :width]
        step = np.minimum(visits.sum(axis=1), self.schedules.shape[1] - 1)
        due = self.schedules[self.schedule_of[trees], step][:, None]
        score = self.noise[trees, :width] + root.log_priors + self._scaled(root)
        is_due = root.is_open & (visits == due)
        # Where proofs have closed all that are due, those next to them are.
        return _column(root.is_open, np.where(is_due, score, score - 1e6 * (1 + np.abs(visits - due))))

    @override
    def try_inside(self, look: Look) -> Ints:
        share = look.visits / (1 + look.visits.sum(axis=1, keepdims=True))
        return _column(look.is_open, self.policy(look) - share)

    @override
    def preference(self, root: Look) -> Floats:
        visits = root.visits - self.visits_before
        score = self.noise + root.log_priors + self._scaled(root)
        most: Floats = np.where(visits == visits.max(axis=1, keepdims=True), score, score - 1e6)
        return most

    @override
    def policy(self, root: Look) -> Floats:
        logits = np.where(root.is_edge, root.log_priors + self._scaled(root), -np.inf)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        policy: Floats = weights / weights.sum(axis=1, keepdims=True)
        return policy

    def _scaled(self, look: Look) -> Floats:
        """Sigma of the completed values."""
        tried = look.visits > 0
        priors = np.where(tried, np.exp(look.log_priors), 0.0)
        seen, total = priors.sum(axis=1, keepdims=True), look.visits.sum(axis=1, keepdims=True)
        known = (priors * look.values).sum(axis=1, keepdims=True) / np.maximum(seen, 1e-30)
        mixed = (look.own_values[:, None] + total * known) / (1 + total)
        completed = np.where(tried, look.values, np.clip(mixed, look.low, look.high))
        scale = (LEAST_VISITS + look.visits.max(axis=1, keepdims=True)) * self.value_scale
        scaled: Floats = scale * (completed + 1) / 2
        return scaled


def make_selection(options: SearchOptions, noise: np.random.Generator | None = None) -> Selection:
    """The selection that options name.

    Args:
        options: of the search.
        noise: source of noises at the root (gumbel); None: none.
    """
    if options.method == "puct":
        return Puct(options.exploration)
    return Gumbel(options.considered_moves, options.value_scale, noise)


@cache
def considered_visits(num_moves: int, simulations: int) -> tuple[int, ...]:
    """Sequential halving as a schedule: how often the move that is due at each try was tried before.

    Args:
        num_moves: moves that are considered at first.
        simulations: tries in all.

    Returns:
        A number for each try. In each of the ceil(log2(num_moves)) phases all moves left are tried equally often, then
        the better half stays.
    """
    if num_moves <= 1:
        return tuple(range(simulations))
    phases = (num_moves - 1).bit_length()
    sequence, visits, left = list[int](), 0, num_moves
    while len(sequence) < simulations:
        for _ in range(max(1, simulations // (phases * left))):
            sequence += [visits] * left
            visits += 1
        left = max(2, left // 2)
    return tuple(sequence[:simulations])


def _column(is_open: NDArray[np.bool_], score: Floats) -> Ints:
    column: Ints = np.where(is_open, score, -np.inf).argmax(axis=1)
    return column
