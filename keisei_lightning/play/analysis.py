"""What a policy thinks of one board: its moves, best first, with probabilities, values and the play that it expects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import GameError
from keisei_lightning.games.protocol import Game, GameFactory, OpeningGame
from keisei_lightning.search.boards import copies_of, put_copies
from keisei_lightning.search.cache import Evaluate
from keisei_lightning.search.options import SearchOptions
from keisei_lightning.search.tree_search import Found, Progress, Roots, TreeSearch

__all__ = ["Analysis", "Analyst", "AnyPosition", "RankedMove", "choose_move"]

_SEARCH_OPTIONS = SearchOptions()


class AnyPosition(Protocol):
    """What an analyst looks at, such as a :class:`~keisei_lightning.play.GameSession`.

    Attributes:
        observation: uint8 [1, *observation_shape].
        legal: uint8 [1, ceil(A / 8)], bit-packed: the moves to look at.
    """

    observation: NDArray[np.uint8]
    legal: NDArray[np.uint8]

    @property
    def game(self) -> Game:
        """The game, with one board."""
        ...

    @property
    def mover(self) -> int:
        """The seat to move, 0 or 1."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether there is no move to look at."""
        ...

    @property
    def outcome(self) -> str:
        """How the game ended; empty while it goes on."""
        ...

    def legal_moves(self) -> dict[str, int]:
        """The moves to look at by their names, in the order of their labels."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedMove:
    """A legal move, as a policy sees it.

    Attributes:
        action: its label in the mover's view.
        name: it in the game's own notation.
        prior: the network's probability.
        policy: the probability after the search; without one the same.
        visits: how often the search tried it.
        value: what the search takes it to be worth to the mover, from -1 to 1; None: it never tried it.
        variation: names of the moves that it expects, this one first; empty: nobody asked for this move's.
    """

    action: int
    name: str
    prior: float
    policy: float
    visits: int
    value: float | None
    variation: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    """What a policy thinks of a position.

    Attributes:
        action: the move that it plays.
        value: what the position is worth to the mover, from -1 to 1.
        expected_score: likewise as a game's score: (value + 1) / 2.
        moves: all legal ones, the one that it plays first, and then by how much it likes them.
        variation: names of the moves that it expects, the first one is its own.
        result: -1, 0 or 1: the exact value for the mover; None: it is not known.
        visits: positions that were added to the tree.
        elapsed_s: seconds that it took.
    """

    action: int
    value: float
    moves: tuple[RankedMove, ...]
    variation: tuple[str, ...]
    result: int | None
    visits: int
    elapsed_s: float

    @property
    def expected_score(self) -> float:
        """The value as a game's score, from 0 to 1."""
        return (self.value + 1) / 2


