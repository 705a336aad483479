import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.objectives.value.functional import vec_generalized_advantage_estimate

from keisei_lightning.rl import AdvantageMoments, normalize_advantage, two_player_gae


def rollouts(seed: int, batch: int, plies: int, *, alternate: bool = False) -> dict[str, torch.Tensor]:
    """Random plies in any order of turns; values of neighbouring states agree, as they do in a real rollout."""
    rng = np.random.default_rng(seed)
    done = rng.random((batch, plies)) < 0.25
    terminated = done & (rng.random((batch, plies)) < 0.6)
    mover = rng.integers(0, 2, (batch, plies))
    if alternate:
        mover = np.broadcast_to(np.arange(plies) % 2, (batch, plies)).copy()
    value, last = rng.uniform(-1, 1, (batch, plies)), rng.uniform(-1, 1, (batch, plies))
    next_value, next_mover = last, 1 - mover if alternate else rng.integers(0, 2, (batch, plies))
    goes_on = ~done[:, :-1]
    next_value[:, :-1] = np.where(goes_on, value[:, 1:], next_value[:, :-1])
    next_mover[:, :-1] = np.where(goes_on, mover[:, 1:], next_mover[:, :-1])
    floats = {"state_value": value, "next_state_value": next_value, "reward": rng.uniform(-1, 1, (batch, plies))}
    return {
        **{name: torch.tensor(x, dtype=torch.float32).unsqueeze(-1) for name, x in floats.items()},
        **{name: torch.tensor(x).unsqueeze(-1) for name, x in {"done": done, "terminated": terminated}.items()},
        **{name: torch.tensor(x, dtype=torch.int8) for name, x in {"mover": mover, "next_mover": next_mover}.items()},
    }


def lambda_return(row: dict[str, list], t: int, gamma: float, lmbda: float, trainable: list[bool]) -> float:
    """The value of ply t to its mover, straight from the definition of the lambda return, by recursion."""
    sign = 1 if row["mover"][t] == row["next_mover"][t] else -1
    if row["terminated"][t]:
        return row["reward"][t]
    bootstrap = row["next_state_value"][t]
    if row["done"][t] or t + 1 == len(row["mover"]):
        return row["reward"][t] + gamma * sign * bootstrap
    weight = lmbda if trainable[t + 1] else 1.0  # the learner's critic is not asked at an opponent's position
    ahead = lambda_return(row, t + 1, gamma, lmbda, trainable)
    return row["reward"][t] + gamma * sign * ((1 - weight) * bootstrap + weight * ahead)


def reference(data: dict[str, torch.Tensor], gamma: float, lmbda: float, trainable: torch.Tensor) -> torch.Tensor:
    flat = {name: x.reshape(x.shape[:2]).tolist() for name, x in data.items()}
    rows = [{name: x[b] for name, x in flat.items()} for b in range(len(trainable))]
    advantage = [
        [
            lambda_return(row, t, gamma, lmbda, learner) - row["state_value"][t] if learner[t] else 0.0
            for t in range(len(learner))
        ]
        for row, learner in zip(rows, trainable.tolist(), strict=True)
    ]
    return torch.tensor(advantage).unsqueeze(-1)


sizes = {"seed": st.integers(0, 2**31), "batch": st.integers(1, 4), "plies": st.integers(1, 12)}
rates = {"gamma": st.floats(0, 1), "lmbda": st.floats(0, 1)}
high = st.floats(0.5, 1)  # torchrl 0.14 raises IndexError where gamma * lambda is nearly 0


@settings(deadline=None, max_examples=60)
@given(**sizes, **rates)
def test_it_equals_the_definition_for_any_order_of_turns(seed, batch, plies, gamma, lmbda):
    data = rollouts(seed, batch, plies)
    advantage, target = two_player_gae(gamma=gamma, lmbda=lmbda, **data)
    expected = reference(data, gamma, lmbda, torch.ones(batch, plies, dtype=torch.bool))
    torch.testing.assert_close(advantage, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(target, expected + data["state_value"], atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=60)
@given(**sizes, **rates)
def test_a_frozen_opponents_plies_belong_to_the_environment(seed, batch, plies, gamma, lmbda):
    data = rollouts(seed, batch, plies)
    trainable = torch.from_numpy(np.random.default_rng(seed + 1).random((batch, plies)) < 0.5)
    advantage, _ = two_player_gae(gamma=gamma, lmbda=lmbda, trainable=trainable, **data)
    torch.testing.assert_close(advantage, reference(data, gamma, lmbda, trainable), atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 4), plies=st.integers(4, 12), gamma=high, lmbda=high)
