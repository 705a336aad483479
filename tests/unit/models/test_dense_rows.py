"""The arithmetic of accelerators equals that of the CPU: same numbers, same gradients, same draws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keisei_lightning.games import NO_MOVE
from keisei_lightning.models import LegalCategorical, pack_mask
from keisei_lightning.models.bitmask import _unpack_by_shifts, _unpack_by_table
from keisei_lightning.models.dense_rows import DenseRows


def random_rows(seed: int, num_rows: int, num_actions: int, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and masks of which some are empty."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(num_rows, num_actions, generator=generator) < 0.15
    return scale * torch.randn(num_rows, num_actions, generator=generator), mask


def both(logits: torch.Tensor, mask: torch.Tensor) -> tuple[LegalCategorical, LegalCategorical]:
    return LegalCategorical(logits, mask, dense=False), LegalCategorical(logits, mask, dense=True)


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**31),
    num_rows=st.integers(1, 20),
    num_actions=st.integers(1, 50),
    scale=st.sampled_from([0.0, 0.1, 3.0, 100.0]),
    packed=st.booleans(),
)
def test_log_probabilities_entropies_draws_and_gradients_are_those_of_the_sparse_rows(
    seed, num_rows, num_actions, scale, packed
):
    logits, mask = random_rows(seed, num_rows, num_actions, scale)
    given_mask = pack_mask(mask) if packed else mask
    results = []
    for dense in (False, True):
        own = logits.clone().requires_grad_()
        distribution = LegalCategorical(own, given_mask, dense=dense)
        action = distribution.sample_with(torch.Generator().manual_seed(seed))
        log_prob, entropy = distribution.log_prob(action), distribution.entropy()
        (log_prob.sum() - 0.5 * entropy.sum()).backward()
        results.append((action, distribution.mode, log_prob, entropy, own.grad))
    (action, mode, *numbers), (dense_action, dense_mode, *dense_numbers) = results
    assert torch.equal(dense_action, action)
    assert torch.equal(dense_mode, mode)
    for number, dense_number in zip(numbers, dense_numbers, strict=True):
        torch.testing.assert_close(dense_number, number, atol=2e-6, rtol=1e-6)
    assert not dense_numbers[-1][~mask].any()


def test_log_probabilities_agree_to_a_millionth_on_boards_as_wide_as_shogi():
    logits, mask = random_rows(1, 256, 2187)
    mask &= torch.rand(256, 2187, generator=torch.Generator().manual_seed(2)) < 0.25  # about 80 legal moves
    sparse, dense = both(logits, mask)
    actions = sparse.sample_with(torch.Generator().manual_seed(3), (8,))
    torch.testing.assert_close(dense.log_prob(actions), sparse.log_prob(actions), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(dense.entropy(), sparse.entropy(), atol=1e-6, rtol=1e-6)


def test_rows_without_a_legal_move_change_no_other_row():
    logits = torch.randn(4, 9, requires_grad=True)
    mask = torch.zeros(4, 9, dtype=torch.bool)
    mask[[1, 3], [2, 8]] = True
    distribution = LegalCategorical(logits, mask, dense=True)
    for action in (distribution.sample(), distribution.mode):
        assert action.tolist() == [-1, 2, -1, 8]
        assert distribution.log_prob(action).tolist() == [0.0] * 4
    (distribution.entropy() + distribution.log_prob(distribution.mode)).sum().backward()
    assert distribution.entropy().tolist() == [0.0] * 4
    assert not logits.grad.any()
    nothing = LegalCategorical(torch.randn(3, 9), torch.zeros(3, 9, dtype=torch.bool), dense=True)
    assert nothing.sample().tolist() == nothing.mode.tolist() == [-1] * 3


def test_an_illegal_action_has_no_probability_and_no_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    mask = torch.tensor([[True, False, True, False], [True] * 4, [False] * 4])
    log_prob = LegalCategorical(logits, mask, dense=True).log_prob(torch.tensor([1, -1, 3]))
    assert log_prob.tolist() == [-torch.inf, -torch.inf, 0.0]
    log_prob.masked_fill(log_prob.isinf(), 0.0).sum().backward()
    assert not logits.grad.any()


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_a_row_that_is_no_distribution_has_no_move_and_disturbs_no_other(fault):
    logits, mask = torch.zeros(3, 5), torch.ones(3, 5, dtype=torch.bool)
    logits[1, 2] = fault
    distribution = LegalCategorical(logits, mask, dense=True)
    for action in (distribution.sample(), distribution.mode):
        assert distribution.log_prob(action).isfinite().tolist() == [True, False, True]
        assert (action == NO_MOVE).tolist() == [False, True, False]
        assert (action < 5).all()


def test_an_illegal_logit_that_is_not_finite_is_harmless_in_both_passes():
    logits = torch.tensor([[0.0, torch.nan, 1.0], [torch.inf, 0.0, 1.0]], requires_grad=True)
    mask = torch.tensor([[True, False, True], [False, True, True]])
    distribution = LegalCategorical(logits, mask, dense=True)
    (distribution.log_prob(distribution.mode) + distribution.entropy()).sum().backward()
    assert logits.grad.isfinite().all()


def test_huge_logits_stay_finite():
    logits = torch.tensor([[3e38, -3e38, 0.0], [1000.0, -1000.0, 1000.0]], requires_grad=True)
    distribution = LegalCategorical(logits, torch.ones(2, 3, dtype=torch.bool), dense=True)
    assert distribution.entropy().tolist() == pytest.approx([0.0, 0.693147], abs=1e-6)
    (distribution.log_prob(torch.tensor([0, 0])) + distribution.entropy()).sum().backward()
    assert logits.grad.isfinite().all()


def test_a_uniform_number_at_the_upper_edge_draws_the_last_move_that_has_a_probability():
    logits = torch.tensor([[0.0, 0.0, -torch.inf, 0.0], [0.0, 0.0, 0.0, -torch.inf]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    edge = torch.tensor([1.0, 1.0], dtype=torch.float64)  # beyond what a generator gives
    assert DenseRows(logits, mask).sample(edge).tolist() == [1, 2]


def test_moves_come_as_often_as_their_probabilities_say():
    logits = torch.tensor([[1.0, 0.0, 2.0, -1.0]])
    mask = torch.tensor([[True, True, False, True]])
    draws = LegalCategorical(logits, mask, dense=True).sample((100_000,))
    counts = torch.bincount(draws[:, 0], minlength=4)
    assert counts[2] == 0
    expected = torch.tensor([1.0, 0.0, -1.0]).softmax(0)
    torch.testing.assert_close(counts[[0, 1, 3]] / 100_000, expected, atol=0.005, rtol=0)


def test_leading_shapes_and_half_precision_are_as_with_the_sparse_rows():
    logits, mask = random_rows(7, 6, 9)
    mask[:, 0] = True
    sparse, dense = both(logits.bfloat16().view(2, 3, 9), pack_mask(mask).view(2, 3, 2))
    several = torch.stack([sparse.mode, sparse.mode])
    assert torch.equal(dense.mode, sparse.mode)
    assert (dense.log_prob(several).dtype, dense.log_prob(several).shape) == (torch.float32, (2, 2, 3))
    torch.testing.assert_close(dense.log_prob(several), sparse.log_prob(several), atol=1e-6, rtol=1e-6)
    assert dense.sample((5,)).shape == (5, 2, 3)


@given(st.integers(0, 2**31), st.integers(0, 5), st.integers(1, 9))
def test_bits_are_unpacked_alike_by_table_and_by_shifts(seed, num_rows, num_bytes):
    packed = torch.randint(256, (num_rows, num_bytes), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    assert torch.equal(_unpack_by_shifts(packed), _unpack_by_table(packed))


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_for_the_device():
    logits, mask = random_rows(8, 64, 2187)
    logits, bits = logits.cuda().requires_grad_(), pack_mask(mask).cuda()
    generator = torch.Generator(device="cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        distribution = LegalCategorical(logits, bits)
        action = distribution.sample_with(generator)
        (distribution.log_prob(action) + distribution.entropy()).sum().backward()
        assert distribution.mode.shape == (64,)
    finally:
        torch.cuda.set_sync_debug_mode("default")
