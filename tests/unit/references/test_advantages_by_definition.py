"""Advantages against the definition, summed term by term in double precision: no recursion, no vectors.

The paper (Schulman et al. 2016, equation 16) gives ``A[t] = sum over k of (gamma lambda)^k delta[t+k]``. Here each game
is first cut out of its row and the plies of a frozen opponent are folded into the environment of the learner's
decisions; what is left is an ordinary one-player process, for which the sum is written out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from keisei_lightning.rl import two_player_gae

CASES = 400


@dataclass
class Decision:
    """A position in which the learner moves, and what comes of it until it moves again.

    Attributes:
        ply: where in the row.
        delta: reward on the way and discounted value at its end, minus the value here; all as the mover here sees it.
        carry: what the next decision's advantage is worth here, but for lambda; 0 where the game or the row ends.
    """

    ply: int
    delta: float
    carry: float


def decisions(row: dict[str, list[float]], first: int, last: int, gamma: float) -> list[Decision]:
    """The learner's decisions in plies ``first`` to ``last`` of a row: one game, or what there is of it."""
    found = []
    for ply in range(first, last + 1):
        if not row["trainable"][ply]:
            continue
        reward, factor, place = 0.0, 1.0, ply
        while True:  # as the mover of `ply` sees it: a change of the mover changes the sign
            reward += factor * row["reward"][place]
            factor *= gamma if row["mover"][place] == row["next_mover"][place] else -gamma
            if place == last or row["trainable"][place + 1]:
                break
            place += 1
        ends = place == last
        value = 0.0 if ends and row["terminated"][last] else row["next_state_value"][place]
        delta = reward + factor * value - row["state_value"][ply]
        found.append(Decision(ply, delta, 0.0 if ends else factor))
    return found


def advantages(row: dict[str, list[float]], gamma: float, lmbda: float) -> list[float]:
    """Of one row of plies; 0 where the learner does not move."""
    num_plies = len(row["reward"])
    result, first = [0.0] * num_plies, 0
    ends = [ply for ply in range(num_plies) if row["done"][ply] or ply == num_plies - 1]
    for last in ends:
        game = decisions(row, first, last, gamma)
        for number, decision in enumerate(game):
            weight = 1.0
            for later in range(number, len(game)):
                result[decision.ply] += weight * game[later].delta
                weight *= lmbda * game[later].carry
        first = last + 1
    return result


def random_rollout(rng: np.random.Generator) -> dict[str, Tensor]:
    """Games in any order of turns, that end, are cut short, or go on beyond the row."""
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 24)))
    done = rng.random(shape) < rng.choice([0.0, 0.1, 0.4])
    mover, following = rng.integers(0, 2, shape), rng.integers(0, 2, shape)
    value, next_value = rng.uniform(-1, 1, shape), rng.uniform(-1, 1, shape)
    following[:, :-1] = np.where(done[:, :-1], following[:, :-1], mover[:, 1:])
    next_value[:, :-1] = np.where(done[:, :-1], next_value[:, :-1], value[:, 1:])
    columns = {
        "state_value": value,
        "next_state_value": next_value,
        "reward": rng.choice([-1.0, 0.0, 0.5, 1.0], shape),
        "done": done,
        "terminated": done & (rng.random(shape) < 0.6),
    }
    flat = {"mover": mover.astype(np.int8), "next_mover": following.astype(np.int8)}
    trainable = rng.random(shape) < rng.choice([0.0, 0.3, 0.7, 1.0])
    return {
        **{name: torch.from_numpy(column).unsqueeze(-1) for name, column in columns.items()},
        **{name: torch.from_numpy(column) for name, column in flat.items()},
        "trainable": torch.from_numpy(trainable),
    }


def by_definition(data: dict[str, Tensor], gamma: float, lmbda: float) -> Tensor:
    rows = {name: column.reshape(column.shape[:2]).tolist() for name, column in data.items()}
    num_rows = len(rows["reward"])
    return torch.tensor(
        [advantages({name: column[row] for name, column in rows.items()}, gamma, lmbda) for row in range(num_rows)],
        dtype=torch.float64,
    ).unsqueeze(-1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_four_hundred_random_rollouts_have_the_advantages_of_the_definition(
    dtype: torch.dtype, tolerance: float
) -> None:
    rng, worst, plies = np.random.default_rng(20), 0.0, 0
    for _ in range(CASES):
        data = random_rollout(rng)
        gamma, lmbda = (float(rng.choice([0.0, 0.9, 0.995, 1.0, rng.random()])) for _ in range(2))
        given = {name: column.to(dtype) if column.is_floating_point() else column for name, column in data.items()}
        advantage, target = two_player_gae(gamma=gamma, lmbda=lmbda, **given)
        expected = by_definition(data, gamma, lmbda)
        worst = max(worst, float((advantage.double() - expected).abs().max()))
        worst = max(worst, float((target.double() - expected - data["state_value"]).abs().max()))
        plies += int(data["trainable"].sum())
    assert plies > 4000
    assert worst < tolerance


def test_the_reference_itself_is_right_where_it_can_be_done_by_hand() -> None:
    """Seat 0 moves, seat 1 (frozen) replies, seat 0 wins: gamma 0.9, lambda 0.5."""
    row = {
        "state_value": [0.2, 0.7, 0.6],
        "next_state_value": [0.7, 0.6, 0.3],
        "reward": [0.0, 0.0, 1.0],
        "done": [False, False, True],
        "terminated": [False, False, True],
        "mover": [0, 1, 0],
        "next_mover": [1, 0, 1],
    }
    alone = advantages(row | {"trainable": [True, False, True]}, 0.9, 0.5)
    assert alone == pytest.approx([0.81 * 0.6 - 0.2 + 0.5 * 0.81 * 0.4, 0.0, 0.4])
    both = advantages(row | {"trainable": [True, True, True]}, 0.9, 0.5)
    assert both == pytest.approx([-0.9 * 0.7 - 0.2 - 0.45 * (-0.54 - 0.7 - 0.45 * 0.4), -0.54 - 0.7 - 0.45 * 0.4, 0.4])
