"""Moves drawn in NumPy are those that the distribution draws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keisei_lightning.games import NO_MOVE
from keisei_lightning.models import LegalCategorical, pack_mask
from keisei_lightning.models.drawing import draw_moves


def random_rows(seed: int, num_rows: int, num_actions: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and masks of which some are empty."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(num_rows, num_actions, generator=generator) < 0.15
    return scale * torch.randn(num_rows, num_actions, generator=generator), mask


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**31),
    num_rows=st.integers(1, 20),
    num_actions=st.integers(1, 50),
    scale=st.sampled_from([0.0, 0.1, 3.0, 100.0]),
    packed=st.booleans(),
)
def test_the_same_uniform_numbers_draw_the_same_moves(seed, num_rows, num_actions, scale, packed):
    logits, mask = random_rows(seed, num_rows, num_actions, scale)
    distribution = LegalCategorical(logits, mask)
    given_mask = pack_mask(mask) if packed else mask
    action, log_prob = draw_moves(logits, given_mask, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(action, distribution.sample_with(torch.Generator().manual_seed(seed)))
    torch.testing.assert_close(log_prob, distribution.log_prob(action), atol=3e-6, rtol=1e-6)
    best, best_log_prob = draw_moves(logits, given_mask, greedy=True)
    assert torch.equal(best, distribution.mode)
    torch.testing.assert_close(best_log_prob, distribution.log_prob(best), atol=3e-6, rtol=1e-6)


def test_moves_come_as_often_as_their_probabilities_say():
    logits = torch.tensor([1.0, 0.0, 2.0, -1.0]).expand(100_000, 4)
    mask = torch.tensor([True, True, False, True]).expand(100_000, 4)
    action, log_prob = draw_moves(logits, mask, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor([1.0, 0.0, -1.0]).softmax(0)
    counts = torch.bincount(action, minlength=4)
    assert counts[2] == 0
    torch.testing.assert_close(counts[[0, 1, 3]] / 100_000, expected, atol=0.005, rtol=0)
    torch.testing.assert_close(log_prob[action == 3], expected[2].log().expand(int(counts[3])))


def test_without_a_generator_the_global_one_draws():
    logits, mask = torch.zeros(50, 9), torch.ones(50, 9, dtype=torch.bool)
    torch.manual_seed(3)
    first = draw_moves(logits, mask)[0]
    torch.manual_seed(3)
    assert torch.equal(draw_moves(logits, mask)[0], first)


def test_rows_without_a_legal_move_change_no_other_row():
    mask = torch.zeros(4, 9, dtype=torch.bool)
    mask[[1, 3], [2, 8]] = True
    for greedy in (False, True):
        action, log_prob = draw_moves(torch.randn(4, 9), mask, greedy=greedy)
        assert action.tolist() == [-1, 2, -1, 8]
        assert log_prob.tolist() == [0, 0, 0, 0]
        nothing = draw_moves(torch.randn(4, 9), torch.zeros(4, 9, dtype=torch.bool), greedy=greedy)
        assert (nothing[0].tolist(), nothing[1].tolist()) == ([-1] * 4, [0] * 4)


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_a_row_that_is_no_distribution_has_no_move_and_its_neighbours_have(fault):
    logits, mask = torch.zeros(3, 5), torch.ones(3, 5, dtype=torch.bool)
    logits[1, 2] = fault
    for greedy in (False, True):
        action, log_prob = draw_moves(logits, mask, generator=torch.Generator().manual_seed(1), greedy=greedy)
        assert log_prob.isfinite().tolist() == [True, False, True]
        assert (action >= 0).tolist() == [True, False, True]
        assert action[1] == NO_MOVE
        assert (action < 5).all()


@pytest.mark.parametrize("fault", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("greedy", [False, True])
def test_no_row_that_is_no_distribution_has_a_move(fault, greedy):
    action, log_prob = draw_moves(torch.full((2, 3), fault), torch.ones(2, 3, dtype=torch.bool), greedy=greedy)
    assert action.tolist() == [NO_MOVE, NO_MOVE]
    assert not log_prob.isfinite().any()


def test_a_legal_move_of_logit_minus_infinity_is_never_drawn():
    logits = torch.zeros(1000, 3)
    logits[:, 1] = -torch.inf
    action, log_prob = draw_moves(logits, torch.ones(1000, 3, dtype=torch.bool))
    assert set(action.tolist()) == {0, 2}
    torch.testing.assert_close(log_prob.exp(), torch.full((1000,), 0.5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_may_have_any_dtype(dtype):
    action, log_prob = draw_moves(torch.zeros(4, 8, dtype=dtype), torch.ones(4, 8, dtype=torch.bool))
    assert (action.dtype, log_prob.dtype) == (torch.int64, torch.float32)
    torch.testing.assert_close(log_prob, torch.full((4,), 1 / 8).log())


def test_no_gradient_passes():
    logits = torch.zeros(4, 8, requires_grad=True)
    assert not draw_moves(logits, torch.ones(4, 8, dtype=torch.bool))[1].requires_grad
