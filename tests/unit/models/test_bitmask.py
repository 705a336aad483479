import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keisei_lightning.models import pack_mask, unpack_mask


@settings(deadline=None, max_examples=60)
@given(shape=st.lists(st.integers(0, 4), max_size=2), num_actions=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_packing_is_numpys_packbits_and_unpacking_its_inverse(shape, num_actions, seed):
    mask = np.random.default_rng(seed).random((*shape, num_actions)) < 0.5
    packed = pack_mask(torch.from_numpy(mask))
    assert packed.dtype == torch.uint8
    np.testing.assert_array_equal(packed.numpy(), np.packbits(mask, axis=-1))
    np.testing.assert_array_equal(unpack_mask(packed, num_actions).numpy(), mask)


def test_the_first_action_is_the_highest_bit():
    assert pack_mask(torch.tensor([True] + [False] * 8)).tolist() == [0b1000_0000, 0]
    assert pack_mask(torch.tensor([False, True, False, False, False, False, False, True, True])).tolist() == [
        0x41,
        0x80,
    ]
    assert unpack_mask(torch.tensor([0b0000_0101], dtype=torch.uint8), 7).tolist() == [False] * 5 + [True, False]


def test_a_packed_mask_need_not_be_contiguous():
    packed = torch.arange(64, dtype=torch.uint8).view(8, 8)
    assert torch.equal(unpack_mask(packed.T, 64), unpack_mask(packed.T.contiguous(), 64))
    mask = torch.rand(16, 16) < 0.5
    assert torch.equal(pack_mask(mask.T), pack_mask(mask.T.contiguous()))


def test_wrong_masks_are_refused_by_name():
    with pytest.raises(ValueError, match=r"2187 actions is uint8 \[..., 274\], not torch.uint8 \[1, 273\]"):
        unpack_mask(torch.zeros(1, 273, dtype=torch.uint8), 2187)
    with pytest.raises(ValueError, match=r"must be bool, not torch\.uint8"):
        pack_mask(torch.zeros(3, dtype=torch.uint8))
