"""Weights that do not arrive, arrive too fast, or must not be played with (rows 20 to 22)."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from fakes import VersionNetwork
from fault_helpers import SOAK, TIMEOUT_S, collector_of
from faults import deaf_game
from soak_report import SoakReport
from torch import Tensor, nn

from keisei_lightning.errors import StalePolicyError, WeightsError
from keisei_lightning.models import ActorCritic

pytestmark = [pytest.mark.process, pytest.mark.timeout(TIMEOUT_S)]


# ---- row 20: a worker that does not adopt


def test_row_20_a_worker_that_does_not_adopt_shows_its_lag_and_is_refused_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = ActorCritic(VersionNetwork())
    game = deaf_game(after=2, once=str(tmp_path / "once"))
    with collector_of(game, policy=policy, num_workers=2, schedule="async", max_policy_lag=3) as collector:
        batches = iter(collector)
        for _ in range(15):
            batch = next(batches)
            assert (collector.policy_version - batch["collector", "policy_version"] <= 3).all()
            policy.network.version.data += 1
            collector.update_policy_weights_()
            time.sleep(0.05)
        lags = {worker["worker_id"]: worker["policy_lag"] for worker in collector.health()}
        stats = collector.stats()
    assert (tmp_path / "once").exists()
    deaf = max(lags, key=lambda worker_id: lags[worker_id] or 0)
    assert lags[deaf] >= 8
    assert lags[1 - deaf] <= 3
    assert stats["adoption_lag_max"] == lags[deaf]
    assert stats["refused_batches"] >= 5
    assert stats["restarts"] == 0
    named = {line.partition(":")[0] for line in caplog.messages if "refused" in line}
    assert named == {f"refused a rollout of worker {deaf}"}


def test_row_20_if_nothing_else_comes_it_is_an_error_that_names_the_worker(tmp_path: Path) -> None:
    policy = ActorCritic(VersionNetwork())
    with collector_of(deaf_game(after=1, once=str(tmp_path / "once")), policy=policy, max_policy_lag=1) as collector:
        batches = iter(collector)
        for _ in range(3):  # its lag is 1 at most
            next(batches)
            collector.update_policy_weights_()
        with pytest.raises(
            StalePolicyError, match="100 consecutive rollouts were refused, the last by worker 0 at lag 2;"
        ):
            next(batches)


# ---- row 21: no set of weights is ever torn


class WitnessNetwork(nn.Module):
    """Plays evenly; its value is the one number that all of its 400 kB of weights must be, or NaN if they are not."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(torch.zeros(10_000)) for _ in range(10)])

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        edges = torch.stack([torch.stack(part.aminmax()) for part in self.parts])
        value = torch.where(edges.min() == edges.max(), edges.max(), torch.nan)
        return edges.new_zeros(len(observation), 3), value.expand(len(observation), 1)


def test_row_21_every_ply_is_played_by_one_whole_version_however_fast_they_are_published(
    soak_report: SoakReport,
) -> None:
    seconds = 30.0 if SOAK else 2.0
    policy = ActorCritic(WitnessNetwork())
    stop = threading.Event()
    with collector_of(policy=policy, num_workers=3, max_policy_lag=10**9) as collector:
        batches = iter(collector)
        next(batches)

        def publish() -> None:
            while not stop.is_set():
                with torch.no_grad():
                    torch._foreach_add_(list(policy.network.parts), 1.0)
                collector.update_policy_weights_()

        publisher = threading.Thread(target=publish)
        publisher.start()
        plies, versions, start = 0, set(), time.monotonic()
        try:
            while time.monotonic() - start < seconds:
                batch = next(batches)
                played_by = batch["collector", "policy_version"].float()
                assert torch.equal(batch["state_value"][..., 0], played_by)
                plies += batch.numel()
                versions |= set(played_by.flatten().tolist())
        finally:
            stop.set()
            publisher.join()
        published, stats = collector.policy_version, collector.stats()
    assert stats["quarantined_batches"] == 0
    assert len(versions) > 20
    assert published > 2 * len(versions), "publishes never overtook a rollout: this test has shown nothing"
    soak_report.add(
        "21",
        f"publishing without a pause for {seconds:.0f} s, 3 workers",
        published,
        f"{plies:,} plies, each of one whole version ({len(versions):,} different ones); none torn",
    )


# ---- row 22: weights that are not finite


def test_row_22_weights_that_are_not_finite_are_refused_by_name_and_the_last_good_ones_play_on() -> None:
    policy = ActorCritic(VersionNetwork())
    with collector_of(policy=policy) as collector:
        batches = iter(collector)
        next(batches)
        policy.network.version.data.fill_(1.0)
        collector.update_policy_weights_()
        for number in (float("nan"), float("inf")):
            policy.network.version.data.fill_(number)
            with pytest.raises(WeightsError, match=r"weights: '.*version' is not finite"):
                collector.update_policy_weights_()
            batch = next(batches)
            assert (batch["collector", "policy_version"] == 1).all()
            assert (batch["state_value"] == 1).all()
        assert collector.policy_version == 1
