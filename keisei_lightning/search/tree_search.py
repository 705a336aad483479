"""Monte Carlo tree search on many boards at once: each step tries a move of every tree, with one network pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games.protocol import NO_MOVE, GameFactory
from keisei_lightning.search.boards import Boards, Position
from keisei_lightning.search.cache import CachedEvaluator, Evaluate
from keisei_lightning.search.forest import NO_EDGE, NO_NODE, UNKNOWN, Expansion, Floats, Forest, Ints
from keisei_lightning.search.options import SearchOptions
from keisei_lightning.search.selection import Look, Selection, make_selection
from keisei_lightning.search.tries import make_tries

__all__ = ["Found", "Progress", "Roots", "TreeSearch", "Watch"]

_CACHED_POSITIONS: Final = 200_000
_REPLIES: Final = 2  # plies behind a move that was played, in which the next position is looked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Roots:
    """Positions to search, none of which is over.

    Attributes:
        boards: n keys: a position is looked for in the tree of the search before with the same key.
        positions: n copies; see :func:`~keisei_lightning.search.boards.copies_of`.
        observation: uint8 [n, *observation_shape].
        legal: uint8 [n, ceil(A / 8)], bit-packed.
        mover: int8 [n].
    """

    boards: Sequence[Hashable]
    positions: Sequence[Position]
    observation: NDArray[np.uint8]
    legal: NDArray[np.uint8]
    mover: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What players see of n positions, and a hash of it for each."""

    observation: NDArray[np.uint8]
    legal: NDArray[np.uint8]
    mover: NDArray[np.int8]
    keys: list[int]

    @classmethod
    def of(cls, observation: NDArray[np.uint8], legal: NDArray[np.uint8], mover: NDArray[np.int8]) -> _Seen:
        count = len(mover)
        rows = np.concatenate([observation.reshape(count, -1), legal, mover.view(np.uint8)[:, None]], axis=1)
        data, width = rows.tobytes(), rows.shape[1]
        return cls(observation, legal, mover, [hash(data[at : at + width]) for at in range(0, len(data), width)])

    def take(self, rows: Ints) -> _Seen:
        keys = [self.keys[row] for row in rows.tolist()]
        return _Seen(self.observation[rows], self.legal[rows], self.mover[rows], keys)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a search found of one position.

    Attributes:
        action: the move to play.
        value: what the position is worth to its mover by the search, from -1 to 1.
        actions: int64 [m], labels of the legal moves.
        visits: int64 [m], how often each was tried.
        values: float64 [m], of each, in the mover's view.
        priors: float64 [m], the network's probabilities.
        policy: float64 [m], what a network should learn: the improved policy (gumbel), or the shares of tries (puct).
        variations: the moves that the search expects, a line for each of the moves that it likes most; the first one
            begins with ``action``.
        result: -1, 0 or 1: the exact value; None: it is not known.
    """

    action: int
    value: float
    actions: NDArray[np.int64]
    visits: NDArray[np.int64]
    values: NDArray[np.float64]
    priors: NDArray[np.float64]
    policy: NDArray[np.float64]
    variations: tuple[tuple[int, ...], ...]
    result: int | None

    @property
    def variation(self) -> tuple[int, ...]:
        """The moves that the search expects, the first one is ``action``."""
        return self.variations[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a search is.

    Attributes:
        tried: int64 [n], positions that were added to each tree by this search.
        elapsed_s: seconds since it began.
        look: what has been found of each position so far; it costs about as much as a few tries.
    """

    tried: Ints
    elapsed_s: float
    look: Callable[[], list[Found]]


Watch = Callable[[Progress], bool]
"""Is told of a search after each step, and says whether it goes on."""


