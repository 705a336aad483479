"""Our search beside OpenSpiel's Monte Carlo tree search: the same network, simulations and formula (PUCT).

::

    OMP_NUM_THREADS=1 python tests/benchmarks/search_openspiel.py FOLDER/checkpoints/last.ckpt --games 400

OpenSpiel's player is its Python one (``open_spiel.python.algorithms.mcts``), which takes an evaluator; ours and its
search see the same evaluations. It remembers what the network said of a position, as ours does. Ours also keeps its
tree from move to move.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_spiel.python.algorithms import mcts
from rich.console import Console
from rich.table import Table

from keisei_lightning.evaluation import SearchPlayer, Turn, play_match
from keisei_lightning.games import GameFactory
from keisei_lightning.games.open_spiel.game import OpenSpielGame
from keisei_lightning.policies import LoadedPolicy, load_policy
from keisei_lightning.search import SearchOptions
from keisei_lightning.search.network import NetworkEvaluator

EXPLORATION = 1.5


class Evaluator:
    """What the network says of a state, as OpenSpiel wants it."""

    def __init__(self, policy: LoadedPolicy) -> None:
        self._game, self._known = policy.game(1), dict[str, tuple[NDArray[np.float32], float]]()
        assert isinstance(self._game, OpenSpielGame)
        self._evaluate = NetworkEvaluator(policy.actor_critic, self._game.spec)

    def _say(self, state: Any) -> tuple[NDArray[np.float32], float]:
        key = " ".join(map(str, state.history()))
        if key not in self._known:
            spec = self._game.spec
            self._game.reset()
            self._game.set_position(0, key or "-")
            observation = np.zeros((1, *spec.observation_shape), np.uint8)
            legal = np.zeros((1, spec.mask_bytes), np.uint8)
            self._game.observe(observation, legal, np.zeros(1, np.int8))
            log_priors, values = self._evaluate(observation, legal)
            self._known[key] = np.exp(log_priors), float(values[0])
        return self._known[key]

    def prior(self, state: Any) -> list[tuple[int, float]]:
        """Probabilities of the legal moves."""
        priors, _ = self._say(state)
        return list(zip(state.legal_actions(), priors.tolist(), strict=True))

    def evaluate(self, state: Any) -> NDArray[np.float64]:
        """Values of both players."""
        _, value = self._say(state)
        values = np.array([value, -value])
        return values if state.current_player() == 0 else -values


class OpenSpielSearch:
    """OpenSpiel's search as a player."""

    name = "OpenSpiel's MCTS"
    deterministic = False

    def __init__(self, policy: LoadedPolicy, simulations: int) -> None:
        self._policy, self._simulations = policy, simulations
        self.tries, self.seconds = 0, 0.0

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """Search one board after another."""
        game, chosen = turn.game, []
        assert isinstance(game, OpenSpielGame)
        for index in turn.indices.tolist():
            state = game.state(index)
            bot = mcts.MCTSBot(
                state.get_game(),
                EXPLORATION,
                self._simulations,
                Evaluator(self._policy),
                solve=True,
                random_state=np.random.RandomState(index),
                child_selection_fn=mcts.SearchNode.puct_value,
            )
            start = time.perf_counter()
            root = bot.mcts_search(state)
            self.seconds += time.perf_counter() - start
            self.tries += root.explore_count
            names = {game.action_name(index, label): label for label in self._labels(turn, index)}
            chosen.append(names[state.action_to_string(state.current_player(), root.best_child().action)])
        return np.array(chosen, np.int64)

    @staticmethod
    def _labels(turn: Turn, index: int) -> list[int]:
        row = turn.indices.tolist().index(index)
        labels: list[int] = np.flatnonzero(np.unpackbits(turn.legal[row])).tolist()
        return labels


class Timed(SearchPlayer):
    """Our search, with its tries and time."""

    tries, seconds = 0, 0.0

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """Search all boards together."""
        start = time.perf_counter()
        actions = super().choose(turn)
        self.seconds += time.perf_counter() - start
        self.tries += sum(int(found.visits.sum()) for found in self.found)
        return actions


def main() -> int:
    """Play, and print the score and both speeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--simulations", type=int, default=64)
    parser.add_argument("--games", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    policy = load_policy(arguments.checkpoint)
    factory: GameFactory = policy.game
    options = SearchOptions(simulations=arguments.simulations, method="puct", exploration=EXPLORATION)
    ours = Timed(policy.actor_critic, factory, options, name="ours")
    theirs = OpenSpielSearch(policy, arguments.simulations)
    result = play_match(factory, ours, theirs, num_games=arguments.games, opening_plies=8, seed=1)
    table = Table("score of ours, %", "95 % interval", "ours, tries/s", "OpenSpiel's, tries/s", "ratio")
    low, high = result.interval
    rates = ours.tries / ours.seconds, theirs.tries / theirs.seconds
    table.add_row(
        f"{100 * result.score:.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        *(f"{rate:,.0f}" for rate in rates),
        f"{rates[0] / rates[1]:.1f}",
    )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