class Analyst:
    """Looks at positions by a policy, alone or with a search. It is used by one thread.

    The tree of a search is kept for the next position of the same game.

    Args:
        evaluate: the policy; see :data:`~keisei_lightning.search.cache.Evaluate`.
        factory: makes the game.
        options: how to search; ``simulations=0``: the policy alone.
    """

    def __init__(self, evaluate: Evaluate, factory: GameFactory, options: SearchOptions = _SEARCH_OPTIONS) -> None:
        self._evaluate, self._factory, self._options = evaluate, factory, options
        self._search = TreeSearch(evaluate, factory, options)
        self._scratch: Game | None = None

    def analyse(
        self,
        session: AnyPosition,
        *,
        simulations: int | None = None,
        seconds: float | None = None,
        watch: Callable[[Analysis], bool] | None = None,
        watch_every_s: float = 0.5,
        goes_on: Callable[[], bool] | None = None,
        lines: int = 1,
    ) -> Analysis:
        """Look at the position of a game.

        Args:
            session: the game; nothing is changed in it.
            simulations: positions to add to the tree, 0: the policy alone; None: as the options say.
            seconds: the longest time for it; None: as the options say.
            watch: is shown what has been found so far; returns whether to go on.
            watch_every_s: seconds between two of these.
            goes_on: is asked after each step of the search, which ends where it says no; None: it goes on.
            lines: variations to find, each of another move.

        Raises:
            GameError: the game is over, or the network's outputs are not finite.
            ConfigError: the network does not fit the game.
        """
        if session.is_over:
            raise GameError(f"nothing to analyse: the game is over ({session.outcome})")
        simulations = self._options.simulations if simulations is None else simulations
        if simulations == 0:
            priors, own_value = self._evaluate(session.observation, session.legal)
            return self._alone(session, np.exp(priors.astype(np.float64)), float(own_value[0]))
        told_s, last = 0.0, Progress(tried=np.zeros(1, np.int64), elapsed_s=0.0, look=list)

        def watched(progress: Progress) -> bool:
            nonlocal told_s, last
            last = progress
            if goes_on is not None and not goes_on():
                return False
            if watch is None or progress.elapsed_s - told_s < watch_every_s:
                return True
            told_s = progress.elapsed_s
            return watch(self._of(session, progress.look()[0], progress))

        roots = Roots(
            boards=[0],
            positions=copies_of(session.game, np.zeros(1, np.int64)),
            observation=session.observation.copy(),
            legal=session.legal.copy(),
            mover=np.array([session.mover], np.int8),
        )
        found = self._search.run(roots, simulations=simulations, seconds=seconds, watch=watched, lines=lines)[0]
        return self._of(session, found, last)

    def _alone(self, session: AnyPosition, priors: NDArray[np.floating], value: float) -> Analysis:
        names = session.legal_moves()
        best = int(priors.argmax())
        order = sorted(range(len(names)), key=lambda row: (row != best, -priors[row]))
        moves = [
            RankedMove(action=action, name=name, prior=float(prior), policy=float(prior), visits=0, value=None)
            for (name, action), prior in zip(names.items(), priors, strict=True)
        ]
        ranked = tuple(moves[row] for row in order)
        return Analysis(
            action=ranked[0].action,
            value=value,
            moves=ranked,
            variation=(ranked[0].name,),
            result=None,
            visits=0,
            elapsed_s=0.0,
        )

    def _of(self, session: AnyPosition, found: Found, progress: Progress) -> Analysis:
        names = session.legal_moves()
        variations = {line[0]: self._names(session, line) for line in found.variations}
        moves = [
            RankedMove(
                action=action,
                name=name,
                prior=float(found.priors[row]),
                policy=float(found.policy[row]),
                visits=int(found.visits[row]),
                value=float(found.values[row]) if found.visits[row] else None,
                variation=variations.get(action, ()),
            )
            for row, (name, action) in enumerate(names.items())
        ]
        moves.sort(key=lambda move: (move.action != found.action, not move.variation, -move.visits, -move.policy))
        return Analysis(
            action=found.action,
            value=found.value,
            moves=tuple(moves),
            variation=variations[found.action],
            result=found.result,
            visits=int(progress.tried[0]),
            elapsed_s=progress.elapsed_s,
        )

    def _names(self, session: AnyPosition, actions: tuple[int, ...]) -> tuple[str, ...]:
        """The names of moves that follow one another."""
        if self._scratch is None:
            self._scratch = self._factory(1)
            if isinstance(self._scratch, OpeningGame):
                self._scratch.opening_plies = 0
            self._scratch.reset()
        board, one, names = self._scratch, np.zeros(1, np.int64), list[str]()
        put_copies(board, one, copies_of(session.game, one))
        for action in actions:
            names.append(board.action_name(0, action))
            board.step(one + action)
        return tuple(names)


def choose_move(analysis: Analysis, *, temperature: float, random: np.random.Generator) -> RankedMove:
    """The move to play: the best one, or a sample.

    Args:
        analysis: of the position.
        temperature: 0: the best one; 1: a sample of the policy; less than 1: closer to the best one.
        random: source of the sample.
    """
    if temperature == 0:
        return analysis.moves[0]
    logits = np.log(np.maximum([move.policy for move in analysis.moves], 1e-30)) / temperature
    weights = np.exp(logits - logits.max())
    return analysis.moves[int(random.choice(len(weights), p=weights / weights.sum()))]
