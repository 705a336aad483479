"""Published weights are complete, of one version, in the policy's shapes, however readers and writer interleave."""

from __future__ import annotations

import concurrent.futures
import copy
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tensordict import TensorDict
from torch import Tensor, nn

from keisei_lightning.errors import WeightsError
from keisei_lightning.parallel.memory import weights
from keisei_lightning.parallel.memory.fences import memory_fence
from keisei_lightning.parallel.memory.weight_sources import named_weights
from keisei_lightning.parallel.memory.weights import WeightLayout, WeightReader, WeightStore

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


def store_for(module: nn.Module, num_readers: int = 1) -> WeightStore:
    return WeightStore(WeightLayout.of(module), num_readers)


def reader_of(store: WeightStore, module: nn.Module, reader_id: int = 0) -> tuple[nn.Module, WeightReader]:
    """A copy of the module's structure alone, and what fills it."""
    structure = copy.deepcopy(module).to("meta")
    return structure, WeightReader(store.memory, reader_id=reader_id, module=structure, device=CPU)


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
    store = store_for(module)
    copied, reader = reader_of(store, module)
    assert store.latest_version == -1
    for version in range(4):
        store.publish(module, version)
        assert store.latest_version == version
        assert reader.adopt() == version
        assert_same(module, copied)
        assert reader.adopt() == version  # again: nothing to do
        change(module)
    store.close()


def test_a_reader_that_slept_adopts_the_latest_version_at_once() -> None:
    module = nn.Linear(2, 2)
    store = store_for(module)
    copied, reader = reader_of(store, module)
    for version in range(7, 12):  # a resumed run does not begin at 0
        change(module)
        store.publish(module, version)
    assert reader.adopt() == 11
    assert_same(module, copied)
    store.close()


def test_parameters_are_the_shared_memory_itself_and_tied_ones_stay_tied() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    store = store_for(module, num_readers=2)
    structures = [copy.deepcopy(module) for _ in range(2)]  # not on "meta": moving there unties
    readers = [
        (other, WeightReader(store.memory, reader_id=reader_id, module=other, device=CPU))
        for reader_id, other in enumerate(structures)
    ]
    store.publish(module, 0)
    for other, reader in readers:
        kept = other[0].weight
        reader.adopt()
        assert other[1].weight is other[0].weight is kept  # a policy may hold on to its parameters
        assert not any(parameter.requires_grad for parameter in other.parameters())
    one, two = (dict(other.named_parameters()) for other, _ in readers)
    for name in one:  # two mappings of one piece of memory: what is written through one is read through the other
        with torch.no_grad():
            one[name].fill_(7)
        assert torch.equal(two[name], torch.full_like(two[name], 7))
    store.close()


def test_buffers_are_a_workers_own() -> None:
    module = nn.BatchNorm1d(3)
    store = store_for(module, num_readers=2)
    (one, first), (two, second) = (reader_of(store, module, reader_id) for reader_id in range(2))
    store.publish(module, 0)
    first.adopt()
    second.adopt()
    one(torch.randn(8, 3))  # in training mode: changes its running mean
    assert not torch.equal(one.running_mean, module.running_mean)
    assert torch.equal(two.running_mean, module.running_mean)
    first.verify()
    store.publish(module, 1)
    first.adopt()
    assert_same(module, one)
    store.close()


def test_a_worker_on_another_device_copies_all_its_weights() -> None:
    module = Mixed()
    store = store_for(module)
    store.publish(module, 0)
    structure = copy.deepcopy(module).to("meta")
    reader = WeightReader(store.memory, reader_id=0, module=structure, device=torch.device("meta"))
    assert reader.adopt() == 0
    assert {tensor.device.type for tensor in tensors_of(structure).values()} == {"meta"}
    for name, tensor in tensors_of(structure).items():
        assert (tensor.shape, tensor.stride(), tensor.dtype) == (
            (mine := tensors_of(module)[name]).shape,
            mine.stride(),
            mine.dtype,
        )
    reader.verify()
    store.close()


@pytest.mark.gpu
def test_a_worker_on_a_gpu_holds_the_published_weights() -> None:
    module = Mixed()
    store = store_for(module)
    structure = copy.deepcopy(module).to("meta")
    reader = WeightReader(store.memory, reader_id=0, module=structure, device=torch.device("cuda"))
    for version in range(3):
        store.publish(module, version)
        assert reader.adopt() == version
        for name, tensor in tensors_of(structure).items():
            assert tensor.is_cuda
            assert torch.equal(tensor.cpu(), tensors_of(module)[name]), name
        change(module)
    store.close()


def test_a_policy_that_writes_to_its_parameters_is_an_error() -> None:
    module = nn.Linear(2, 2)
    store = store_for(module)
    copied, reader = reader_of(store, module)
    for version in range(3):
        store.publish(module, version)
        reader.adopt()
        reader.verify()
    with torch.inference_mode():
        copied.bias.add_(1)
    with pytest.raises(WeightsError, match=r"writes to its parameter 'bias' .* \(register_buffer\)"):
        reader.verify()
    store.close()


