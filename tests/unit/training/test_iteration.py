"""The minibatches of several ranks: each ply once, and gradients of the mean over all plies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from keisei_lightning.training.iteration import (
    LOSS_WEIGHT,
    Iteration,
    joined_rollouts,
    loss_weights,
    own_rollout,
)

PLIES = 60


def iterations(counts: list[int], *, parts: int = 4, epochs: int = 2) -> list[Iteration]:
    """Ranks that have so many of their 60 plies to learn from; a ply's number tells its rank too."""
    return [
        Iteration(
            TensorDict({"action": torch.arange(PLIES) + PLIES * rank}, batch_size=PLIES),
            torch.arange(count) * (PLIES // max(counts)),
            epochs,
            parts,
            counts=counts,
            rank=rank,
            num_ranks=len(counts),
        )
        for rank, count in enumerate(counts)
    ]


def taken(iteration: Iteration, number: int | None = None) -> list[TensorDict]:
    """So many minibatches, or all that there are."""
    minibatches = iteration.minibatches(seed=5, number=3)
    return list(minibatches) if number is None else [next(minibatches) for _ in range(number)]


def resumed(states: list[Any], num_ranks: int) -> list[Iteration]:
    state = joined_rollouts(states)
    assert state is not None
    return [
        Iteration.restored(
            own_rollout(state, rank, num_ranks), num_epochs=1, num_minibatches=1, rank=rank, num_ranks=num_ranks
        )
        for rank in range(num_ranks)
    ]


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(4, 20), min_size=1, max_size=4), values=st.integers(0, 99))
def test_the_weighted_mean_over_the_ranks_is_the_mean_over_all_plies(counts: list[int], values: int) -> None:
    value = torch.randn(PLIES * len(counts), generator=torch.Generator().manual_seed(values), dtype=torch.float64)
    for minibatches in zip(*(taken(each) for each in iterations(counts)), strict=True):  # equally many on each rank
        rows = [minibatch["action"] for minibatch in minibatches]
        weights = [float(m[LOSS_WEIGHT][0]) if LOSS_WEIGHT in m.keys() else 1.0 for m in minibatches]  # noqa: SIM118
        mean = sum(weight * value[row].mean() for weight, row in zip(weights, rows, strict=True)) / len(counts)
        torch.testing.assert_close(mean, value[torch.cat(rows)].mean(), rtol=1e-6, atol=1e-7)


def test_ranks_with_equally_many_plies_need_no_weights() -> None:
    assert loss_weights([12, 12], 5, 0) == []
    assert all(LOSS_WEIGHT not in set(minibatch.keys()) for each in iterations([12, 12]) for minibatch in taken(each))


def test_a_rank_without_enough_plies_makes_all_take_fewer_minibatches() -> None:
    assert [len(taken(each)) for each in iterations([20, 2], parts=4, epochs=3)] == [6, 6]
    assert [len(taken(each)) for each in iterations([20, 0], parts=4, epochs=3)] == [0, 0]


def test_one_rank_alone_shuffles_as_it_always_has() -> None:
    alone, first = iterations([20])[0], iterations([20, 20])[0]
    for own, of_two in zip(taken(alone), taken(first), strict=True):
        assert torch.equal(own["action"], of_two["action"])


def test_no_two_ranks_shuffle_alike() -> None:
    first, second = (torch.cat([m["action"] for m in taken(each)]) % PLIES for each in iterations([20, 20]))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("done", [0, 3, 5])
def test_as_many_ranks_resume_with_the_very_minibatches_that_were_left(done: int) -> None:
    whole, interrupted = iterations([20, 14]), iterations([20, 14])
    for each in interrupted:
        taken(each, done)
    for each, again in zip(whole, resumed([each.state() for each in interrupted], 2), strict=True):
        for own, other in zip(taken(each)[done:], taken(again), strict=True):
            assert torch.equal(own["action"], other["action"])
            assert torch.equal(own[LOSS_WEIGHT], other[LOSS_WEIGHT])


@pytest.mark.parametrize(("before", "after"), [([20, 14], 1), ([20, 14], 3), ([20], 3), ([9, 8, 7], 2)])
def test_another_number_of_ranks_shares_out_each_minibatch_that_was_left(before: list[int], after: int) -> None:
    whole, interrupted = [taken(each) for each in iterations(before)], iterations(before)
    for each in interrupted:
        taken(each, 5)
    again = [taken(each) for each in resumed([each.state() for each in interrupted], after)]
    assert [len(each) for each in again] == after * [len(whole[0]) - 5]
    for k, minibatches in enumerate(zip(*again, strict=True)):
        rows = torch.cat([minibatch["action"] for minibatch in minibatches])
        assert torch.equal(rows, torch.cat([each[5 + k]["action"] for each in whole]))
        sizes = [len(minibatch) for minibatch in minibatches]
        weights = [float(m[LOSS_WEIGHT][0]) if LOSS_WEIGHT in set(m.keys()) else 1.0 for m in minibatches]
        assert weights == pytest.approx([after * size / sum(sizes) for size in sizes])


def test_what_was_shared_out_once_can_be_shared_out_again() -> None:
    interrupted = iterations([20, 14])
    for each in interrupted:
        taken(each, 3)
    one = resumed([each.state() for each in interrupted], 1)[0]
    left = taken(one, 2)
    assert len(left) == 2
    again = resumed([one.state()], 2)  # as many as played at first: each has its own plies again
    for each, other in zip(iterations([20, 14]), again, strict=True):
        assert len(other.plies) == PLIES
        for own, resumed_one in zip(taken(each)[5:], taken(other), strict=True):
            assert torch.equal(own["action"], resumed_one["action"])


def test_a_rank_that_gets_nothing_of_a_tiny_minibatch_has_a_loss_of_no_weight() -> None:
    interrupted = iterations([2], parts=2)
    shares = [taken(each) for each in resumed([interrupted[0].state()], 3)]
    assert [[len(minibatch) for minibatch in share] for share in shares] == 3 * [4 * [1]]
    assert [[float(minibatch[LOSS_WEIGHT][0]) for minibatch in share] for share in shares] == [
        4 * [3.0],
        4 * [0.0],
        4 * [0.0],
    ]
