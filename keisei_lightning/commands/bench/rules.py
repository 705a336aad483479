"""How fast the games alone advance, without any network: rules, and with them observations and masks."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.commands.bench.options import RulesOptions, describe_rules, game_of
from keisei_lightning.commands.bench.report import print_report
from keisei_lightning.games import GameFactory

__all__ = ["RandomPlay", "run"]


class RandomPlay:
    """G boards that play uniformly random legal moves; choosing them is not counted.

    Args:
        game: makes the boards.
        num_games: G.
        seed: of the openings and the moves.

    Attributes:
        step_s: seconds in the rules so far.
        observe_s: seconds for observations and masks.
        reset_s: seconds for new games and their random openings.
        plies: that the boards played, all together.
        legal_moves: that there were to choose from.
    """

    def __init__(self, game: GameFactory, num_games: int, seed: int) -> None:
        self._boards = game(num_games)
        self._boards.seed(seed)
        self._boards.reset()
        spec = self._boards.spec
        self._random = np.random.default_rng(seed)
        self._num_actions = spec.num_actions
        self._observation = np.zeros((num_games, *spec.observation_shape), np.uint8)
        self._legal = np.zeros((num_games, spec.mask_bytes), np.uint8)
        self._mover = np.zeros(num_games, np.int8)
        self.step_s = self.observe_s = self.reset_s = 0.0
        self.plies = self.legal_moves = 0

    def play(self, plies: int) -> float:
        """Play so many plies of each board.

        Returns:
            Plies per second of rules, observations and masks.
        """
        before, played = self.step_s + self.observe_s, self.plies
        for _ in range(plies):
            start = time.perf_counter()
            self._boards.observe(self._observation, self._legal, self._mover)
            observed = time.perf_counter()
            moves = self._choose()
            chosen = time.perf_counter()
            result = self._boards.step(moves)
            stepped = time.perf_counter()
            over = np.flatnonzero(result.terminated | result.truncated)
            if over.size:
                self._boards.reset(over)
            self.observe_s += observed - start
            self.step_s += stepped - chosen
            self.reset_s += time.perf_counter() - stepped
            self.plies += len(moves)
        return (self.plies - played) / (self.step_s + self.observe_s - before)

    def _choose(self) -> NDArray[np.int64]:
        boards, actions = np.nonzero(np.unpackbits(self._legal, axis=1, count=self._num_actions))
        sizes = np.bincount(boards, minlength=len(self._mover))
        self.legal_moves += len(actions)
        picked = np.cumsum(sizes) - sizes + (self._random.random(len(sizes)) * sizes).astype(np.int64)
        return np.take(actions, picked)


def _row(play: RandomPlay, num_games: int, rates: list[float]) -> dict[str, Any]:
    return {
        "boards": num_games,
        "rules_plies_per_s": round(play.plies / play.step_s),
        "rules_observation_mask_plies_per_s": round(statistics.median(rates)),
        "slowest_round": round(min(rates)),
        "quickest_round": round(max(rates)),
        "us_per_ply": round(1e6 * (play.step_s + play.observe_s) / play.plies, 2),
        "openings_us_per_ply": round(1e6 * play.reset_s / play.plies, 2),
        "legal_moves": round(play.legal_moves / play.plies, 1),
    }


def run(options: RulesOptions) -> None:
    """Measure and print."""
    plays = {games: RandomPlay(game_of(options), games, options.seed) for games in options.games}
    rates: dict[int, list[float]] = {games: [] for games in plays}
    for _ in range(options.rounds):
        for games, play in plays.items():
            rates[games].append(play.play(options.plies))
    print_report(
        f"rules: {options.game}, random play, one thread",
        [_row(play, games, rates[games]) for games, play in plays.items()],
        as_json=options.json,
        write=options.write,
        notes=(
            f"medians of {options.rounds} alternating rounds of {options.plies} plies of each board; "
            f"seed {options.seed}",
            "choosing the moves is not counted, new games and their random openings are apart",
            *describe_rules(options),
        ),
    )
