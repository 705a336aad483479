"""Players that search OpenSpiel's games: depth-limited alpha-beta, two-ply tactics, and Monte Carlo tree search.

They are reference opponents: each is defined in a sentence, needs no network, and is stronger than a random player.
They read the state itself (:meth:`~keisei_lightning.games.open_spiel.game.OpenSpielGame.state`), board by board.

===================== ==========================================================================================
name                  plays
===================== ==========================================================================================
alpha_beta(depth=5)   a move that minimax finds best within ``depth`` plies; every position at the horizon has value
                      0, so it knows wins and losses and otherwise plays at random
tactics               ``alpha_beta(depth=2)`` that prefers the centre in connect four: it wins at once if it can,
                      else prevents the opponent from winning at once, else takes the most central column left
mcts(simulations=100) the move that OpenSpiel's UCT with random rollouts visits most
===================== ==========================================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyspiel
from numpy.typing import NDArray

from keisei_lightning.errors import GameError, UnsupportedGameError
from keisei_lightning.evaluation.players import Turn
from keisei_lightning.games.arrays import check_options
from keisei_lightning.games.open_spiel.game import OpenSpielGame
from keisei_lightning.games.open_spiel.library import is_known, load
from keisei_lightning.games.open_spiel.views import seat_view
from keisei_lightning.games.protocol import NO_MOVE, GameSpec

__all__ = ["WIN", "AlphaBetaPlayer", "MCTSPlayer", "best_moves", "make_alpha_beta", "make_mcts", "make_tactics"]

WIN: Final = 1 << 20
"""Value of a win: a win in n plies has the value ``WIN - n``, a loss in n plies ``n - WIN``."""

Rank = Callable[[int], int]
"""Order in which moves (OpenSpiel's actions) are searched: lower is earlier."""

_EXPLORATION: Final = 2.0
"""c of UCT, for returns from -1 to 1; OpenSpiel's own examples use it."""

_MEMORY_MB: Final = 1000
"""Limit of the memory of one search tree, OpenSpiel's own default; 100 simulations take less than 1 MB."""


def best_moves(state: Any, depth: int, rank: Rank | None = None) -> tuple[int, list[int]]:
    r"""All the moves that depth-limited minimax finds best, by alpha-beta.

    The value of a position s with d plies left to look at is, for its mover,

    .. math::
        v(s, d) = \max_a \begin{cases}
            \pm (W - n) & \text{if } a \text{ ends the game, won or lost, in the } n \text{-th ply from the root} \\
            0           & \text{if } a \text{ draws, or } d = 1 \\
            \pm v(s', d - 1) & \text{else: minus if the turn goes to the opponent, plus if the mover moves again}
        \end{cases}

    So a quick win is better than a slow one, a slow loss is better than a quick one, and the horizon counts as a draw.

    Args:
        state: a ``pyspiel.State`` of a deterministic two-player zero-sum game that is not over; it is not changed.
        depth: d, plies to search, at least 1.
        rank: order in which moves are searched; it changes the speed, never the result.

    Returns:
        The value, and the moves (OpenSpiel's actions) that have it, ascending.

    References:
        D. E. Knuth and R. W. Moore (1975), "An analysis of alpha-beta pruning", Artificial Intelligence 6.
    """
    best, moves = -WIN, []
    mover = state.current_player()
    for move in _ordered(state, rank):
        # The window begins just below the best value, so that a move as good as the best gets its exact value.
        value = _value_of(state.child(move), mover, depth - 1, 1, (best - 1, WIN), rank)
        if value > best:
            best, moves = value, [move]
        elif value == best:
            moves.append(move)
    return best, sorted(moves)


def _ordered(state: Any, rank: Rank | None) -> list[int]:
    moves: list[int] = state.legal_actions()
    if rank is not None:
        moves.sort(key=rank)
    return moves


def _value_of(child: Any, mover: int, depth: int, ply: int, window: tuple[int, int], rank: Rank | None) -> int:
    """Value, for ``mover`` who has just moved there, of a position ``ply`` plies from the root."""
    if child.is_terminal():
        result = child.player_return(mover)
        if result == 0:
            return 0
        return WIN - ply if result > 0 else ply - WIN
    if depth == 0:
        return 0
    if child.current_player() == mover:
        return _search(child, depth, ply, window, rank)
    low, high = window
    return -_search(child, depth, ply, (-high, -low), rank)


def _search(state: Any, depth: int, ply: int, window: tuple[int, int], rank: Rank | None) -> int:
    """Fail-soft alpha-beta: the mover's value if it lies inside the window, else a bound on the same side of it."""
    low, high = window
    best = -WIN
    mover = state.current_player()
    for move in _ordered(state, rank):
        value = _value_of(state.child(move), mover, depth - 1, ply + 1, (low, high), rank)
        if value > best:
            best = value
            if best >= high:
                break
            low = max(low, best)
    return best


class _Searcher(ABC):
    """Base of the players here: checks the game, and searches one board after another."""

    def __init__(self, spec: GameSpec, name: str) -> None:
        self._game = _searchable(spec, name)
        self._spec = spec
        self._name = name

    @property
    def name(self) -> str:
        """Short name in tables and metrics."""
        return self._name

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """Search one board after another; see :meth:`~keisei_lightning.evaluation.players.Player.choose`.

        Raises:
            GameError: the boards are no :class:`~keisei_lightning.games.open_spiel.game.OpenSpielGame`.
        """
        game = turn.game
        if not isinstance(game, OpenSpielGame):
            raise GameError(f"player {self._name}: it searches OpenSpielGame boards, not {type(game).__name__}")
        actions = np.full(len(turn.indices), NO_MOVE, dtype=np.int64)
        for row in np.flatnonzero(turn.legal.any(axis=1)):
            index = int(turn.indices[row])
            actions[row] = game.label(index, self._move(game.state(index)))
        return actions

    @abstractmethod
    def _move(self, state: Any) -> int:
        """Choose an OpenSpiel action in an OpenSpiel state."""


class AlphaBetaPlayer(_Searcher):
    """Plays one of the moves that :func:`best_moves` finds, at random.

    Args:
        spec: the game, one of OpenSpiel's. The search knows a ply limit: the game is drawn there.
        depth: plies to search, at least 1.
        prefer_centre: in connect four, choose among the best moves one of the most central columns.
        seed: seed of the player's own random stream.
        name: name in tables and metrics.

    Raises:
        ConfigError: the depth is out of range, or the game is none of OpenSpiel's.
    """

    def __init__(
        self, spec: GameSpec, *, depth: int = 5, prefer_centre: bool = False, seed: int = 0, name: str = "alpha_beta"
    ) -> None:
        super().__init__(spec, name)
        check_options(f"player {name}", {"depth": (depth, 1)})
        self._depth = depth
        self._rank = _from_the_centre(self._game)
        self._preference = self._rank if prefer_centre else None
        self._rng = np.random.default_rng(seed)

    def _move(self, state: Any) -> int:
        plies_left = self._spec.max_plies - state.move_number()
        _, moves = best_moves(state, min(self._depth, plies_left), self._rank)
        if self._preference is not None:
            nearest = min(map(self._preference, moves))
            moves = [move for move in moves if self._preference(move) == nearest]
        return moves[self._rng.integers(len(moves))]


class MCTSPlayer(_Searcher):
    """Plays the move that OpenSpiel's Monte Carlo tree search visits most: UCT, one random rollout per simulation.

    The search backs up proven wins and losses (OpenSpiel's ``solve``). It does not know a ply limit of the game.

    Args:
        spec: the game, one of OpenSpiel's.
        simulations: simulations for each move, at least 1.
        seed: seed of the player's own random streams.
        name: name in tables and metrics.

    Raises:
        ConfigError: the number of simulations is out of range, or the game is none of OpenSpiel's.

    References:
        L. Kocsis and C. Szepesvári (2006), "Bandit based Monte-Carlo planning", ECML.
    """

    def __init__(self, spec: GameSpec, *, simulations: int = 100, seed: int = 0, name: str = "mcts") -> None:
        super().__init__(spec, name)
        check_options(f"player {name}", {"simulations": (simulations, 1)})
        tree_seed, rollout_seed = np.random.default_rng(seed).integers(2**31, size=2).tolist()
        self._rollouts = pyspiel.RandomRolloutEvaluator(1, rollout_seed)
        self._bot = pyspiel.MCTSBot(
            self._game, self._rollouts, _EXPLORATION, simulations, _MEMORY_MB, True, tree_seed, False
        )

    def _move(self, state: Any) -> int:
        return int(self._bot.step(state))


def make_alpha_beta(
    spec: GameSpec, *, seed: int, name: str, depth: int = 5, prefer_centre: bool = False
) -> AlphaBetaPlayer:
    """Make depth-limited alpha-beta by its name (entry point); see :class:`AlphaBetaPlayer`."""
    return AlphaBetaPlayer(spec, depth=depth, prefer_centre=prefer_centre, seed=seed, name=name)


def make_tactics(spec: GameSpec, *, seed: int, name: str) -> AlphaBetaPlayer:
    """Make two-ply tactics with a liking for the centre by its name (entry point); see :class:`AlphaBetaPlayer`."""
    return AlphaBetaPlayer(spec, depth=2, prefer_centre=True, seed=seed, name=name)


def make_mcts(spec: GameSpec, *, seed: int, name: str, simulations: int = 100) -> MCTSPlayer:
    """Make Monte Carlo tree search by its name (entry point); see :class:`MCTSPlayer`."""
    return MCTSPlayer(spec, simulations=simulations, seed=seed, name=name)


def _searchable(spec: GameSpec, player: str) -> Any:
    """The ``pyspiel.Game`` of a spec.

    A name is not enough: OpenSpiel has a shogi too, with other rules and other actions than this package's.
    """
    if is_known(spec.name):
        game = load(spec.name)
        if (game.num_distinct_actions(), seat_view(game).shape) == (spec.num_actions, spec.observation_shape):
            return game
    raise UnsupportedGameError(f"player {player}: game={spec.name}: must be one of OpenSpiel's, such as connect_four")


def _from_the_centre(game: Any) -> Rank | None:
    """In connect four, twice the distance of a column from the centre; None elsewhere."""
    if game.get_type().short_name != "connect_four":
        return None
    num_columns = game.num_distinct_actions()
    return lambda move: abs(2 * move - (num_columns - 1))
