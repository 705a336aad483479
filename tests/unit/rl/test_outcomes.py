"""Targets of win, draw and loss against their definition, a recursion over distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tensordict import TensorDict

from keisei_lightning.rl import batch_advantages, outcome_targets

WIN, DRAW, LOSS = np.eye(3)


def rollouts(seed: int, batch: int, plies: int) -> tuple[TensorDict, NDArray[np.float64]]:
    """Random plies in any order of turns, and the distribution P [B, T, 3] that a head gives for each."""
    rng = np.random.default_rng(seed)
    outcomes = rng.dirichlet([0.7, 0.7, 0.7], (batch, plies))
    value = outcomes[..., 0] - outcomes[..., 2]
    done = rng.random((batch, plies)) < 0.3
    terminated = done & (rng.random((batch, plies)) < 0.6)
    mover, next_mover = rng.integers(0, 2, (2, batch, plies))
    next_value = rng.uniform(-1, 1, (batch, plies))
    next_value[:, :-1] = np.where(done[:, :-1], next_value[:, :-1], value[:, 1:])
    next_mover[:, :-1] = np.where(done[:, :-1], next_mover[:, :-1], mover[:, 1:])
    reward = np.where(terminated, rng.integers(-1, 2, (batch, plies)), 0)

    def column(array: NDArray[np.generic], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(array, dtype=dtype).unsqueeze(-1)

    following = {
        "state_value": column(next_value, torch.float64),
        "reward": column(reward, torch.float64),
        "done": column(done, torch.bool),
        "terminated": column(terminated, torch.bool),
        "mover": torch.tensor(next_mover, dtype=torch.int8),
    }
    columns = {
        "state_value": column(value, torch.float64),
        "mover": torch.tensor(mover, dtype=torch.int8),
        "trainable": torch.tensor(rng.random((batch, plies)) < 0.7),
        "next": following,
    }
    return TensorDict(columns, batch_size=(batch, plies)), outcomes


def by_definition(
    rollout: TensorDict, outcomes: NDArray[np.float64], row: int, t: int, *, gamma: float, lmbda: float
) -> NDArray[np.float64]:
    following = rollout["next"]
    if following["terminated"][row, t]:
        return {1: WIN, 0: DRAW, -1: LOSS}[int(following["reward"][row, t])]
    if following["done"][row, t] or t + 1 == rollout.batch_size[1]:
        value = float(following["state_value"][row, t])
        decisive = max(1 - outcomes[row, t, 1], abs(value))
        after = np.array([(decisive + value) / 2, 1 - decisive, (decisive - value) / 2])
    else:
        weight = lmbda if rollout["trainable"][row, t + 1] else 1.0
        ahead = by_definition(rollout, outcomes, row, t + 1, gamma=gamma, lmbda=lmbda)
        after = (1 - weight) * outcomes[row, t + 1] + weight * ahead
    same_mover = rollout["mover"][row, t] == following["mover"][row, t]
    return (1 - gamma) * DRAW + gamma * (after if same_mover else after[::-1])


def targets(rollout: TensorDict, outcomes: NDArray[np.float64], *, gamma: float, lmbda: float) -> torch.Tensor:
    decisive = torch.tensor(1 - outcomes[..., 1:2])
    value_target = batch_advantages(rollout, gamma=gamma, lmbda=lmbda)[1]
    return outcome_targets(rollout, decisive, value_target, gamma=gamma, lmbda=lmbda)


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 3),
    plies=st.integers(1, 10),
    gamma=st.floats(0, 1),
    lmbda=st.floats(0, 1),
)
def test_they_are_the_lambda_returns_of_distributions(
    seed: int, batch: int, plies: int, gamma: float, lmbda: float
) -> None:
    rollout, outcomes = rollouts(seed, batch, plies)
    found = targets(rollout, outcomes, gamma=gamma, lmbda=lmbda)
    for row, t in rollout["trainable"].nonzero().tolist():
        expected = by_definition(rollout, outcomes, row, t, gamma=gamma, lmbda=lmbda)
        assert found[row, t].tolist() == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), gamma=st.floats(0, 1), lmbda=st.floats(0, 1))
def test_they_are_probabilities_and_their_expected_score_is_the_value_target(
    seed: int, gamma: float, lmbda: float
) -> None:
    rollout, outcomes = rollouts(seed, 4, 9)
    # Of a head that has learned on since the rollout was played: its draws do not fit the stored values.
    other = np.random.default_rng(seed + 1).dirichlet([1, 1, 1], (4, 9))
    value_target = batch_advantages(rollout, gamma=gamma, lmbda=lmbda)[1]
    for head in (outcomes, other):
        found = targets(rollout, head, gamma=gamma, lmbda=lmbda)
        torch.testing.assert_close(found[..., :1] - found[..., 2:], value_target, atol=1e-9, rtol=0)
        torch.testing.assert_close(found.sum(-1), torch.ones(4, 9, dtype=torch.float64), atol=1e-9, rtol=0)
        assert found.min() >= -1e-12


def test_without_discount_and_with_lambda_one_every_ply_of_a_finished_game_gets_its_outcome() -> None:
    """One game of five plies that the first player wins, and one that is drawn; turns alternate."""
    mover = (torch.arange(5) % 2).to(torch.int8).expand(2, 5)
    end = torch.zeros(2, 5, 1, dtype=torch.bool)
    end[:, -1] = True
    reward = torch.zeros(2, 5, 1)
    reward[0, -1] = 1.0
    zeros = torch.zeros(2, 5, 1)
    following = {"state_value": zeros, "reward": reward, "done": end, "terminated": end, "mover": 1 - mover}
    rollout = TensorDict(
        {"state_value": zeros, "mover": mover, "trainable": torch.ones(2, 5, dtype=torch.bool), "next": following},
        batch_size=(2, 5),
    )
    found = targets(rollout, np.full((2, 5, 3), 1 / 3), gamma=1.0, lmbda=1.0)
    won, lost, drawn = [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]
    assert found[0].tolist() == [won, lost, won, lost, won]
    assert found[1].tolist() == [drawn] * 5
    discounted = targets(rollout, np.full((2, 5, 3), 1 / 3), gamma=0.5, lmbda=1.0)
    assert discounted[0].tolist() == [
        [1 / 16, 15 / 16, 0],
        [0, 7 / 8, 1 / 8],
        [1 / 4, 3 / 4, 0],
        [0, 1 / 2, 1 / 2],
        won,
    ]
