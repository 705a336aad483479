"""Published weights: whole, of one version, in the policy's own shapes, whatever readers and writer do meanwhile."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from keisei_lightning.errors import WeightsError
from keisei_lightning.parallel.weight_sources import named_weights
from keisei_lightning.parallel.weights import WeightLayout, WeightReader, WeightStore

CPU = torch.device("cpu")


class Mixed(nn.Module):
    """Everything that a policy may be made of."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 7)
        self.head = nn.Linear(7, 5)
        self.head.weight = self.embedding.weight  # tied
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(4)
        self.double_precision = nn.Parameter(torch.randn(3, dtype=torch.float64))
        self.half_precision = nn.Parameter(torch.randn(2, 3).to(torch.bfloat16))
        self.scalar = nn.Parameter(torch.randn(()))
        self.empty = nn.Parameter(torch.zeros(0, 4))
        self.turned = nn.Parameter(torch.randn(6, 2).t())
        self.register_buffer("scale", torch.randn(3), persistent=False)
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("attention", torch.tensor([0.0, -torch.inf]), persistent=False)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def reader_of(store: WeightStore, module: nn.Module) -> tuple[nn.Module, Callable[[], int]]:
    """A copy of the module's structure alone, and what fills it."""
    structure = copy.deepcopy(module).to("meta")
    flat = store.layout.bind(structure, CPU)
    reader = WeightReader(store.buffer, store.layout)
    return structure, lambda: reader.adopt(flat)


def change(module: nn.Module) -> None:
    with torch.no_grad():
        for tensor in tensors_of(module).values():
            tensor.copy_(~tensor if tensor.dtype == torch.bool else tensor + 1)


def assert_same(module: nn.Module, other: nn.Module) -> None:
    theirs = tensors_of(other)
    assert set(theirs) == set(tensors_of(module))
    for name, tensor in tensors_of(module).items():
        assert theirs[name].dtype == tensor.dtype, name
        assert theirs[name].stride() == tensor.stride(), name
        assert torch.equal(theirs[name], tensor), name


def test_every_tensor_arrives_with_its_dtype_and_strides_at_every_version() -> None:
    module = Mixed()
    assert module.conv.weight.is_contiguous(memory_format=torch.channels_last)
    store = WeightStore(WeightLayout.of(module))
    copied, adopt = reader_of(store, module)
    assert store.latest_version == -1
    for version in range(4):
        store.publish(module, version)
        assert store.latest_version == version
        assert adopt() == version
        assert_same(module, copied)
        assert adopt() == version  # again: nothing to do
        change(module)
    store.close()


def test_a_reader_that_slept_adopts_the_latest_version_at_once() -> None:
    module = nn.Linear(2, 2)
    store = WeightStore(WeightLayout.of(module))
    copied, adopt = reader_of(store, module)
    for version in range(7, 12):  # a resumed run does not begin at 0
        change(module)
        store.publish(module, version)
    assert adopt() == 11
    assert_same(module, copied)
    store.close()


def test_adopted_weights_are_views_of_one_run_and_tied_parameters_stay_tied() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    store = WeightStore(WeightLayout.of(module))
    other = copy.deepcopy(module)
    flat = store.layout.bind(other, CPU)
    assert other[1].weight is other[0].weight
    storages = {tensor.untyped_storage().data_ptr() for tensor in other.parameters()}
    assert storages == {flat.untyped_storage().data_ptr()}
    assert not any(parameter.requires_grad for parameter in other.parameters())
    store.close()


def as_module(module: nn.Module) -> object:
    return module


def as_state_dict(module: nn.Module) -> object:
    return module.state_dict()


def as_tensordict(module: nn.Module) -> object:
    return TensorDict.from_module(module)


def as_plain_tensordict(module: nn.Module) -> object:
    return TensorDict.from_module(module).data


def as_nested_mapping(module: nn.Module) -> object:
    return TensorDict.from_module(module).to_dict()


@pytest.mark.parametrize("form", [as_module, as_state_dict, as_tensordict, as_plain_tensordict, as_nested_mapping])
def test_weights_are_taken_in_every_form(form: Callable[[nn.Module], object]) -> None:
    module = Mixed()
    store = WeightStore(WeightLayout.of(module))
    store.publish(module, 0)
    copied, adopt = reader_of(store, module)
    with torch.no_grad():
        module.head.bias += 1
        module.conv.weight *= 2
        module.mask.logical_not_()
    store.publish(form(module), 1)  # type: ignore[arg-type]
    assert adopt() == 1
    assert_same(module, copied)  # a state_dict lacks the buffers that are not persistent: they keep their values
    store.close()


def test_names_of_nested_weights_are_joined_by_dots() -> None:
    weight, bias = torch.zeros(2), torch.ones(2)
    assert named_weights({"body": {"layer": {"weight": weight}}, "body.bias": bias}) == {
        "body.layer.weight": weight,
        "body.bias": bias,
    }


