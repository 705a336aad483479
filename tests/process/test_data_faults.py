"""Invalid results of policies and games (rows 24 and 25) are never delivered, are counted, and end in an error."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import CountingGame, VersionNetwork
from fault_helpers import GAMES, PLIES, TIMEOUT_S, collector_of
from faults import EndlessGame, StuckGame, misbehaves_first
from numpy.typing import NDArray
from rollout_checks import assert_whole
from torch import Tensor

from keisei_lightning.errors import QuarantineError, RemoteTraceback, WorkerCrashLoopError
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector

pytestmark = [pytest.mark.process, pytest.mark.timeout(TIMEOUT_S)]

MODES = ("serial", "workers")


# ---- row 24: a policy that gives nonsense


class Nonsense(ActorCritic):
    """Now and then gives what no rollout may hold.

    Args:
        what: which nonsense.
        once: path of a file that does not exist: only the first process gives any, once; empty: all, always.
    """

    def __init__(self, what: str, once: str = "") -> None:
        super().__init__(VersionNetwork())
        self.what, self.once, self.passed = what, once, 0

    def act(
        self, observation: Tensor, action_mask: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        action, log_prob, value = super().act(observation, action_mask, generator=generator)
        self.passed += 1
        illegal = action_mask[:, 0] & 32 == 0  # of the three bits of the mask, that of action 2
        if self.passed < PLIES + 2 or (self.what == "illegal action" and not illegal.any()):
            return action, log_prob, value
        if not misbehaves_first(self.once):
            return action, log_prob, value
        match self.what:
            case "NaN log-probability":
                log_prob = log_prob.clone().fill_(torch.nan)
            case "infinite value":
                value = value.clone().fill_(torch.inf)
            case "illegal action":
                action = torch.where(illegal, 2, action)
            case "wrong shape":
                value = value[:, 0]
        return action, log_prob, value


NONSENSE = {
    "NaN log-probability": "RolloutError: policy version 0 gave a log-probability or value that is not finite",
    "infinite value": "RolloutError: policy version 0 gave a log-probability or value that is not finite",
    "illegal action": "IllegalActionError: counting: illegal move 2 at ply",
    "wrong shape": "RolloutError: policy: state_value is [4], must be [4, 1]",
}


def batches_of(collector: SelfPlayCollector, count: int) -> None:
    for batch in itertools.islice(collector, count):
        assert_whole(batch, games_per_worker=GAMES)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", NONSENSE)
def test_row_24_invalid_rollouts_are_quarantined_and_counted_and_training_continues(
    what: str, mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Nonsense(what, once=str(tmp_path / "once"))
    with collector_of(policy=policy, mode=mode) as collector:
        batches_of(collector, 6)
        stats = collector.stats()
    assert (tmp_path / "once").exists()
    assert stats["quarantined_batches"] == 1
    assert stats["restarts"] == stats["lost_rollouts"] == 0
    assert stats["plies"] == 6 * GAMES * PLIES
    (line,) = [line for line in caplog.messages if "not delivered" in line]
    assert line.startswith(
        "a rollout was not delivered, its worker begins new games: worker 0 (incarnation 0): " + NONSENSE[what]
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", NONSENSE)
def test_row_24_nonsense_without_end_is_an_error_that_names_the_worker(what: str, mode: str) -> None:
    with collector_of(policy=Nonsense(what), mode=mode) as collector:
        with pytest.raises(QuarantineError) as info:
            batches_of(collector, 100)
        whole = collector.stats()["plies"] // (GAMES * PLIES)
    assert whole >= 1  # the first rollout
    assert str(info.value).startswith("worker 0 (incarnation 0): " + NONSENSE[what])
    assert str(info.value).endswith(
        f"; 4 of {whole + 4} rollouts were not fit to be delivered, at most 1% (and 3) may be"
    )
    assert isinstance(info.value.__cause__, RemoteTraceback)
    assert "in play" in info.value.__cause__.text


# ---- row 25: a game that gives nonsense


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("game", "message"),
    [
        (StuckGame, r"RolloutError: counting: a game continues without a legal move, in position"),
        (EndlessGame, r"RolloutError: counting: a game continues after 10 plies, its max_plies is 10"),
    ],
)
def test_row_25_a_game_that_is_stuck_or_endless_is_a_counted_failure(game: Any, message: str, mode: str) -> None:
    with (
        collector_of(game, mode=mode) as collector,
        pytest.raises(QuarantineError, match=rf"worker 0 \(incarnation 0\): {message}"),
    ):
        for _ in itertools.islice(collector, 100):
            pass


class GameThatCannotBeReset(CountingGame):
    """Its second game cannot begin."""

    def reset(self, indices: NDArray[np.int64] | None = None) -> None:
        if indices is not None:
            raise OSError("the opening book is gone")
        super().reset(indices)


def test_row_25_a_reset_that_raises_is_a_crash_of_its_worker() -> None:
    with collector_of(GameThatCannotBeReset, max_restarts=1) as collector:
        with pytest.raises(
            WorkerCrashLoopError, match="raised OSError: the opening book is gone; its budget of 1"
        ) as info:
            batches_of(collector, 100)
        assert collector.stats()["restarts"] == 1
    assert "in reset" in str(info.value.__cause__)
