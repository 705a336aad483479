from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from training_fakes import FakeCollector, FourByteNetwork, ply_numbers

from keisei_lightning.models import ActorCritic, LegalCategorical
from keisei_lightning.models.transfers import plies_to_device
from keisei_lightning.training.minibatches import (
    MINIBATCH_KEYS,
    add_advantages,
    decouple,
    largest_advantages,
    minibatches,
    shuffle_generator,
)
from keisei_lightning.training.options import MinibatchOptions


def flat(**options: float) -> tuple[TensorDict, torch.Tensor]:
    rollout = FakeCollector(**options).rollout(1)
    return add_advantages(rollout, gamma=0.9, lmbda=0.8, normalize=True)


@settings(deadline=None, max_examples=40)
@given(num_plies=st.integers(1, 40), parts=st.integers(1, 12), num_epochs=st.integers(1, 3), seed=st.integers(0, 99))
def test_every_trainable_ply_comes_exactly_once_in_each_pass(
    num_plies: int, parts: int, num_epochs: int, seed: int
) -> None:
    plies = TensorDict({"number": torch.arange(100)}, batch_size=100)
    trainable = torch.arange(num_plies) * 2
    out = list(
        minibatches(
            plies, trainable, num_epochs=num_epochs, num_minibatches=parts, generator=shuffle_generator(seed, 1)
        )
    )
    seen = Counter(number for minibatch in out for number in minibatch["number"].tolist())
    assert seen == {number: num_epochs for number in trainable.tolist()}
    sizes = [len(minibatch) for minibatch in out]
    assert len(sizes) == num_epochs * min(parts, num_plies)
    assert max(sizes) - min(sizes) <= 1


def test_a_remainder_is_spread_over_the_parts() -> None:
    plies, trainable = flat(num_games=5, num_plies=13)  # 65 plies in parts of at most 32
    sizes = [
        len(part)
        for part in minibatches(plies, trainable, num_epochs=1, num_minibatches=3, generator=shuffle_generator(0, 1))
    ]
    assert sizes == [22, 22, 21]


def test_the_largest_advantages_of_either_sign_are_kept_in_the_order_of_the_plies() -> None:
    advantage = torch.tensor([0.1, -3.0, 9.0, 0.5, -0.5, 0.5, 2.0])[:, None]
    plies, trainable = TensorDict({"advantage": advantage}, batch_size=7), torch.tensor([0, 1, 3, 4, 5, 6])
    kept = [largest_advantages(plies, trainable, count).tolist() for count in range(8)]
    assert kept[:5] == [[], [1], [1, 6], [1, 3, 6], [1, 3, 4, 6]]  # of equal ones the first; the third is not trainable
    assert kept[6] == kept[7] == trainable.tolist()


@pytest.mark.parametrize(
    ("share", "plies", "learned"), [(1.0, 8, 8), (0.5, 8, 4), (0.5, 7, 4), (0.1, 30, 3), (0.01, 5, 1), (0.3, 0, 0)]
)
def test_so_many_plies_are_learned_from(share: float, plies: int, learned: int) -> None:
    assert MinibatchOptions(advantage_share=share).learned(plies) == learned


def test_plies_of_a_frozen_opponent_are_left_out() -> None:
    plies, trainable = flat(num_games=2, num_plies=8, trainable_share=0.5)
    assert trainable.tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert len(plies) == 16


def test_a_rollout_without_trainable_plies_gives_no_minibatch() -> None:
    plies, trainable = flat(trainable_share=0.0)
    assert not list(minibatches(plies, trainable, num_epochs=2, num_minibatches=4, generator=torch.Generator()))


def test_advantages_of_the_trainable_plies_have_mean_0_and_deviation_1() -> None:
    plies, trainable = flat(num_games=8, num_plies=16, trainable_share=0.5)
    chosen = plies["advantage"][trainable]
    assert chosen.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert chosen.std().item() == pytest.approx(1.0, abs=1e-3)
    others = torch.ones(len(plies), dtype=torch.bool)
    others[trainable] = False
    assert not plies["advantage"][others].any()


def test_the_value_target_is_the_advantage_before_normalising_plus_the_value() -> None:
    rollout = FakeCollector().rollout(1)
    raw, _ = add_advantages(rollout, gamma=0.9, lmbda=0.8, normalize=False)
    normal, _ = add_advantages(rollout, gamma=0.9, lmbda=0.8, normalize=True)
    torch.testing.assert_close(raw["value_target"], raw["advantage"] + raw["state_value"])
    torch.testing.assert_close(normal["value_target"], raw["value_target"])


