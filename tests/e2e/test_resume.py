"""A run that was stopped and goes on is the run that never stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from tensordict import TensorDictBase

from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.parallel import OpponentOptions, SelfPlayCollector
from keisei_lightning.system.stopping import Stopped, StopSignals
from keisei_lightning.training import (
    AtomicCheckpointIO,
    CurvesCallback,
    FinalCheckpoint,
    OrderlyStop,
    PolicyAverage,
    PPOModule,
    SearchTargets,
    SelfPlayDataModule,
    SelfPlayMetrics,
    SnapshotCallback,
    WeightSyncCallback,
)

EPOCHS = 4
GAMES, PLIES = 8, 16
STEPS = 8  # optimiser steps of an epoch: 2 passes of 4 minibatches

# What depends on the clock, or is of the last minute or of the workers' present life, which a resumed run begins anew.
TIMED = (
    "adoption_lag",
    "minutes",
    "_per_s",
    "_wait_s",
    "search_s",
    "publish_ms",
    "self_play/policy_lag",
    "_share",
    "game_length_mean",
    "outcome/",
)


class SignalAtStep(Callback):
    """Sends this process SIGTERM while a step is being taken."""

    def __init__(self, step: int) -> None:
        self._step = step
        self.sent = False

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.global_step + 1 == self._step:
            self.sent = True
            os.kill(os.getpid(), signal.SIGTERM)


class SignalInMinibatch(Callback):
    """Sends this process SIGTERM while the n-th minibatch of all is learned from."""

    def __init__(self, number: int) -> None:
        self._left = number

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


class SignalledCollector(SelfPlayCollector):
    """Sends this process SIGTERM when its n-th rollout has been played and counted, but not handed over."""

    signal_at = 0

    def _next_batch(self) -> TensorDictBase:
        batch = super()._next_batch()
        self.signal_at -= 1
        if self.signal_at == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch


class Parts:
    """A small run of tic-tac-toe, with schedules, clipping and random numbers of a user's own."""

    def __init__(
        self, folder: Path, *, max_epochs: int = EPOCHS, seed: int = 3, callbacks: tuple[Callback, ...] = (),
        signal_at: int = 0, constant: bool = False, accumulate: int = 1, share: float = 1.0,
        search: dict[str, Any] | None = None, **collector: Any,
    ) -> None:  # fmt: skip
        torch.manual_seed(seed)
        self.path = folder / "last.ckpt"
        game = game_factory("tic_tac_toe")
        actor_critic = ActorCritic(build_network(game(1).spec, kind="mlp", num_blocks=1, channels=16))
        options = {"mode": "serial", "games_per_worker": GAMES, "plies_per_rollout": PLIES, "zero_copy": True}
        self.collector = SignalledCollector(game, actor_critic, seed=5, **(options | collector))
        self.collector.signal_at = signal_at
        targets = None if search is None else SearchTargets(game, seed=7, **search)
        minibatches = {"minibatch_size": 32, "num_epochs": 2, "advantage_share": share}
        self.data = SelfPlayDataModule(self.collector, **minibatches, seed=7, search_targets=targets)
        schedules = {} if constant else {"final_learning_rate": 1e-4, "final_entropy_coeff": 0.001}
        self.module = PPOModule(actor_critic, learning_rate=1e-2, entropy_coeff=0.1, **schedules)
        self.curves = CurvesCallback(folder)
        self.trainer = Trainer(
            accelerator="cpu",
            max_epochs=max_epochs,
            gradient_clip_val=0.5,
            accumulate_grad_batches=accumulate,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(folder),
            plugins=[AtomicCheckpointIO()],
            callbacks=[
                OrderlyStop(self.path), WeightSyncCallback(), SelfPlayMetrics(), self.curves, *callbacks,
                FinalCheckpoint(self.path),
            ],
        )  # fmt: skip

    def fit(self, ckpt_path: Path | None = None) -> None:
        self.trainer.fit(self.module, datamodule=self.data, ckpt_path=ckpt_path, weights_only=True)

    def fit_until_stopped(self) -> None:
        with StopSignals(), pytest.raises((Stopped, SIGTERMException)):
            self.fit()

    def metrics(self) -> list[dict[str, float]]:
        return [
            {name: value for name, value in row.items() if not any(part in name for part in TIMED)}
            for row in self.curves.history
        ]


def loaded(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def assert_same_run(resumed: Parts, whole: Parts) -> None:
    """To the last bit: weights, optimiser, metrics of each epoch, counters, and the games that were going on."""
    ours, theirs = loaded(resumed.path), loaded(whole.path)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "SelfPlayDataModule"):
        assert_same(ours[key], theirs[key], key)
    assert_same(ours["keisei_resume"]["random_state"], theirs["keisei_resume"]["random_state"], "random_state")
    assert len(resumed.metrics()) == EPOCHS
    for ours, theirs in zip(resumed.metrics(), whole.metrics(), strict=True):
        assert_same(ours, theirs, f"metrics of epoch {theirs['epoch']:.0f}")


