import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical

from keisei_lightning.games import NO_MOVE
from keisei_lightning.models import LegalCategorical, pack_mask

LOGITS = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0], [5.0, 5.0, 5.0, 5.0]])
MASK = torch.tensor([[True, False, True, False], [True, True, True, True], [False, False, False, False]])


def random_rows(seed: int, num_rows: int, num_actions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and masks with one legal move at least."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(num_rows, num_actions, generator=generator) < 0.3
    mask[torch.arange(num_rows), torch.randint(num_actions, (num_rows,), generator=generator)] = True
    return 3 * torch.randn(num_rows, num_actions, generator=generator), mask


def dense(logits: torch.Tensor, mask: torch.Tensor) -> Categorical:
    return Categorical(logits=logits.masked_fill(~mask, -1e9))


def test_two_legal_moves_share_the_probability_by_their_logits():
    distribution = LegalCategorical(LOGITS, MASK)
    log_prob = distribution.log_prob(torch.tensor([2, 1, 0]))
    high = 1 / (1 + math.exp(-2))
    assert log_prob[0].item() == pytest.approx(math.log(high), abs=1e-6)
    assert log_prob[1].item() == pytest.approx(-math.log(4), abs=1e-6)
    entropy = distribution.entropy()
    assert entropy[0].item() == pytest.approx(-high * math.log(high) - (1 - high) * math.log(1 - high), abs=1e-6)
    assert entropy[1].item() == pytest.approx(math.log(4), abs=1e-6)
    assert distribution.mode.tolist() == [2, 0, -1]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), num_rows=st.integers(1, 20), num_actions=st.integers(1, 50), packed=st.booleans())
def test_it_equals_the_dense_categorical_and_so_do_its_gradients(seed, num_rows, num_actions, packed):
    logits, mask = random_rows(seed, num_rows, num_actions)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    reference = dense(theirs, mask)
    distribution = LegalCategorical(ours, pack_mask(mask) if packed else mask)
    action = reference.sample()
    torch.testing.assert_close(distribution.log_prob(action), reference.log_prob(action), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(distribution.entropy(), reference.entropy(), atol=2e-6, rtol=1e-5)
    assert torch.equal(distribution.mode, reference.mode)
    for each in (distribution, reference):
        (each.log_prob(action).sum() - 0.5 * each.entropy().sum()).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=2e-6, rtol=1e-5)
    assert not ours.grad[~mask].any()


def test_a_row_without_a_legal_move_changes_no_other_row():
    logits = LOGITS.clone().requires_grad_()
    distribution = LegalCategorical(logits, MASK)
    for action in (distribution.sample(), distribution.mode):
        assert action[2] == -1
        assert distribution.log_prob(action)[2] == 0
    assert distribution.entropy()[2] == 0
    (distribution.log_prob(distribution.mode) + distribution.entropy()).sum().backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[2].any()


@pytest.mark.parametrize("num_rows", [0, 1, 3])
def test_a_batch_without_any_legal_move_is_all_sitting_out(num_rows):
    logits = torch.zeros(num_rows, 5, requires_grad=True)
    distribution = LegalCategorical(logits, torch.zeros(num_rows, 5, dtype=torch.bool))
    assert distribution.sample().tolist() == distribution.mode.tolist() == [-1] * num_rows
    assert distribution.log_prob(distribution.mode).tolist() == [0.0] * num_rows
    assert distribution.entropy().tolist() == [0.0] * num_rows


def test_an_illegal_action_has_no_probability_and_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    log_prob = LegalCategorical(logits, MASK).log_prob(torch.tensor([1, -1, 3]))
    assert log_prob.tolist() == [-math.inf, -math.inf, 0.0]
    log_prob.masked_fill(log_prob.isinf(), 0.0).sum().backward()
    assert not logits.grad.any()
    beyond_the_row = LegalCategorical(LOGITS, MASK).log_prob(torch.tensor([4, 0, 0]))
    assert beyond_the_row[0] == -math.inf


def test_huge_logits_stay_finite():
    logits = torch.tensor([[3e38, -3e38, 0.0], [1000.0, -1000.0, 1000.0]], requires_grad=True)
    distribution = LegalCategorical(logits, torch.ones(2, 3, dtype=torch.bool))
    assert distribution.log_prob(torch.tensor([0, 0])).tolist() == pytest.approx([0.0, -math.log(2)], abs=1e-6)
    assert distribution.entropy().tolist() == pytest.approx([0.0, math.log(2)], abs=1e-6)
    (distribution.log_prob(torch.tensor([0, 0])) + distribution.entropy()).sum().backward()
    assert logits.grad.isfinite().all()


def test_half_precision_logits_are_computed_in_float32():
    distribution = LegalCategorical(LOGITS.bfloat16(), MASK)
    assert distribution.log_prob(torch.tensor([2, 1, 0])).dtype == torch.float32
    torch.testing.assert_close(distribution.entropy(), LegalCategorical(LOGITS, MASK).entropy())


