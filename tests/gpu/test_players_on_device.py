"""Players on a device: the weights they play with, the processes that may touch it, and the death of one that does."""

from __future__ import annotations

import copy
import itertools
import os
import shutil
import signal

import psutil
import pytest
import torch
from device_runs import (
    assert_played_by,
    collector_of,
    difference_of,
    free_bytes,
    holds_cuda,
    policy_of,
    tolerance_of,
    wait_until,
)

from keisei_lightning.models import ActorCritic, LegalCategorical
from keisei_lightning.models.bitmask import unpack_mask
from keisei_lightning.parallel import OpponentOptions

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]


def change(policy: ActorCritic) -> None:
    """New weights that give visibly other values."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)


def versions_played(device: str, *, precision: str = "32-true", kind: str = "resnet", **options: object) -> list[int]:
    """Policy versions of three batches, each played by the weights published last, and not by those before."""
    policy = policy_of(kind)
    versions = []
    with collector_of(policy, device, worker_precision=precision, start_timeout_s=600.0, **options) as collector:
        earlier = None
        for batch in itertools.islice(collector, 3):
            versions.append(int(batch["collector", "policy_version"].min()))
            assert_played_by(policy, batch, device, precision)
            if earlier is not None:
                assert difference_of(earlier, batch, device, precision) > 2 * tolerance_of(device, precision)
            earlier = copy.deepcopy(policy)
            change(policy)
            collector.update_policy_weights_()
        assert {entry["incarnation"] for entry in collector.health()} == {0}
    return versions


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("mode", ["workers", "central"])
def test_players_play_with_the_weights_published_last(device: str, mode: str, precision: str) -> None:
    assert versions_played(device, mode=mode, precision=precision) == [0, 1, 2]


def test_players_against_snapshots_play_their_own_plies_with_the_weights_published_last(device: str) -> None:
    policy = policy_of()
    opponents = OpponentOptions(share=1.0, max_snapshots=2)
    with collector_of(policy, device, opponents=opponents) as collector:
        collector.push_snapshot()
        batches = iter(collector)
        next(batches)
        change(policy)
        collector.update_policy_weights_()
        for _ in range(2):
            batch = next(batches)
            assert 0 < float(batch["trainable"].float().mean()) < 1
            assert_played_by(policy, batch, device)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile wants a C++ compiler")
@pytest.mark.parametrize(
    ("place", "compile_mode"),
    [
        ("cpu", "default"),
        pytest.param("cuda:0", "default", marks=pytest.mark.gpu),
        pytest.param("cuda:0", "reduce-overhead", marks=pytest.mark.gpu),
    ],
)
def test_compiled_players_play_with_the_weights_published_last(place: str, compile_mode: str) -> None:
    kind = "mlp" if place == "cpu" else "resnet"  # compiling convolutions for a CPU takes half a minute
    options = {"kind": kind, "compile_mode": compile_mode, "num_workers": 1, "heartbeat_s": 2.0}
    assert versions_played(place, **options) == [0, 1, 2]


def test_who_only_plays_moves_never_touches_the_device(device: str) -> None:
    with collector_of(policy_of(), device) as collector:
        next(iter(collector))
        players = [holds_cuda(int(entry["pid"])) for entry in collector.health()]
    assert players == [False, False, device != "cpu"]


def test_training_data_keeps_coming_when_the_process_that_holds_the_device_is_killed(device: str) -> None:
    policy = policy_of()
    with collector_of(policy, "cpu", mode="serial", num_workers=1) as on_cpu:
        difference_of(policy, next(iter(on_cpu)), device, "32-true")  # what this process itself takes for good
    free_before = free_bytes(device)
    with collector_of(policy, device, restart_backoff_s=0.02) as collector:
        batches = iter(collector)
        next(batches)
        killed = int(collector.health()[-1]["pid"])
        os.kill(killed, signal.SIGKILL)
        change(policy)
        collector.update_policy_weights_()
        for _ in range(2):
            assert_played_by(policy, next(batches), device)
        health = collector.health()
        assert [entry["incarnation"] for entry in health] == [0, 0, 1]
        assert not psutil.pid_exists(killed)
        assert holds_cuda(int(health[-1]["pid"])) == (device != "cpu")
    if device != "cpu":
        torch.cuda.empty_cache()  # what this process took to check the batches
    wait_until(lambda: free_bytes(device) >= free_before - 128 * 2**20)  # a context takes more


# ---- the same numbers


def positions(num_games: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Observations and legal moves of games under way."""
    with collector_of(policy_of(), "cpu", mode="serial", num_workers=1, games_per_worker=num_games) as collector:
        batch = next(iter(collector))
    return batch["observation"].flatten(0, 1), batch["action_mask"].flatten(0, 1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_logits_and_values_agree_with_those_of_the_cpu(device: str, precision: str) -> None:
    observation, _ = positions(16)
    policy = policy_of().eval()
    change(policy)  # else its values are all 0
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.inference_mode():
            expected = policy(observation)
            policy.to(device)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                found = policy(observation.to(device))
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    tolerance = 1e-4 if precision == "32-true" else 0.05
    for ours, theirs in zip(found, expected, strict=True):
        assert float(theirs.norm()) > 0.1
        assert float((ours.float().cpu() - theirs).norm() / theirs.norm()) < tolerance


def test_moves_drawn_on_the_device_are_legal_and_as_probable_as_they_say(device: str) -> None:
    observation, mask = (column.to(device) for column in positions(32))
    policy = policy_of().to(device).eval()
    generator = torch.Generator(device=device).manual_seed(0)
    with torch.inference_mode():
        logits, _ = policy(observation)
        distribution = LegalCategorical(logits, mask)
        legal = unpack_mask(mask, logits.shape[-1])
        expected = torch.where(legal, logits, -torch.inf).log_softmax(-1)
        seen = []
        for _ in range(3):
            action, log_prob, _ = policy.act(observation, mask, generator=generator)
            rows = torch.arange(len(action), device=device)
            assert legal[rows, action].all()
            torch.testing.assert_close(log_prob, expected[rows, action], atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(distribution.log_prob(action), expected[rows, action], atol=1e-3, rtol=1e-3)
            seen.append(action)
        assert not torch.equal(seen[0], seen[1])
        generator.manual_seed(0)
        assert torch.equal(policy.act(observation, mask, generator=generator)[0], seen[0])
        greedy, _, _ = policy.act(observation, mask, greedy=True)
        assert torch.equal(expected.gather(1, greedy[:, None])[:, 0], expected.max(-1).values)