def test_it_equals_torchrls_estimate_of_one_seats_values(seed, batch, plies, gamma, lmbda):
    data = rollouts(seed, batch, plies)
    advantage, _ = two_player_gae(gamma=gamma, lmbda=lmbda, **data)
    sign, next_sign = (1.0 - 2.0 * data[name].unsqueeze(-1).float() for name in ("mover", "next_mover"))
    expected, _ = vec_generalized_advantage_estimate(
        gamma,
        lmbda,
        sign * data["state_value"],
        next_sign * data["next_state_value"],
        sign * data["reward"],
        data["done"],
        data["terminated"],
        time_dim=-2,
    )
    torch.testing.assert_close(advantage, sign * expected, atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=30)
@given(**sizes, **rates)
def test_swapping_the_seats_changes_nothing(seed, batch, plies, gamma, lmbda):
    data = rollouts(seed, batch, plies)
    swapped = data | {name: 1 - data[name] for name in ("mover", "next_mover")}
    for a, b in zip(
        two_player_gae(gamma=gamma, lmbda=lmbda, **data),
        two_player_gae(gamma=gamma, lmbda=lmbda, **swapped),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_all_trainable_is_the_same_as_none_given():
    data = rollouts(3, 5, 20)
    all_of_them = torch.ones(5, 20, dtype=torch.bool)
    for a, b in zip(
        two_player_gae(gamma=0.9, lmbda=0.8, **data),
        two_player_gae(gamma=0.9, lmbda=0.8, trainable=all_of_them, **data),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_lambda_zero_is_the_one_step_temporal_difference():
    data = rollouts(4, 6, 15)
    advantage, _ = two_player_gae(gamma=0.9, lmbda=0.0, **data)
    sign = torch.where(data["mover"] == data["next_mover"], 1.0, -1.0).unsqueeze(-1)
    ahead = torch.where(data["terminated"], 0.0, data["next_state_value"])
    torch.testing.assert_close(advantage, data["reward"] + 0.9 * sign * ahead - data["state_value"])


def test_undiscounted_and_lambda_one_the_target_is_the_result_seen_by_each_mover():
    plies = 5
    data = rollouts(5, 1, plies, alternate=True)
    data["done"] = data["terminated"] = torch.tensor([False] * 4 + [True]).view(1, plies, 1)
    data["reward"] = torch.tensor([0.0] * 4 + [1.0]).view(1, plies, 1)
    advantage, target = two_player_gae(gamma=1.0, lmbda=1.0, **data)
    result = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]).view(1, plies, 1)
    torch.testing.assert_close(target, result)
    torch.testing.assert_close(advantage, result - data["state_value"])


def test_a_game_of_three_plies_by_hand():
    """Seat 0, seat 1, then seat 0 mates; gamma 0.9, lambda 0.5."""
    advantage, target = two_player_gae(
        gamma=0.9,
        lmbda=0.5,
        state_value=torch.tensor([0.2, -0.4, 0.6]).view(1, 3, 1),
        next_state_value=torch.tensor([-0.4, 0.6, 0.9]).view(1, 3, 1),
        reward=torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1),
        done=torch.tensor([False, False, True]).view(1, 3, 1),
        terminated=torch.tensor([False, False, True]).view(1, 3, 1),
        mover=torch.tensor([[0, 1, 0]], dtype=torch.int8),
        next_mover=torch.tensor([[1, 0, 1]], dtype=torch.int8),
    )
    # delta = [0 + 0.36 - 0.2, 0 - 0.54 + 0.4, 1 - 0.6]; each A = delta - 0.45 * the next A
    expected = torch.tensor([0.16 + 0.45 * 0.32, -0.14 - 0.45 * 0.4, 0.4]).view(1, 3, 1)
    torch.testing.assert_close(advantage, expected)
    torch.testing.assert_close(target.flatten(), torch.tensor([0.504, -0.72, 1.0]))


def test_a_game_against_a_frozen_opponent_by_hand():
    """Seat 1 is frozen; after its reply seat 0 wins. The opponent's own value 0.7 is never used."""
    data = {
        "state_value": torch.tensor([0.2, 0.7, 0.6]).view(1, 3, 1),
        "next_state_value": torch.tensor([0.7, 0.6, 0.0]).view(1, 3, 1),
        "reward": torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1),
        "done": torch.tensor([False, False, True]).view(1, 3, 1),
        "terminated": torch.tensor([False, False, True]).view(1, 3, 1),
        "mover": torch.tensor([[0, 1, 0]], dtype=torch.int8),
        "next_mover": torch.tensor([[1, 0, 1]], dtype=torch.int8),
    }
    trainable = torch.tensor([[True, False, True]])
    advantage, target = two_player_gae(gamma=0.9, lmbda=0.5, trainable=trainable, **data)
    # Two plies pass between the decisions: -0.2 + 0.81 * (0.6 + 0.5 * 0.4)
    assert advantage.flatten().tolist() == pytest.approx([-0.2 + 0.81 * 0.8, 0.0, 0.4], abs=1e-6)
    assert target.flatten().tolist() == pytest.approx([0.81 * 0.8, 0.7, 1.0], abs=1e-6)