def test_a_minibatch_has_the_keys_of_the_loss_and_no_others() -> None:
    plies, trainable = flat()
    part = next(minibatches(plies, trainable, num_epochs=1, num_minibatches=2, generator=torch.Generator()))
    assert sorted(part.keys()) == sorted(MINIBATCH_KEYS)
    assert part["advantage"].shape == part["value_target"].shape == (16, 1)


def test_a_flattened_rollout_is_a_view_of_the_collectors_memory() -> None:
    rollout = FakeCollector().rollout(1)
    plies, _ = add_advantages(rollout, gamma=0.9, lmbda=0.8, normalize=True)
    assert plies["observation"].data_ptr() == rollout["observation"].data_ptr()


def test_the_shuffle_is_that_of_the_seed_and_the_iteration() -> None:
    plies, trainable = flat()

    def order(seed: int, iteration: int) -> list[tuple[int, int]]:
        generator = shuffle_generator(seed, iteration)
        parts = minibatches(plies, trainable, num_epochs=1, num_minibatches=1, generator=generator)
        return ply_numbers(next(parts))

    assert order(3, 7) == order(3, 7)
    assert len({tuple(order(seed, iteration)) for seed in (3, 4) for iteration in (7, 8)}) == 4


def test_a_rollout_goes_to_an_accelerator_as_a_whole_and_its_minibatches_are_gathered_there() -> None:
    plies, trainable = flat()
    assert plies_to_device(plies, torch.device("cpu")) is plies
    moved = plies_to_device(plies, torch.device("meta"))  # the only other device that every machine has
    assert {column.device.type for column in moved.values()} == {"meta"}
    options = {"num_epochs": 2, "num_minibatches": 3}
    here, there = (
        list(minibatches(source, trainable, **options, generator=shuffle_generator(0, 1))) for source in (plies, moved)
    )
    for mine, theirs in zip(here, there, strict=True):
        assert theirs.batch_size == mine.batch_size
        for key in MINIBATCH_KEYS:
            assert (theirs[key].device.type, theirs[key].shape, theirs[key].dtype) == (
                "meta",
                mine[key].shape,
                mine[key].dtype,
            )


@pytest.mark.gpu
def test_a_gpus_minibatches_hold_the_same_numbers() -> None:
    plies, trainable = flat()
    options = {"num_epochs": 2, "num_minibatches": 3}
    here, there = (
        list(minibatches(source, trainable, **options, generator=shuffle_generator(0, 1)))
        for source in (plies, plies_to_device(plies, torch.device("cuda")))
    )
    for mine, theirs in zip(here, there, strict=True):
        for key in MINIBATCH_KEYS:
            assert theirs[key].is_cuda
            assert torch.equal(theirs[key].cpu(), mine[key]), key


def decoupled_by(policy: ActorCritic, plies: TensorDict, trainable: torch.Tensor) -> TensorDict:
    return decouple(plies, trainable, policy, num_minibatches=3)


def test_without_lag_the_proximal_policy_is_the_behaviour_policy() -> None:
    policy = ActorCritic(FourByteNetwork())
    plies, trainable = flat(policy=policy)
    decoupled = decoupled_by(policy, plies, trainable)
    assert set(decoupled.keys()) == {*MINIBATCH_KEYS, "proximal_log_prob"}
    assert torch.allclose(decoupled["proximal_log_prob"], plies["action_log_prob"], atol=1e-6)
    for key in MINIBATCH_KEYS:
        assert decoupled[key] is plies[key]


def test_the_proximal_policy_is_evaluated_at_the_plies_to_learn_from_in_parts_as_large_as_the_minibatches() -> None:
    network, policy = FourByteNetwork(), ActorCritic(FourByteNetwork())
    plies, trainable = flat(num_games=5, num_plies=13, trainable_share=0.5, policy=policy)
    sizes: list[int] = []

    def evaluate(observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(observation))
        return network(observation)

    decoupled = decouple(plies, trainable, evaluate, num_minibatches=3)
    parts = minibatches(decoupled, trainable, num_epochs=1, num_minibatches=3, generator=shuffle_generator(0, 1))
    assert sizes == [len(part) for part in parts]
    logits, _ = network(plies["observation"])
    expected = LegalCategorical(logits, plies["action_mask"]).log_prob(plies["action"])
    learned = torch.zeros(len(plies), dtype=torch.bool)
    learned[trainable] = True
    torch.testing.assert_close(decoupled["proximal_log_prob"][learned], expected[learned])
    assert torch.equal(decoupled["proximal_log_prob"][~learned], plies["action_log_prob"][~learned])


def test_a_rollout_without_trainable_plies_is_decoupled_to_itself() -> None:
    plies, trainable = flat(trainable_share=0.0)
    decoupled = decoupled_by(ActorCritic(FourByteNetwork()), plies, trainable)
    assert torch.equal(decoupled["proximal_log_prob"], plies["action_log_prob"])
