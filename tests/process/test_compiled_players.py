"""Players whose network is compiled: before they play, once, and they play the same games."""

from __future__ import annotations

import logging
import shutil
from typing import Any

import pytest
import torch
from collector_helpers import GAMES, WORKERS, collector_of
from fakes import TinyNetwork
from rollout_checks import assert_whole
from tensordict import TensorDictBase

from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import OpponentOptions

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile wants a C++ compiler"),
]


def play(*, with_opponents: bool, **options: Any) -> tuple[list[TensorDictBase], list[int]]:
    """Five batches of weights that change, and how often each process was restarted."""
    torch.manual_seed(11)
    policy, batches = ActorCritic(TinyNetwork()), []
    # Shorter than a compilation: a worker that compiled again in the middle of a rollout would be taken for hung.
    opponents = OpponentOptions(share=0.5, max_snapshots=2) if with_opponents else None
    with collector_of(policy, opponents=opponents, heartbeat_s=5.0, start_timeout_s=600.0, **options) as collector:
        if with_opponents:
            collector.push_snapshot()
        for batch in collector:
            assert_whole(batch, games_per_worker=GAMES)
            batches.append(batch)
            if len(batches) == 5:
                break
            with torch.no_grad():
                for parameter in policy.parameters():
                    parameter += 0.1 * torch.randn(parameter.shape)
            collector.update_policy_weights_()
        incarnations = [int(process["incarnation"]) for process in collector.health()]
    return batches, incarnations


@pytest.mark.parametrize("with_opponents", [False, True], ids=["self-play", "opponents"])
@pytest.mark.parametrize(("mode", "num_compiled"), [("workers", WORKERS), ("central", 1)])
def test_compiled_players_play_the_same_games(
    mode: str, num_compiled: int, with_opponents: bool, caplog: pytest.LogCaptureFixture
) -> None:
    plain, _ = play(mode=mode, with_opponents=with_opponents)
    with caplog.at_level(logging.INFO):
        compiled, incarnations = play(mode=mode, with_opponents=with_opponents, compile_mode="default")
    assert set(incarnations) == {0}
    assert caplog.text.count("network compiled (default) in") == num_compiled
    for batch, other in zip(plain, compiled, strict=True):
        assert torch.equal(batch["action"], other["action"])
        for key in ("state_value", "action_log_prob"):
            torch.testing.assert_close(other[key], batch[key], atol=1e-5, rtol=1e-4)