def assert_same(ours: Any, theirs: Any, where: str) -> None:
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(one, other, f"{where}.{index}")
    else:
        assert ours == theirs, where


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    parts = Parts(tmp_path_factory.mktemp("whole"))
    parts.fit()
    return parts


def test_two_epochs_and_then_two_more_are_four(tmp_path: Path) -> None:
    # Schedules run to the end that was planned, so that here there are none.
    whole = Parts(tmp_path / "whole", constant=True)
    whole.fit()
    first = Parts(tmp_path / "first", max_epochs=2, constant=True)
    first.fit()
    resumed = Parts(tmp_path / "resumed", constant=True, seed=99)
    resumed.fit(first.path)
    assert loaded(first.path)["global_step"] == 2 * STEPS
    assert_same_run(resumed, whole)


@pytest.mark.parametrize("step", [1, STEPS, STEPS + 3, 3 * STEPS - 1], ids=lambda step: f"step {step}")
def test_sigterm_in_any_step_changes_nothing(step: int, tmp_path: Path, whole: Parts) -> None:
    asked = SignalAtStep(step)
    first = Parts(tmp_path / "first", callbacks=(asked,))
    first.fit_until_stopped()
    assert asked.sent
    assert loaded(first.path)["global_step"] == step
    resumed = Parts(tmp_path / "resumed", seed=99)
    resumed.fit(first.path)
    assert_same_run(resumed, whole)


