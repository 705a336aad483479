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
    minibatches,
    shuffle_generator,
)


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


def test_without_lag_decoupling_changes_nothing() -> None:
    policy = ActorCritic(FourByteNetwork())
    plies, _ = add_advantages(FakeCollector(policy=policy).rollout(1), gamma=0.9, lmbda=0.8, normalize=True)
    decoupled = decouple(plies, policy, device=torch.device("cpu"))
    for key in MINIBATCH_KEYS:
        assert torch.allclose(decoupled[key], plies[key], atol=1e-6), key


def test_the_decoupled_objective_is_that_of_the_paper() -> None:
    torch.manual_seed(3)
    behaviour, proximal, present = (ActorCritic(FourByteNetwork()) for _ in range(3))
    plies, _ = add_advantages(FakeCollector(policy=behaviour).rollout(1), gamma=0.9, lmbda=0.8, normalize=True)
    before = plies.clone()

    def log_prob(policy: ActorCritic) -> torch.Tensor:
        logits, _ = policy(plies["observation"])
        return LegalCategorical(logits, plies["action_mask"]).log_prob(plies["action"]).double()

    decoupled = decouple(plies, proximal, device=torch.device("cpu"))
    ratio = (log_prob(present) - decoupled["action_log_prob"]).exp()
    advantage = decoupled["advantage"].squeeze(-1)
    ours = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    # Hilton et al. (2022), equation 3: the quotient of proximal and behaviour policy before PPO's own objective.
    original = plies["advantage"].squeeze(-1)
    r = (log_prob(present) - log_prob(proximal)).exp()
    weight = (log_prob(proximal) - log_prob(behaviour)).exp()
    assert weight.max() < 5.0
    assert torch.allclose(ours, weight * torch.minimum(r * original, r.clamp(0.8, 1.2) * original), atol=1e-5)
    assert (before == plies).all()


def test_a_ply_that_the_behaviour_policy_hardly_ever_plays_weighs_five_times_at_most() -> None:
    policy = ActorCritic(FourByteNetwork())
    plies, _ = add_advantages(FakeCollector(policy=policy).rollout(1), gamma=0.9, lmbda=0.8, normalize=True)
    plies["action_log_prob"] -= 10.0
    decoupled = decouple(plies, policy, device=torch.device("cpu"))
    assert torch.allclose(decoupled["advantage"], 5.0 * plies["advantage"])