def test_being_mated_by_the_frozen_opponent_counts_at_the_learners_last_move():
    data = {
        "state_value": torch.tensor([0.5, 0.9]).view(1, 2, 1),
        "next_state_value": torch.tensor([0.9, 0.3]).view(1, 2, 1),
        "reward": torch.tensor([0.0, 1.0]).view(1, 2, 1),
        "done": torch.tensor([False, True]).view(1, 2, 1),
        "terminated": torch.tensor([False, True]).view(1, 2, 1),
        "mover": torch.tensor([[0, 1]], dtype=torch.int8),
        "next_mover": torch.tensor([[1, 0]], dtype=torch.int8),
    }
    _, target = two_player_gae(gamma=0.9, lmbda=0.0, trainable=torch.tensor([[True, False]]), **data)
    assert target.flatten().tolist() == pytest.approx([-0.9, 0.9], abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), frozen=st.booleans())
def test_a_done_never_leaks_into_the_game_before(seed, frozen):
    data = rollouts(seed, 3, 10)
    data["done"][:, 4] = True
    trainable = torch.from_numpy(np.random.default_rng(seed).random((3, 10)) < 0.5) if frozen else None
    before, _ = two_player_gae(gamma=0.9, lmbda=0.9, trainable=trainable, **data)
    for name in ("state_value", "next_state_value", "reward"):
        data[name][:, 5:] = 100.0
    data["mover"][:, 5:] = 1 - data["mover"][:, 5:]
    after, _ = two_player_gae(gamma=0.9, lmbda=0.9, trainable=trainable, **data)
    assert torch.equal(before[:, :5], after[:, :5])


def test_truncation_bootstraps_and_termination_does_not():
    data = rollouts(6, 1, 1, alternate=True)
    data["done"] = torch.tensor([[[True]]])
    data["reward"], data["state_value"] = torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)
    data["next_state_value"] = torch.full((1, 1, 1), 0.5)
    cut, _ = two_player_gae(gamma=0.9, lmbda=0.9, **data | {"terminated": torch.tensor([[[False]]])})
    over, _ = two_player_gae(gamma=0.9, lmbda=0.9, **data | {"terminated": torch.tensor([[[True]]])})
    assert cut.item() == pytest.approx(-0.45)
    assert over.item() == 0.0


def test_inputs_are_not_changed_and_carry_no_gradient():
    data = rollouts(7, 2, 6)
    data["state_value"].requires_grad_()
    before = {name: x.detach().clone() for name, x in data.items()}
    advantage, target = two_player_gae(gamma=0.9, lmbda=0.9, trainable=torch.rand(2, 6) < 0.5, **data)
    assert not advantage.requires_grad
    assert not target.requires_grad
    assert all(torch.equal(data[name], before[name]) for name in data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": 1.1}, r"gamma=1\.1 must be in \[0, 1\]"),
        ({"lmbda": -0.1}, r"lmbda=-0\.1 must be in \[0, 1\]"),
        ({"state_value": torch.zeros(2, 3)}, r"state_value must be \[B, T, 1\] with T > 0, not \[2, 3\]"),
        ({"reward": torch.zeros(2, 3)}, r"reward must be float \[2, 3, 1\], not torch\.float32 \[2, 3\]"),
        ({"done": torch.zeros(2, 3, 1)}, r"done must be bool \[2, 3, 1\], not torch\.float32 \[2, 3, 1\]"),
        ({"mover": torch.zeros(2, 3)}, r"mover must be int8 \[2, 3\], not torch\.float32 \[2, 3\]"),
        ({"trainable": torch.ones(2, 3, 1, dtype=torch.bool)}, r"trainable must be bool \[2, 3\], not torch\.bool"),
        (
            {"done": torch.zeros(2, 3, 1, dtype=torch.bool), "terminated": torch.ones(2, 3, 1, dtype=torch.bool)},
            "terminated must imply done",
        ),
    ],
)
def test_wrong_tensors_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        two_player_gae(**{"gamma": 0.9, "lmbda": 0.9, **rollouts(0, 2, 3), **change})


def test_normalized_advantages_have_mean_zero_and_deviation_one():
    advantage = normalize_advantage(5 + 3 * torch.randn(40, 10, 1))
    assert advantage.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert advantage.std().item() == pytest.approx(1.0, abs=1e-5)