def test_weights_that_were_overwritten_while_in_use_are_found_out() -> None:
    module = nn.Linear(2, 2)
    store = store_for(module)
    _, reader = reader_of(store, module)
    store.publish(module, 0)
    reader.adopt()
    forget_who_reads(store)
    store.publish(module, 1)
    reader.verify()  # there was one buffer left
    store.publish(module, 2)
    with pytest.raises(WeightsError, match="version 0 was overwritten while it was in use"):
        reader.verify()
    store.close()


def forget_who_reads(store: WeightStore) -> None:
    store._arrays.in_use[:] = -1


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
    store = store_for(module)
    store.publish(module, 0)
    copied, reader = reader_of(store, module)
    with torch.no_grad():
        module.head.bias += 1
        module.conv.weight *= 2
        module.mask.logical_not_()
    store.publish(form(module), 1)  # type: ignore[arg-type]
    assert reader.adopt() == 1
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
    store = store_for(module)
    store.publish(module, 0)
    copied, reader = reader_of(store, module)
    with pytest.raises(WeightsError, match=message):
        store.publish(weights, 1)
    assert store.latest_version == 0
    assert reader.adopt() == 0
    assert_same(module, copied)
    store.close()


def test_the_first_version_must_be_complete() -> None:
    module = nn.Linear(2, 2)
    store = store_for(module)
    with pytest.raises(WeightsError, match="'bias' is missing, and there is no earlier version to take it from"):
        store.publish({"weight": torch.zeros(2, 2)}, 0)
    assert store.latest_version == -1
    store.close()


def test_a_publish_that_is_interrupted_half_way_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Linear(2, 2)
    store = store_for(module)
    store.publish(module, 0)
    before = copy.deepcopy(module)
    copied, reader = reader_of(store, module)

    def write_half(targets: list[Tensor], sources: list[Tensor]) -> None:
        targets[0].copy_(sources[0])
        raise KeyboardInterrupt

    change(module)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "_foreach_copy_", write_half)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                store.publish(module, 1)
            assert reader.adopt() == 0
            assert_same(before, copied)
    store.publish(module, 1)
    assert reader.adopt() == 1
    assert_same(module, copied)
    store.close()


def test_readers_that_pause_in_every_step_never_see_two_versions_at_once_however_fast_they_come() -> None:
    """Every tensor of version v is filled with v; three readers adopt and read, with pauses, while v counts up."""
    num_readers = 3
    module = nn.ParameterList([nn.Parameter(torch.zeros(2_000)) for _ in range(8)])
    store = store_for(module, num_readers)
    store.publish(module, 0)
    stop, published = threading.Event(), [0]
    adopted: list[list[int]] = [[] for _ in range(num_readers)]
    mixtures: list[set[float]] = []
    overtaken = [0] * num_readers

    def publish() -> None:
        rests = random.Random(num_readers)
        while not stop.is_set():
            with torch.no_grad():
                torch._foreach_add_(list(module), 1.0)
            published[0] += 1
            store.publish(module, published[0])
            if rests.random() < 0.02:
                time.sleep(0.005)  # or, on a quick machine, readers would be overtaken nearly always

    def read(reader_id: int) -> None:
        pauses = random.Random(reader_id)
        policy, reader = reader_of(store, module, reader_id)

        def pause() -> None:
            time.sleep(pauses.choice((0.0, 0.0, 0.0005, 0.002)))

        steps = reader._adopt_in_steps

        def steps_with_pauses() -> Iterator[None]:
            for step in steps():
                before = reader._arrays.latest[0]
                pause()
                overtaken[reader_id] += reader._arrays.latest[0] != before
                yield step

        reader._adopt_in_steps = steps_with_pauses  # type: ignore[method-assign]
        while not stop.is_set():
            version = reader.adopt()
            for _ in range(3):
                seen = {float(edge) for parameter in policy.parameters() for edge in parameter.aminmax()}
                if seen != {float(version)}:
                    mixtures.append(seen)
                pause()
            reader.verify()
            adopted[reader_id].append(version)

    def shown_enough() -> bool:
        return min(overtaken) > 10 and all(len(set(versions)) > 20 for versions in adopted)

    with concurrent.futures.ThreadPoolExecutor(num_readers + 1) as pool:
        running = [pool.submit(publish), *(pool.submit(read, reader_id) for reader_id in range(num_readers))]
        # For a second and a half, and on a machine with other work until there is something to compare.
        least_s, most_s = time.monotonic() + 1.5, time.monotonic() + 60
        while time.monotonic() < least_s or (not shown_enough() and time.monotonic() < most_s):
            if concurrent.futures.wait(running, timeout=0.1, return_when=concurrent.futures.FIRST_EXCEPTION).done:
                break
        stop.set()
        for future in running:
            future.result()
    store.close()
    assert mixtures == []
    for versions in adopted:
        assert versions == sorted(versions)
        assert len(set(versions)) > 20
    assert published[0] > 5 * max(len(set(versions)) for versions in adopted), "publishes never overtook a reader"
    assert min(overtaken) > 10, "no publish came between two steps of an adoption: this test has shown nothing"