def test_samples_follow_the_probabilities():
    logits, mask = random_rows(3, 4, 12)
    distribution = LegalCategorical(logits, mask)
    draws = distribution.sample((20_000,))
    assert draws.shape == (20_000, 4)
    expected = dense(logits, mask).probs
    for row in range(4):
        frequency = torch.bincount(draws[:, row], minlength=12) / 20_000
        assert (frequency - expected[row]).abs().max() < 0.015  # four standard deviations
        assert not frequency[~mask[row]].any()


def test_the_same_generator_state_gives_the_same_sample():
    logits, mask = random_rows(5, 64, 100)
    first, second = (LegalCategorical(logits, mask).sample_with(torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(first, second)
    other = LegalCategorical(logits, mask).sample_with(torch.Generator().manual_seed(10))
    assert not torch.equal(first, other)


def test_a_rows_sample_does_not_depend_on_the_other_rows_logits():
    logits, mask = random_rows(6, 64, 100)
    changed = logits.clone()
    changed[::2] = torch.randn(32, 100)
    before, after = (LegalCategorical(x, mask).sample_with(torch.Generator().manual_seed(1)) for x in (logits, changed))
    assert torch.equal(before[1::2], after[1::2])


def test_a_move_without_probability_is_never_drawn():
    logits = torch.tensor([[-1e30, 0.0, -1e30]]).expand(4096, 3)
    draws = LegalCategorical(logits, torch.ones(4096, 3, dtype=torch.bool)).sample()
    assert draws.unique().tolist() == [1]


def test_rows_may_have_any_leading_shape():
    logits, mask = random_rows(7, 6, 9)
    flat, shaped = LegalCategorical(logits, mask), LegalCategorical(logits.view(2, 3, 9), pack_mask(mask).view(2, 3, 2))
    action = flat.mode
    assert shaped.sample().shape == (2, 3)
    assert shaped.mode.tolist() == action.view(2, 3).tolist()
    assert torch.equal(shaped.log_prob(action.view(2, 3)), flat.log_prob(action).view(2, 3))
    assert torch.equal(shaped.entropy(), flat.entropy().view(2, 3))
    several = torch.stack([action, action]).view(2, 2, 3)
    assert torch.equal(shaped.log_prob(several)[1], flat.log_prob(action).view(2, 3))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"action_mask \[3, 4\] does not fit logits \[2, 4\]"):
        LegalCategorical(LOGITS[:2], MASK)


@pytest.mark.gpu
def test_a_gpu_computes_the_same():
    logits, mask = random_rows(8, 32, 200)
    mask[5] = False
    here, there = (LegalCategorical(logits.to(device), pack_mask(mask).to(device)) for device in ("cpu", "cuda"))
    action = here.sample_with(torch.Generator().manual_seed(4))
    assert torch.equal(there.sample_with(torch.Generator().manual_seed(4)).cpu(), action)
    assert torch.equal(there.mode.cpu(), here.mode)
    torch.testing.assert_close(there.log_prob(action.cuda()).cpu(), here.log_prob(action), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(there.entropy().cpu(), here.entropy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_no_distribution_has_no_move(dense, fault):
    """Three NaN in each of two rows gave the labels 0 and -3."""
    distribution = LegalCategorical(torch.full((2, 3), fault), torch.ones(2, 3, dtype=torch.bool), dense=dense)
    assert distribution.mode.tolist() == [NO_MOVE, NO_MOVE]
    assert distribution.sample_with(torch.Generator().manual_seed(0), (4,)).tolist() == [[NO_MOVE, NO_MOVE]] * 4
    assert not distribution.log_prob(distribution.mode).isfinite().any()


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_one_logit_that_is_not_finite_costs_its_own_row_its_move_and_no_other(dense, fault):
    logits, mask = torch.zeros(3, 5), torch.ones(3, 5, dtype=torch.bool)
    logits[1, 2] = fault
    mask[2, 4], logits[2, 4] = False, fault  # of an illegal move: nobody looks at it
    distribution = LegalCategorical(logits, mask, dense=dense)
    draws = distribution.sample_with(torch.Generator().manual_seed(0), (50,))
    assert (draws[:, 1] == NO_MOVE).all()
    assert ((draws[:, [0, 2]] >= 0) & (draws[:, [0, 2]] < 5)).all()
    assert distribution.mode.tolist() == [0, NO_MOVE, 0]


@pytest.mark.parametrize("dense", [False, True])
def test_a_legal_move_of_logit_minus_infinity_has_probability_zero(dense):
    logits = torch.tensor([[0.0, -math.inf, 0.0]]).expand(1000, 3)
    distribution = LegalCategorical(logits, torch.ones(1000, 3, dtype=torch.bool), dense=dense)
    draws = distribution.sample_with(torch.Generator().manual_seed(0))
    assert set(draws.tolist()) == {0, 2}
    assert distribution.log_prob(draws).exp().tolist() == pytest.approx([0.5] * 1000)