NOT_FINITE = torch.tensor([[1.0, torch.nan], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"wieght": torch.zeros(2, 2)}, r"unknown name 'wieght'; the policy has \['bias', 'weight'\]"),
        (
            {"weight": torch.zeros(2, 3)},
            r"'weight' is torch.float32 \[2, 3\], but .* started with torch.float32 \[2, 2\]",
        ),
        ({"weight": torch.zeros(2, 2).double()}, r"'weight' is torch.float64 \[2, 2\], but the policy was started"),
        ({"weight": [[0.0, 0.0], [0.0, 0.0]]}, r"'weight' is a list, not a tensor"),
        ({"bias": torch.ones(2), "weight": NOT_FINITE}, r"'weight' is not finite"),
        ({"bias": torch.tensor([torch.inf, 0.0])}, r"'bias' is not finite"),
        ({"bias": torch.tensor([0.0, -torch.inf])}, r"'bias' is not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_the_last_version_is_kept(
    weights: dict[str, Tensor], message: str
) -> None:
    module = nn.Linear(2, 2)
    store = WeightStore(WeightLayout.of(module))
    store.publish(module, 0)
    copied, adopt = reader_of(store, module)
    with pytest.raises(WeightsError, match=message):
        store.publish(weights, 1)
    assert store.latest_version == 0
    assert adopt() == 0
    assert_same(module, copied)
    store.close()


def test_the_first_version_must_be_complete() -> None:
    module = nn.Linear(2, 2)
    store = WeightStore(WeightLayout.of(module))
    with pytest.raises(WeightsError, match="'bias' is missing, and there is no earlier version to take it from"):
        store.publish({"weight": torch.zeros(2, 2)}, 0)
    assert store.latest_version == -1
    store.close()


def test_a_publish_that_is_interrupted_half_way_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Linear(2, 2)
    store = WeightStore(WeightLayout.of(module))
    store.publish(module, 0)
    before = copy.deepcopy(module)
    copied, adopt = reader_of(store, module)

    def write_half(targets: list[Tensor], sources: list[Tensor]) -> None:
        targets[0].copy_(sources[0])
        raise KeyboardInterrupt

    change(module)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "_foreach_copy_", write_half)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                store.publish(module, 1)
            assert adopt() == 0
            assert_same(before, copied)
    store.publish(module, 1)
    assert adopt() == 1
    assert_same(module, copied)
    store.close()


class SlowRun:
    """A flat run that is copied into in two halves with a pause between, as if the reader's time slice had ended."""

    def __init__(self, num_bytes: int) -> None:
        self.flat = torch.zeros(num_bytes, dtype=torch.uint8)
        self.copies = 0

    def copy_(self, source: Tensor) -> None:
        half = len(source) // 2
        self.flat[:half].copy_(source[:half])
        time.sleep(0.001)
        self.flat[half:].copy_(source[half:])
        self.copies += 1


def test_a_reader_never_sees_two_versions_at_once_however_fast_they_come() -> None:
    """Every tensor of version v is filled with v; a quick and a slow reader adopt while v counts up."""
    module = nn.ParameterList([nn.Parameter(torch.zeros(20_000)) for _ in range(8)])
    store = WeightStore(WeightLayout.of(module))
    store.publish(module, 0)
    quick, slow = torch.zeros(store.layout.num_bytes, dtype=torch.uint8), SlowRun(store.layout.num_bytes)
    quick_reader, slow_reader = (WeightReader(store.buffer, store.layout) for _ in range(2))
    stop = threading.Event()
    published = [0]
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker: two pools of threads on few cores hinder each other

    def publish() -> None:
        while not stop.is_set():
            version = published[0] + 1
            with torch.no_grad():
                torch._foreach_zero_(list(module))
                torch._foreach_add_(list(module), float(version))
            store.publish(module, version)
            published[0] = version
            if version % 5 == 0:  # five as fast as it can; a reader slower than two publishes must get a chance
                time.sleep(0.005)

    def versions_in(flat: Tensor) -> set[float]:
        return {float(edge) for view in store.layout.views(flat).values() for edge in view.aminmax()}

    writer = threading.Thread(target=publish)
    writer.start()
    adopted: dict[str, list[int]] = {"quick": [], "slow": []}
    mixtures = 0
    start = time.monotonic()
    try:
        while time.monotonic() - start < 1.5:
            adopted["quick"].append(quick_reader.adopt(quick))
            mixtures += versions_in(quick) != {float(adopted["quick"][-1])}
            adopted["slow"].append(slow_reader.adopt(slow))  # type: ignore[arg-type]
            mixtures += versions_in(slow.flat) != {float(adopted["slow"][-1])}
    finally:
        stop.set()
        writer.join()
        store.close()
        torch.set_num_threads(num_threads)
    assert mixtures == 0
    for versions in adopted.values():
        assert versions == sorted(versions)
        assert len(set(versions)) > 50
    assert published[0] > len(set(adopted["quick"]))
    retries = slow.copies - len(set(adopted["slow"]))
    assert retries > 10, "publishes never overlapped a read: this test has shown nothing"
