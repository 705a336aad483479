"""Weights on their way: what arrives is what was sent, or its nearest bfloat16."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from keisei_lightning.errors import WeightsError
from keisei_lightning.parallel.cluster.weight_codec import WeightCodec
from keisei_lightning.parallel.memory.weights import WeightLayout, WeightStore


class Mixed(nn.Module):
    """Parameters of three types, tied ones, and buffers that must not be rounded."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = nn.Parameter(torch.randn(7, 5, generator=generator))
        self.small = nn.Parameter(torch.randn(3, generator=generator).half())
        self.large = nn.Parameter(torch.randn(3, generator=generator).double())
        self.last = nn.Parameter(torch.randn(129, generator=generator))
        self.tied = self.first
        self.register_buffer("mean", torch.randn(4, generator=generator))
        self.register_buffer("count", torch.arange(3))


def flat_of(module: nn.Module) -> tuple[WeightLayout, torch.Tensor]:
    layout = WeightLayout.of(module)
    store = WeightStore(layout, 0)
    store.publish(module, 0)
    flat = store.latest.clone()
    store.close()
    return layout, flat


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("module", [Mixed(), nn.Linear(3, 2), nn.Identity()], ids=["mixed", "linear", "no weights"])
def test_float32_arrives_bit_by_bit(module: nn.Module, compression: str) -> None:
    layout, flat = flat_of(module)
    codec = WeightCodec(layout=layout, dtype="float32", compression=compression)
    assert torch.equal(codec.decode(codec.encode(flat)), flat)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_bfloat16_rounds_float32_parameters_to_the_nearest_and_nothing_else(compression: str) -> None:
    module = Mixed()
    layout, flat = flat_of(module)
    codec = WeightCodec(layout=layout, dtype="bfloat16", compression=compression)
    arrived = layout.views(codec.decode(codec.encode(flat)))
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        rounded = tensor.dtype is torch.float32 and isinstance(tensor, nn.Parameter)
        assert torch.equal(arrived[name], tensor.bfloat16().float() if rounded else tensor), name


def test_bfloat16_sends_half_of_the_bytes() -> None:
    layout, flat = flat_of(nn.Linear(64, 64))
    assert len(WeightCodec(layout=layout, dtype="bfloat16").encode(flat)) * 2 == len(flat)


def test_weights_that_travel_as_they_are_are_copied_at_neither_end() -> None:
    layout, flat = flat_of(nn.Linear(64, 64))
    codec = WeightCodec(layout=layout)
    sent = codec.encode(flat)
    assert np.shares_memory(sent, flat.numpy())
    sent.flags.writeable = False  # as the object store lends it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.shares_memory(codec.decode(sent).numpy(), flat.numpy())


def test_bytes_of_another_network_are_refused() -> None:
    codec = WeightCodec(layout=flat_of(nn.Linear(3, 2))[0])
    with pytest.raises(WeightsError, match=r"^weights: 64 bytes came, must be 128$"):
        codec.decode(np.zeros(64, np.uint8))