class TreeSearch:
    """Searches positions of one game. It is used by one thread, which the game's boards belong to.

    Args:
        evaluate: what the network thinks of positions.
        factory: makes the game.
        options: how to search; ``mirror`` is the evaluator's.
        noise: source of Gumbel noises at the roots, for training; None: none, the same search finds the same.
        compiled: tries are made by the compiled library; None: where there is one.
        clock: seconds; injected by tests.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        factory: GameFactory,
        options: SearchOptions,
        *,
        noise: np.random.Generator | None = None,
        compiled: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._evaluate = CachedEvaluator(evaluate, _CACHED_POSITIONS)
        self._factory, self._options, self._clock = factory, options, clock
        self._selection: Selection = make_selection(options, noise)
        self._boards: Boards | None = None
        self._forest = Forest()
        self._tries = make_tries(self._forest, self._selection, compiled=compiled)
        self._positions: list[Position] = []  # by node
        self._keys: list[int] = []  # by node: hash of all that is seen of the position
        self._played: dict[Hashable, int] = {}  # by board: the node behind the move that was chosen

    def run(
        self,
        roots: Roots,
        *,
        simulations: int | None = None,
        seconds: float | None = None,
        watch: Watch | None = None,
        lines: int = 1,
    ) -> list[Found]:
        """Search positions.

        Args:
            roots: n of them.
            simulations: positions to add to each tree; None: as the options say.
            seconds: the longest time; None: as the options say.
            watch: is called after each step, in which one position of each tree is tried, or several at once of few
                trees; returns whether to go on.
            lines: variations to find of each.

        Returns:
            What was found of each.

        Raises:
            ConfigError, GameError: of the evaluator or the game.
        """
        options, start = self._options, self._clock()
        simulations = options.simulations if simulations is None else simulations
        seconds = options.seconds if seconds is None else seconds
        nodes = self._plant(roots)
        self._find_wins(roots, nodes)
        self._selection.begin(Look.at(self._forest, nodes), simulations)
        below = np.array([self._forest.count_below(node) for node in nodes.tolist()], np.int64)
        budget = np.minimum(simulations, options.max_nodes - below)
        left = budget.copy()
        while True:
            active = np.flatnonzero((left > 0) & ~self._forest.is_proven(nodes))
            if not active.size or (seconds is not None and self._clock() - start >= seconds):
                break
            each = max(1, options.leaves // len(active))
            left[active] -= self._step(nodes, active, np.minimum(left[active], each))
            if watch is not None and not watch(
                Progress(
                    tried=budget - left, elapsed_s=self._clock() - start, look=lambda: self._conclude(nodes, lines)
                )
            ):
                break
        found = self._conclude(nodes, lines)
        self._keep_played(roots.boards, nodes, found)
        return found

    # ---- roots

    def _plant(self, roots: Roots) -> Ints:
        """Trees with these roots; what is known of them from the search before stays."""
        seen = _Seen.of(roots.observation, roots.legal, roots.mover)
        old = np.array([self._look_up(board, key) for board, key in zip(roots.boards, seen.keys, strict=True)])
        searched = set(roots.boards)
        waiting = {board: node for board, node in self._played.items() if board not in searched}
        kept = np.concatenate([old[old != NO_NODE], np.array(list(waiting.values()), np.int64)])
        new, order = self._forest.keep(kept)
        self._positions = [self._positions[node] for node in order.tolist()]
        self._keys = [self._keys[node] for node in order.tolist()]
        known = int((old != NO_NODE).sum())
        self._played = dict(zip(waiting, new[known:].tolist(), strict=True))
        nodes = np.full(len(old), NO_NODE)
        nodes[old != NO_NODE] = new[:known]
        fresh = np.flatnonzero(nodes == NO_NODE)
        if fresh.size:
            positions = [roots.positions[row] for row in fresh.tolist()]
            nodes[fresh] = self._expand(np.full(len(fresh), NO_EDGE), seen.take(fresh), positions)
        return nodes

    def _find_wins(self, roots: Roots, nodes: Ints) -> None:
        """Prove the roots in which the game itself finds a forced win."""
        if self._options.mate_nodes == 0:
            return
        boards = self._boards_for(len(nodes))
        boards.put(roots.positions)
        wins = boards.find_wins(np.arange(len(nodes)), self._options.mate_nodes)
        edges, is_edge = self._forest.rows(nodes)
        winning = edges[is_edge & (self._forest.edges.action[edges] == wins[:, None])]
        self._forest.prove(winning, np.ones(len(winning), np.int64))

    def _look_up(self, board: Hashable, key: int) -> int:
        """The node of a position behind the move that was played on a board before; ``NO_NODE`` if there is none."""
        node = self._played.get(board, NO_NODE)
        level = [node] if node != NO_NODE else []
        for _ in range(_REPLIES):
            for node in level:
                if self._keys[node] == key:
                    return node if self._forest.count_below(node) < self._options.max_nodes // 2 else NO_NODE
            level = [child for node in level for child in self._forest.children(node)]
        return NO_NODE

    # ---- one step

    def _step(self, nodes: Ints, active: Ints, numbers: Ints) -> Ints:
        """Try moves of some trees, int64 [n], so many of each; returns how many were tried, int64 [n]."""
        trees = np.repeat(active, numbers)
        leaves = self._tries.find_leaves(nodes[trees], trees)
        found = leaves != NO_EDGE
        if found.any():
            self._look_behind(leaves[found])
        return np.bincount(trees[found], minlength=len(nodes))[active]

    def _look_behind(self, leaves: Ints) -> None:
        """Play the moves of some edges, and add what comes of them to the trees."""
        forest = self._forest
        parents = forest.edges.node[leaves]
        boards = self._boards_for(len(leaves))
        positions = [self._positions[node] for node in parents.tolist()]
        rewards, over = boards.play(positions, forest.edges.action[leaves])
        values, movers = rewards.astype(np.float64), forest.nodes.mover[parents]
        alive = np.flatnonzero(~over)
        if alive.size:
            observation, legal, mover = boards.observe(alive)
            is_won = boards.find_wins(alive, self._options.leaf_mate_nodes) != NO_MOVE
            won = alive[is_won]
            values[won], over[won] = np.where(mover[is_won] == movers[won], 1.0, -1.0), True
            rest, alive = ~is_won, alive[~is_won]
            if alive.size:
                seen = _Seen.of(observation[rest], legal[rest], mover[rest])
                new = self._expand(leaves[alive], seen, boards.copies(alive))
                values[alive], movers[alive] = forest.nodes.value[new], seen.mover
        results = np.where(over, np.sign(values), UNKNOWN).astype(np.int8)
        self._tries.back_up(leaves, values, movers, results)

    def _expand(self, edges: Ints, seen: _Seen, positions: list[Position]) -> Ints:
        log_priors, values = self._evaluate(seen.observation, seen.legal, seen.keys)
        bits = np.unpackbits(seen.legal, axis=1).view(np.bool_)
        row, actions = np.divmod(np.flatnonzero(bits), bits.shape[1])
        new = self._forest.add_nodes(
            edges,
            Expansion(
                movers=seen.mover,
                counts=np.bincount(row, minlength=len(seen.keys)),
                actions=actions,
                log_priors=log_priors.astype(np.float64),
                values=values.astype(np.float64),
            ),
        )
        self._positions += positions
        self._keys += seen.keys
        return new

    def _boards_for(self, count: int) -> Boards:
        """Boards for so many positions, and not for many more: those without a move cost time too."""
        if self._boards is None or not count <= self._boards.num_boards <= 4 * count + 8:
            self._boards = Boards(self._factory, count)
        return self._boards

    # ---- the end

    def _conclude(self, nodes: Ints, lines: int) -> list[Found]:
        forest = self._forest
        look = Look.at(forest, nodes)
        preference, policy = self._selection.preference(look), self._selection.policy(look)
        best = look.edges[np.arange(len(nodes)), best_columns(forest, look, preference)]
        liked = [
            _liked(edge, look.edges[row][look.is_edge[row]], look.visits[row][look.is_edge[row]], lines)
            for row, edge in enumerate(best.tolist())
        ]
        variations = iter(self._variations(np.array([edge for row in liked for edge in row], np.int64)))
        found = []
        for row, first in enumerate(liked):
            own = look.is_edge[row]
            edges = look.edges[row][own]
            tried = look.visits[row][own]
            low, high = int(forest.nodes.low[nodes[row]]), int(forest.nodes.high[nodes[row]])
            total = forest.edges.total[edges].sum()
            mean = (forest.nodes.value[nodes[row]] + total) / (1 + tried.sum())
            found.append(
                Found(
                    action=int(forest.edges.action[first[0]]),
                    value=float(np.clip(mean, low, high)),
                    actions=forest.edges.action[edges].copy(),
                    visits=tried,
                    values=look.values[row][own],
                    priors=np.exp(look.log_priors[row][own]),
                    policy=policy[row][own],
                    variations=tuple(next(variations) for _ in first),
                    result=low if low == high else None,
                )
            )
        return found

    def _keep_played(self, boards: Sequence[Hashable], nodes: Ints, found: Sequence[Found]) -> None:
        """Note the node behind each move that was chosen, for the next search of the same board."""
        edges, is_edge = self._forest.rows(nodes)
        for row, (board, one) in enumerate(zip(boards, found, strict=True)):
            own = edges[row][is_edge[row]]
            child = int(self._forest.edges.child[own[one.actions == one.action][0]])
            self._played.pop(board, None)
            if child != NO_NODE:
                self._played[board] = child

    def _variations(self, edges: Ints) -> list[tuple[int, ...]]:
        """The moves that are expected from some edges on, their own first: always those that were tried most."""
        forest = self._forest
        lines = [[action] for action in forest.edges.action[edges].tolist()]
        rows, nodes = np.arange(len(edges)), forest.edges.child[edges]
        while (nodes != NO_NODE).any():
            rows, nodes = rows[nodes != NO_NODE], nodes[nodes != NO_NODE]
            look = Look.at(forest, nodes)
            tried = look.visits.any(axis=1)
            columns = best_columns(forest, look, look.visits.astype(np.float64))
            edges = look.edges[np.arange(len(nodes)), columns][tried]
            for row, action in zip(rows[tried].tolist(), forest.edges.action[edges].tolist(), strict=True):
                lines[row].append(action)
            rows, nodes = rows[tried], forest.edges.child[edges]
        return [tuple(line) for line in lines]


def _liked(first: int, edges: Ints, tried: Ints, count: int) -> list[int]:
    """Some edges: the first one, then those that were tried most."""
    if count == 1:
        return [first]
    others = edges[np.argsort(-tried, kind="stable")]
    return [first, *others[others != first].tolist()][:count]


def best_columns(forest: Forest, look: Look, preference: Floats) -> Ints:
    """The most preferred edges among those that are not proven to be worse than others, as columns, int64 [n].

    A move that looks worse than what another one is proven to give is not played: so a proven win always is, and a
    proven draw rather than a move that looks like a loss. A proven loss is where nothing else is left.
    """
    low, high = forest.edges.low[look.edges], forest.edges.high[look.edges]
    floor = np.where(look.is_edge, low, -1).max(axis=1, keepdims=True)
    losses = look.is_edge & (high == -1)
    candidate = look.is_edge & (look.values >= floor) & ~losses
    candidate = np.where(candidate.any(axis=1, keepdims=True), candidate, look.is_edge)
    columns: Ints = np.where(candidate, preference, -np.inf).argmax(axis=1)
    return columns
