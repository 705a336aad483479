from __future__ import annotations

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from thread_ranks import on_ranks

from keisei_lightning.training.meter import EpochMeter
from keisei_lightning.training.ranks import ALONE, Ranks

NAMES = ("entropy", "kl_approx")


def losses(entropy: float, kl: float, ratio: float = 1.0) -> TensorDict:
    numbers = {"entropy": entropy, "kl_approx": kl, "behaviour_kl": kl + 1.0, "behaviour_ratio": ratio}
    return TensorDict({name: torch.tensor(number) for name, number in numbers.items()})


def meter_of(*minibatches: tuple[TensorDict, list[float], list[float]]) -> EpochMeter:
    meter = EpochMeter(NAMES, torch.device("cpu"))
    for numbers, value, target in minibatches:
        meter.add(numbers, value=column(value), value_target=column(target))
    return meter


def column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values).unsqueeze(-1)


def test_a_mean_is_over_plies_and_not_over_minibatches() -> None:
    meter = meter_of((losses(1.0, 0.5), [0.0] * 3, [0.0] * 3), (losses(5.0, 0.1), [0.0], [0.0]))
    metrics = meter.compute()
    assert metrics["entropy"] == pytest.approx((3 * 1.0 + 5.0) / 4)
    assert metrics["kl_approx"] == pytest.approx((3 * 0.5 + 0.1) / 4)


def test_the_first_minibatch_has_metrics_of_its_own_against_the_policy_that_played() -> None:
    meter = meter_of((losses(1.0, 0.5, 0.9), [0.0], [0.0]), (losses(1.0, 0.1, 0.2), [0.0], [0.0]))
    assert (meter.compute()["first_kl"], meter.compute()["first_ratio"]) == pytest.approx((1.5, 0.9))


def test_the_explained_variance_is_that_of_all_plies_of_the_epoch() -> None:
    """A minibatch of nearly equal targets made the mean of the minibatches' own values meaningless."""
    rng = np.random.default_rng(0)
    targets = [rng.uniform(-1, 1, 7), np.full(5, 0.3) + 1e-5 * rng.normal(size=5), rng.uniform(-1, 1, 6)]
    values = [target + 0.3 * rng.normal(size=len(target)) for target in targets]
    meter = meter_of(*((losses(0, 0), v.tolist(), t.tolist()) for v, t in zip(values, targets, strict=True)))
    target, residual = np.concatenate(targets), np.concatenate(targets) - np.concatenate(values)
    expected = 1.0 - residual.var() / target.var()
    assert 0.0 < expected < 1.0
    assert meter.compute()["explained_variance"] == pytest.approx(expected, abs=1e-5)
    alone = [1.0 - (t - v).var() / t.var() for v, t in zip(values, targets, strict=True)]
    assert np.mean(alone) < -1000.0


@pytest.mark.parametrize("target", [0.0, 0.1, -1.0, 1e-4])
def test_targets_without_variance_have_no_explained_variance(target: float) -> None:
    meter = meter_of(*((losses(0, 0), [0.2, 0.3, 0.5], [target] * 3) for _ in range(5)))
    assert "explained_variance" not in meter.compute()
    meter.add(losses(0, 0), value=column([0.2]), value_target=column([target + 0.01]))
    assert "explained_variance" in meter.compute()


def test_small_targets_have_an_explained_variance() -> None:
    targets = [1e-6, 2e-6, 4e-6]
    metrics = meter_of((losses(0, 0), targets, targets)).compute()
    assert metrics["explained_variance"] == pytest.approx(1.0)
    metrics = meter_of((losses(0, 0), [0.0, 0.0, 0.0], targets)).compute()
    assert metrics["explained_variance"] == pytest.approx(0.0, abs=1e-6)


def test_no_minibatch_has_no_metrics() -> None:
    assert meter_of().compute() == {}


@pytest.mark.parametrize("stop", [0, 1, 64, 130])
def test_a_restored_meter_counts_as_if_there_had_been_no_stop(stop: int) -> None:
    rng = torch.Generator().manual_seed(3)
    minibatches = [
        (losses(*torch.rand(3, generator=rng).tolist()), *torch.rand(2, 4, generator=rng).tolist()) for _ in range(140)
    ]
    whole = meter_of(*minibatches)
    resumed = EpochMeter.restored(meter_of(*minibatches[:stop]).state(), NAMES, torch.device("cpu"))
    for numbers, value, target in minibatches[stop:]:
        resumed.add(numbers, value=column(value), value_target=column(target))
    for meter in (whole, resumed):
        meter.add_grad_norm(torch.tensor(0.5))
    assert resumed.compute() == whole.compute()
    assert whole.compute()["grad_norm"] == 0.5


def test_the_state_of_another_version_is_left_alone() -> None:
    old = {"sums": torch.ones(9), "first": torch.ones(9), "count": 3, "grad_norms": torch.ones(()), "num_grad_norms": 3}
    assert EpochMeter.restored(old, NAMES, torch.device("cpu")).compute() == {}
    other = EpochMeter(("entropy",), torch.device("cpu")).state()
    assert EpochMeter.restored(other, NAMES, torch.device("cpu")).compute() == {}


MINIBATCHES = [
    (losses(1.0, 0.5, 0.9), [0.0, 0.1, 0.3], [0.2, 0.1, 0.0]),
    (losses(5.0, 0.1, 0.3), [0.5], [0.9]),
    (losses(2.0, 0.3, 0.4), [0.3, 0.2], [0.7, -0.4]),
    (losses(4.0, 0.7, 0.8), [0.1, 0.8, 0.2], [0.0, 0.9, 0.9]),
]


def of_rank(rank: int) -> EpochMeter:
    """Two ranks have two minibatches each."""
    return meter_of(*MINIBATCHES[rank::2])


def test_the_means_of_two_ranks_are_over_the_plies_of_both() -> None:
    both = on_ranks(2, lambda ranks: of_rank(ranks.rank).compute(ranks))
    expected = meter_of(*MINIBATCHES).compute()
    assert both[0] == both[1]
    first = {"first_kl": (3 * 1.5 + 1 * 1.1) / 4, "first_ratio": (3 * 0.9 + 1 * 0.3) / 4}  # of both parts of it
    assert both[0] == pytest.approx(expected | first)


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_any_number_of_ranks_resumes_the_means_of_two(num_ranks: int) -> None:
    before = on_ranks(2, lambda ranks: of_rank(ranks.rank).compute(ranks))[0]
    saved = on_ranks(2, lambda ranks: of_rank(ranks.rank).joined_state(ranks))[0]

    def resumed(ranks: Ranks) -> dict[str, float]:
        return EpochMeter.of_rank(saved, NAMES, torch.device("cpu"), ranks.rank).compute(ranks)

    after = [resumed(ALONE)] if num_ranks == 1 else on_ranks(num_ranks, resumed)
    assert all(metrics == pytest.approx(before) for metrics in after)