@pytest.fixture(scope="module")
def whole_of_groups(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """A run that takes a step after every three minibatches, and after the last two of an epoch."""
    parts = Parts(tmp_path_factory.mktemp("whole of groups"), accumulate=3)
    parts.fit()
    return parts


@pytest.mark.parametrize("number", [2, 3, 4, STEPS + 5, 2 * STEPS - 1, 2 * STEPS], ids=lambda n: f"minibatch {n}")
def test_sigterm_inside_a_group_of_minibatches_changes_nothing(
    number: int, tmp_path: Path, whole_of_groups: Parts
) -> None:
    first = Parts(tmp_path / "first", callbacks=(SignalInMinibatch(number),), accumulate=3)
    first.fit_until_stopped()
    resumed = Parts(tmp_path / "resumed", seed=99, accumulate=3)
    resumed.fit(first.path)
    assert_same_run(resumed, whole_of_groups)


@pytest.mark.parametrize("step", [STEPS, STEPS + 3, 3 * STEPS], ids=lambda step: f"step {step}")
def test_games_against_snapshots_resume_as_if_there_had_been_no_stop(step: int, tmp_path: Path) -> None:
    def parts(name: str, *callbacks: Callback) -> Parts:
        pool = OpponentOptions(share=0.5, max_snapshots=2, choice="prioritised")
        return Parts(tmp_path / name, callbacks=(SnapshotCallback(1), *callbacks), opponents=pool)

    whole = parts("whole")
    whole.fit()
    first = parts("first", SignalAtStep(step))
    first.fit_until_stopped()
    resumed = parts("resumed")
    resumed.fit(first.path)
    assert_same_run(resumed, whole)
    ring = loaded(whole.path)["SelfPlayDataModule"]["collector"]["opponents"]["ring"]
    assert sum(snapshot["games"] for snapshot in ring) > 0


@pytest.mark.parametrize("step", [1, 3, 4, 7], ids=lambda step: f"step {step}")
def test_a_run_that_learns_from_half_of_its_plies_resumes_as_if_there_had_been_no_stop(
    step: int, tmp_path: Path
) -> None:
    whole = Parts(tmp_path / "whole", share=0.5)
    whole.fit()
    assert whole.trainer.global_step == EPOCHS * STEPS // 2
    first = Parts(tmp_path / "first", callbacks=(SignalAtStep(step),), share=0.5)
    first.fit_until_stopped()
    resumed = Parts(tmp_path / "resumed", seed=99, share=0.5)
    resumed.fit(first.path)
    assert_same_run(resumed, whole)


@pytest.mark.parametrize("step", [1, STEPS, STEPS + 3], ids=lambda step: f"step {step}")
def test_averaged_weights_resume_as_if_there_had_been_no_stop(step: int, tmp_path: Path, whole: Parts) -> None:
    averaged = Parts(tmp_path / "averaged", callbacks=(PolicyAverage(share=0.2),))
    averaged.fit()
    first = Parts(tmp_path / "first", callbacks=(PolicyAverage(share=0.2), SignalAtStep(step)))
    first.fit_until_stopped()
    resumed = Parts(tmp_path / "resumed", callbacks=(PolicyAverage(share=0.2),), seed=99)
    resumed.fit(first.path)
    assert_same_run(resumed, averaged)
    for key in ("current_model_state", "averaging_state"):
        assert_same(loaded(resumed.path)[key], loaded(averaged.path)[key], key)
    # What is trained is what is trained without an average.
    assert_same(loaded(averaged.path)["current_model_state"], loaded(whole.path)["state_dict"], "weights")
    assert averaged.metrics() == whole.metrics()


def test_a_checkpoint_of_the_end_goes_on_with_the_weights_that_were_trained(tmp_path: Path) -> None:
    whole = Parts(tmp_path / "whole", constant=True, callbacks=(PolicyAverage(),))
    whole.fit()
    first = Parts(tmp_path / "first", max_epochs=2, constant=True, callbacks=(PolicyAverage(),))
    first.fit()  # FinalCheckpoint stands behind the average, and saves when the module has it
    content = loaded(first.path)
    assert_same(first.module.state_dict(), content["state_dict"], "average")
    assert any(
        not torch.equal(each, content["current_model_state"][name]) for name, each in content["state_dict"].items()
    )
    resumed = Parts(tmp_path / "resumed", constant=True, seed=99, callbacks=(PolicyAverage(),))
    resumed.fit(first.path)
    assert_same_run(resumed, whole)


@pytest.mark.parametrize("step", [STEPS, 2 * STEPS, 2 * STEPS + 3], ids=lambda step: f"step {step}")
def test_searches_and_what_they_found_resume_as_if_there_had_been_no_stop(step: int, tmp_path: Path) -> None:
    def parts(name: str, *callbacks: Callback) -> Parts:
        search = {"from_fraction": 0.5, "games": 4, "simulations": 8, "share": 0.2, "window": 40, "minibatch_size": 16}
        return Parts(tmp_path / name, callbacks=callbacks, search=search)

    whole = parts("whole")
    whole.fit()
    first = parts("first", SignalAtStep(step))
    first.fit_until_stopped()
    resumed = parts("resumed")
    resumed.fit(first.path)
    assert_same_run(resumed, whole)
    assert [row["self_play/search_window"] for row in whole.metrics()] == [0, 0, 24, 40]
    (state,) = loaded(whole.path)["SelfPlayDataModule"]["search_targets"]
    assert len(state["window"]["value"]) == 40
    assert len(state["histories"]) == 4


def test_sigterm_while_the_learner_waits_changes_nothing(tmp_path: Path, whole: Parts) -> None:
    first = Parts(tmp_path / "first", signal_at=3)
    first.fit_until_stopped()
    assert first.collector.signal_at == 0
    assert loaded(first.path)["global_step"] == 2 * STEPS
    assert loaded(first.path)["SelfPlayDataModule"]["collector"]["plies"] == 2 * GAMES * PLIES
    resumed = Parts(tmp_path / "resumed", seed=99)
    resumed.fit(first.path)
    assert_same_run(resumed, whole)


def test_being_stopped_twice_changes_nothing(tmp_path: Path, whole: Parts) -> None:
    first = Parts(tmp_path / "first", callbacks=(SignalAtStep(3),))
    first.fit_until_stopped()
    second = Parts(tmp_path / "second", callbacks=(SignalAtStep(6),))
    with StopSignals(), pytest.raises(SIGTERMException):
        second.fit(first.path)
    assert loaded(second.path)["global_step"] == 6
    resumed = Parts(tmp_path / "resumed")
    resumed.fit(second.path)
    assert_same_run(resumed, whole)


@pytest.mark.process
@pytest.mark.parametrize("step", [STEPS, STEPS + 3], ids=lambda step: f"step {step}")
def test_worker_processes_resume_their_counts(step: int, tmp_path: Path) -> None:
    first = Parts(tmp_path / "first", callbacks=(SignalAtStep(step),), mode="workers", num_workers=2)
    first.fit_until_stopped()
    resumed = Parts(tmp_path / "resumed", mode="workers", num_workers=2)
    resumed.fit(first.path)
    content = loaded(resumed.path)
    plies = 2 * GAMES * PLIES
    assert content["global_step"] == EPOCHS * STEPS * 2
    assert content["SelfPlayDataModule"]["iteration"] == EPOCHS
    collector = content["SelfPlayDataModule"]["collector"]
    assert collector["plies"] == EPOCHS * plies
    assert collector["policy_version"] == EPOCHS
    rows = resumed.metrics()
    assert [row["self_play/plies"] for row in rows] == [plies * (epoch + 1) for epoch in range(EPOCHS)]
    games = [row["self_play/games"] for row in rows]
    assert games == sorted(games)
    assert games[-1] == collector["games"]


def test_nothing_is_saved_where_nothing_was_learned(tmp_path: Path) -> None:
    first = Parts(tmp_path / "first", callbacks=(SignalAtStep(STEPS),))
    first.fit_until_stopped()
    again = Parts(tmp_path / "again", signal_at=1)
    with StopSignals(), pytest.raises(Stopped):
        again.fit(first.path)
    assert again.collector.signal_at == 0
    assert not again.path.exists()  # it would be newer than the first, and hold no more