def test_plies_that_are_not_trainable_neither_count_nor_learn():
    advantage = torch.randn(30, 1)
    mask = torch.rand(30) < 0.5
    polluted = torch.where(mask.unsqueeze(-1), advantage, 1e6)
    normalized = normalize_advantage(polluted, mask)
    torch.testing.assert_close(normalized[mask], normalize_advantage(advantage[mask]))
    assert not normalized[~mask].any()


def test_one_advantage_alone_or_none_at_all_becomes_zero():
    assert normalize_advantage(torch.tensor([[3.0]])).item() == 0.0
    none = normalize_advantage(torch.randn(3, 1), torch.zeros(3, dtype=torch.bool))
    assert none.flatten().tolist() == [0.0, 0.0, 0.0]
    assert not normalize_advantage(torch.full((5, 1), 2.0)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.1, -1e6, 1e-6])
@pytest.mark.parametrize("count", [5, 1000, 65_537])
def test_advantages_that_are_all_the_same_become_zero(count, value, dtype):
    assert not normalize_advantage(torch.full((count, 1), value, dtype=dtype)).any()
    mask = torch.arange(2 * count) < count
    mixed = torch.where(mask.unsqueeze(-1), value, 7.0).to(dtype)
    assert not normalize_advantage(mixed, mask).any()


def test_advantages_that_differ_in_their_last_bit_alone_become_zero():
    advantage = torch.full((100, 1), 0.3)
    advantage[::2] = torch.nextafter(torch.tensor(0.3), torch.tensor(1.0))
    assert not normalize_advantage(advantage).any()


def test_small_advantages_around_a_large_mean_are_normalised_as_in_double_precision():
    advantage = 100.0 + torch.randn(5000, 1, generator=torch.Generator().manual_seed(2))
    exact = advantage.double()
    expected = (exact - exact.mean()) / exact.std()
    torch.testing.assert_close(normalize_advantage(advantage).double(), expected, atol=1e-5, rtol=1e-5)


def test_gamma_is_not_rounded_to_single_precision():
    """One ply whose successor is worth 1: the advantage is gamma itself."""
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    data = {name: x.double() if x.is_floating_point() else x for name, x in rollouts(0, 1, 1).items()}
    data |= {"state_value": 0 * one, "next_state_value": one, "reward": 0 * one, "next_mover": data["mover"]}
    data |= {"done": one > 1, "terminated": one > 1}
    for sign, next_mover in ((1, data["mover"]), (-1, 1 - data["mover"])):
        advantage, _ = two_player_gae(gamma=0.995, lmbda=0.95, **data | {"next_mover": next_mover})
        assert advantage.item() == sign * 0.995


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_advantages_are_of_the_values_dtype_and_computed_in_single_precision_at_least(dtype):
    data = rollouts(8, 4, 30)
    data["state_value"] = data["state_value"].to(dtype)
    advantage, target = two_player_gae(gamma=0.995, lmbda=0.95, **data)
    assert advantage.dtype == target.dtype == dtype
    precise, _ = two_player_gae(
        gamma=0.995, lmbda=0.95, **{name: x.double() if x.is_floating_point() else x for name, x in data.items()}
    )
    # One rounding to the dtype, and those of the arithmetic in float32 or better.
    torch.testing.assert_close(advantage, precise.to(dtype), atol=1e-6, rtol=torch.finfo(dtype).eps)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"mask must be bool \[3\] for an advantage \[3, 1\]"):
        normalize_advantage(torch.zeros(3, 1), torch.zeros(4, dtype=torch.bool))


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4), seed=st.integers(0, 99), offset=st.floats(-1e3, 1e3))
def test_moments_of_parts_normalise_them_as_the_whole(sizes: list[int], seed: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(size, 1, generator=generator) + offset for size in sizes]
    moments = AdvantageMoments.combined([AdvantageMoments.of(part) for part in parts])
    whole = torch.cat(parts)
    normal = torch.cat([moments.normalize(part) for part in parts])
    assert moments.count == len(whole)
    torch.testing.assert_close(normal, normalize_advantage(whole), rtol=1e-3, atol=1e-3)
    if len(whole) > 1:
        exact = (whole.double() - whole.double().mean()) / whole.double().std()
        torch.testing.assert_close(normal.double(), exact, rtol=1e-5, atol=1e-5)


def test_moments_of_advantages_that_are_all_the_same_make_them_zero() -> None:
    same = torch.full((7, 1), 0.1)
    assert AdvantageMoments.of(same).normalize(same).tolist() == 7 * [[0.0]]
