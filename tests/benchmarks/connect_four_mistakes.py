"""Which moves cost a policy the game: every move of its matches at connect four beside a perfect solver's.

::

    pip install --no-deps "bitbully==0.0.79" "bitbully-databases==0.0.2"
    python tests/benchmarks/connect_four_mistakes.py FOLDER/checkpoints/last.ckpt

A mistake is a move after which the mover wins no longer, or not even draws. The match is the one of
``tests/strength.py`` against two-ply tactics, from openings of up to four plies.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from perfect_connect_four import Solver

from keisei_lightning.evaluation import PolicyPlayer, Turn, play_match
from keisei_lightning.evaluation.registry import make_player
from keisei_lightning.policies import LoadedPolicy, load_policy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from strength import GAMES, OPENING_SEED

RESULTS = {1: "win", 0: "draw", -1: "loss"}


@dataclass(frozen=True, slots=True)
class Move:
    """One move of the policy.

    Attributes:
        ply: of the game, from 0.
        before: result with best play before it: 1, 0 or -1 for the mover.
        after: and after it.
        chosen: the policy's probability of the move.
        optimal: and of all moves together that keep the result.
    """

    ply: int
    before: int
    after: int
    chosen: float
    optimal: float


class Watched:
    """Plays a policy's most likely moves, and has the solver grade each of them."""

    name = "policy"

    def __init__(self, policy: LoadedPolicy) -> None:
        self._network = policy.actor_critic.eval()
        self._player, self._solver = PolicyPlayer(policy.actor_critic), Solver()
        self.moves: list[Move] = []

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        actions = self._player.choose(turn)
        spec, num_games = turn.game.spec, turn.game.num_games
        observation = np.zeros((num_games, *spec.observation_shape), np.uint8)
        turn.game.observe(observation, np.zeros((num_games, spec.mask_bytes), np.uint8), np.zeros(num_games, np.int8))
        with torch.inference_mode():
            logits, _ = self._network(torch.from_numpy(observation))
        for index, action in zip(turn.indices.tolist(), actions.tolist(), strict=True):
            position = turn.game.position(index)
            results = {column: int(np.sign(score)) for column, score in self._solver.scores(position).items()}
            probabilities = dict(zip(results, logits[index, list(results)].softmax(0).tolist(), strict=True))
            best = max(results.values())
            self.moves.append(
                Move(
                    ply=0 if position == "-" else len(position.split()),
                    before=best,
                    after=results[action],
                    chosen=probabilities[action],
                    optimal=sum(probabilities[column] for column, result in results.items() if result == best),
                )
            )
        return actions


def main() -> int:
    """Play the match and print what the mistakes are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--opponent", default="tactics", metavar="PLAYER")
    parser.add_argument("--games", type=int, default=GAMES)
    parser.add_argument("--opening-plies", type=int, default=4)
    arguments = parser.parse_args()
    policy = load_policy(arguments.checkpoint)
    player = Watched(policy)
    result = play_match(
        policy.game,
        player,
        make_player(arguments.opponent, policy.game(1).spec, seed=1),
        num_games=arguments.games,
        opening_plies=arguments.opening_plies,
        seed=OPENING_SEED,
    )
    mistakes = [move for move in player.moves if move.after < move.before]
    kinds = Counter(f"{RESULTS[move.before]} to {RESULTS[move.after]}" for move in mistakes)
    plies = Counter(move.ply // 4 * 4 for move in mistakes)
    lines = [str(result), f"{len(mistakes)} mistakes in {len(player.moves)} moves: {dict(kinds.most_common())}"]
    lines += [f"plies {ply} to {ply + 3}: {plies[ply]}" for ply in sorted(plies)]
    if mistakes:
        lines += [
            f"the policy's probability of a mistake that it made, median: "
            f"{statistics.median(move.chosen for move in mistakes):.2f}",
            f"of all moves there that were none, median: {statistics.median(move.optimal for move in mistakes):.3f}",
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
