"""Whether an exported file computes what its module does, on positions of games that are played at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from keisei_lightning.errors import KeiseiError
from keisei_lightning.evaluation.players import RandomPlayer
from keisei_lightning.games.protocol import GameFactory
from keisei_lightning.models import ActorCritic

__all__ = ["Comparison", "Positions", "Run", "compare", "positions_of_random_games"]

Positions = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""Observations uint8 [n, *observation_shape] and legal moves bool [n, A]."""

Run = Callable[[NDArray[np.uint8], NDArray[np.bool_]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""What an exported file computes: log-probabilities float32 [n, A] and values float32 [n] of n positions."""

_BOARDS: Final = 8  # few, so that the positions are of whole games and not of openings
_BATCHES: Final = (1, 2, 3)  # first batches: a graph may treat one position, or an odd number, in another way
_LARGEST_BATCH: Final = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How far a file is from its module.

    Attributes:
        positions: how many were compared.
        seed: of the games.
        games: that were begun for them.
        max_log_prob_difference: the largest, of all legal moves, as a part of the largest log-probability of the
            position where that is beyond -1: sums in float32 in another order differ by a part of the size of the
            logits, which a trained policy makes large (1,000 and more for moves that it is sure of).
        max_value_difference: the largest.
        same_move: share of positions whose likeliest move is the same.
        tolerance: no difference is larger.
        wrong_masks: positions where other moves than the illegal ones have -inf.
    """

    positions: int
    seed: int
    games: int
    max_log_prob_difference: float
    max_value_difference: float
    same_move: float
    tolerance: float
    wrong_masks: int

    def check(self) -> None:
        """Refuse a file that computes something else.

        Raises:
            KeiseiError: a mask is wrong, or a difference is above the tolerance or no number.
        """
        differences = (self.max_log_prob_difference, self.max_value_difference)
        if self.wrong_masks or not all(difference <= self.tolerance for difference in differences):
            raise KeiseiError(
                "the exported file does not compute what the checkpoint does, and was not written: on "
                f"{self.positions} positions log-probabilities differ by up to {self.max_log_prob_difference:.3g} and "
                f"values by up to {self.max_value_difference:.3g} (tolerance={self.tolerance:g}); {self.wrong_masks} "
                "masks are wrong"
            )

    def figures(self) -> dict[str, Any]:
        """As a card has them."""
        return {
            name: float(f"{value:.3g}") if name.startswith("max_") else value for name, value in asdict(self).items()
        }


def positions_of_random_games(game: GameFactory, count: int, *, seed: int) -> tuple[Positions, int]:
    """Positions of games between players who choose uniformly, from their starts to their ends.

    Args:
        game: makes the boards.
        count: how many positions.
        seed: of the games.

    Returns:
        The positions, and how many games were begun for them.
    """
    boards = game(min(_BOARDS, count))
    spec, player = boards.spec, RandomPlayer(boards.spec.num_actions, seed=seed)
    observation = np.zeros((boards.num_games, *spec.observation_shape), np.uint8)
    legal = np.zeros((boards.num_games, spec.mask_bytes), np.uint8)
    mover = np.zeros(boards.num_games, np.int8)
    boards.seed(seed)
    boards.reset()
    games, seen = boards.num_games, list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]()
    while len(seen) * boards.num_games < count:
        boards.observe(observation, legal, mover)
        seen.append((observation.copy(), legal.copy()))
        result = boards.step(player.draw(legal))
        over = np.flatnonzero(result.terminated | result.truncated)
        boards.reset(over)
        games += len(over)
    observations, masks = (np.concatenate(parts)[:count] for parts in zip(*seen, strict=True))
    return (observations, np.unpackbits(masks, axis=1, count=spec.num_actions).view(np.bool_)), games


def compare(
    run: Run, actor_critic: ActorCritic, game: GameFactory, *, positions: int, seed: int, tolerance: float
) -> Comparison:
    """Compare what a file computes with what its module does.

    Args:
        run: the file.
        actor_critic: the module, in evaluation mode.
        game: whose positions.
        positions: how many.
        seed: of the games.
        tolerance: for :meth:`Comparison.check`.
    """
    (observations, masks), games = positions_of_random_games(game, positions, seed=seed)
    log_prob_differences, value_differences, same, wrong = [0.0], [0.0], 0, 0
    for rows in _batches(positions):
        observation, legal = observations[rows], masks[rows]
        wanted, wanted_value = _by_module(actor_critic, observation, legal)
        log_probs, values = run(observation, legal)
        wrong += int(((log_probs == -np.inf) != ~legal).any(axis=1).sum())
        differences = np.abs(np.subtract(log_probs, wanted, where=legal, out=np.zeros_like(wanted)))
        sizes = np.abs(wanted, where=legal, out=np.ones_like(wanted)).max(axis=1).clip(min=1.0)
        log_prob_differences.append(float((differences.max(axis=1) / sizes).max()))
        value_differences.append(float(np.abs(values - wanted_value).max()))
        same += int((log_probs.argmax(axis=1) == wanted.argmax(axis=1)).sum())
    return Comparison(
        positions=positions,
        seed=seed,
        games=games,
        max_log_prob_difference=float(np.max(log_prob_differences)),  # NumPy's: one NaN makes it NaN
        max_value_difference=float(np.max(value_differences)),
        same_move=round(same / positions, 5),
        tolerance=tolerance,
        wrong_masks=wrong,
    )


def _by_module(
    actor_critic: ActorCritic, observation: NDArray[np.uint8], legal: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the module says, its softmax taken here and over the legal moves alone, in double precision."""
    with torch.inference_mode():
        logits, value = (part.float().numpy() for part in actor_critic(torch.from_numpy(observation)))
    shifted = np.where(legal, logits.astype(np.float64), -np.inf)
    shifted -= shifted.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probs.astype(np.float32), value[:, 0]


def _batches(count: int) -> Iterator[slice]:
    start = 0
    sizes = iter(_BATCHES)
    while start < count:
        end = min(count, start + next(sizes, _LARGEST_BATCH))
        yield slice(start, end)
        start = end