class Fences:
    """What others may have seen when each fence was passed: an order is kept where a fence lies between two things."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, look: Callable[[], tuple[float, ...]]) -> None:
        self._fence, self._look = weights.memory_fence, look
        self.seen: list[tuple[float, ...]] = []
        monkeypatch.setattr(weights, "memory_fence", self)

    def __call__(self) -> None:
        self._fence()
        self.seen.append(self._look())


def test_a_publish_has_a_fence_before_the_look_before_the_copy_and_before_the_flip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the last one, an ARM may show the flip before the copy."""
    module = nn.Linear(1, 1)
    store = store_for(module)
    store.publish(module, 0)
    arrays = store._arrays
    weight = [views["weight"] for views in store._views]
    fences = Fences(monkeypatch, lambda: (store.latest_version, int(arrays.sequences[1]), float(weight[1])))
    with torch.no_grad():
        module.weight.fill_(7.0)
    store.publish(module, 1)
    assert fences.seen == [(0, 0, 0.0), (0, 1, 0.0), (0, 1, 7.0)]
    assert (store.latest_version, float(weight[1])) == (1, 7.0)
    store.close()


def test_a_reader_has_a_fence_around_its_note_and_before_the_sequence_number(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Linear(1, 1)
    store = store_for(module)
    store.publish(module, 0)
    _, reader = reader_of(store, module)
    reader.adopt()
    store.publish(module, 1)
    fences = Fences(monkeypatch, lambda: (int(store._arrays.in_use[0]), reader.version))
    reader.adopt()
    assert fences.seen == [(0, 0), (1, 0)]
    reader.verify()
    assert fences.seen[2:] == [(1, 1)]
    store.close()


def test_a_fence_can_be_passed_in_the_middle_of_a_fence() -> None:
    """As by a signal's handler: with a lock that calls shared, this would wait for ever."""
    calls = 0

    def again(*_: object) -> None:
        nonlocal calls
        calls += 1
        memory_fence()

    sys.setprofile(again)  # called before and after everything that is called
    try:
        memory_fence()
    finally:
        sys.setprofile(None)
    assert calls > 8  # two locks taken and given back, at least


class Interleaving(RuleBasedStateMachine):
    """Publishes, and readers halted or killed between any two of their steps, in every order hypothesis thinks of."""

    num_readers = 2

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.ParameterList([nn.Parameter(torch.zeros(3)) for _ in range(2)])
        self.store = store_for(self.module, self.num_readers)
        self.version = -1
        self.publish([])
        self.policies: list[nn.Module] = [nn.Module()] * self.num_readers
        self.readers: list[WeightReader] = [None] * self.num_readers  # type: ignore[list-item]
        self.adopting: list[Iterator[None] | None] = [None] * self.num_readers
        for reader_id in range(self.num_readers):
            self.kill_and_replace(reader_id)

    @rule(meanwhile=st.lists(st.integers(0, num_readers - 1), max_size=6))
    def publish(self, meanwhile: list[int]) -> None:
        """Publish; when half is written, readers take these steps."""
        self.version += 1
        with torch.no_grad():
            torch._foreach_zero_(list(self.module))
            torch._foreach_add_(list(self.module), float(self.version))
        copy_all = torch._foreach_copy_

        def copy_in_halves(targets: list[Tensor], sources: list[Tensor]) -> None:
            copy_all(targets[:1], sources[:1])
            for reader_id in meanwhile:
                self.step(reader_id)
                self.readers_at_rest_hold_what_they_adopted()
            copy_all(targets[1:], sources[1:])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "_foreach_copy_", copy_in_halves)
            self.store.publish(self.module, self.version)

    @rule(reader_id=st.integers(0, num_readers - 1))
    def step(self, reader_id: int) -> None:
        """Let a reader do the next thing that others can see."""
        adopting = self.adopting[reader_id] or self.readers[reader_id]._adopt_in_steps()
        self.adopting[reader_id] = adopting if next(adopting, "adopted") is None else None

    @rule(reader_id=st.integers(0, num_readers - 1))
    def kill_and_replace(self, reader_id: int) -> None:
        """Kill a reader where it stands; the next one starts from nothing."""
        self.adopting[reader_id] = None
        self.policies[reader_id], self.readers[reader_id] = reader_of(self.store, self.module, reader_id)

    @invariant()
    def readers_at_rest_hold_what_they_adopted(self) -> None:
        """Who has adopted a version has all of it and nothing else, until it adopts the next."""
        for reader, policy, adopting in zip(self.readers, self.policies, self.adopting, strict=True):
            if adopting is None and reader.version >= 0:
                reader.verify()
                assert [tensor.tolist() for tensor in policy.parameters()] == [[float(reader.version)] * 3] * 2

    def teardown(self) -> None:
        """Let go of the shared memory."""
        self.store.close()


TestInterleaving = pytest.mark.slow(Interleaving.TestCase)
TestInterleaving.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
