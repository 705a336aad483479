"""Anybody's own Trainer: the players get what is learned, and one data module serves any number of fits."""

from __future__ import annotations

import inspect
import signal
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import TinyNetwork, counting_game
from lightning.pytorch.callbacks import Callback, LearningRateFinder
from torch import Tensor, nn
from tqdm.auto import tqdm
from training_fakes import NotingModule, PlayingModule, quiet_trainer

from keisei_lightning.errors import CollectorClosedError, ConfigError
from keisei_lightning.games import Game, game_factory
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.training import PPOModule, SelfPlayDataModule, WeightSyncCallback

tqdm.get_lock()  # what all bars of an interpreter share: the learning rate finder's test is not to leave it behind

SMALL: dict[str, Any] = {"mode": "serial", "games_per_worker": 4, "plies_per_rollout": 8}


class Publishes(Callback):
    """Somebody's own way to publish, and nothing of ours."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.datamodule.collector.update_policy_weights_()


class Raises(Callback):
    """Raises at the end of minibatch ``at``, once."""

    def __init__(self, error: BaseException, *, at: int) -> None:
        self._error, self._left = error, at

    def on_train_batch_end(self, *args: Any) -> None:
        self._left -= 1
        if self._left == 0:
            raise self._error


class Learns(PlayingModule):
    """Somebody's own module: its policy learns, and publishing is somebody else's business."""

    def training_step(self, minibatch: Any, batch_idx: int) -> Tensor:
        return self.actor_critic(minibatch["observation"])[1].mean()


class NineCells(nn.Module):
    """Tic-tac-toe: uint8 [B, 3, 3, 3] to logits [B, 9] and value [B, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(27, 10)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        out = self.linear(observation.flatten(1).float())
        return out[:, :9], out[:, 9:].tanh()


def parts(**options: Any) -> tuple[ActorCritic, SelfPlayDataModule]:
    policy = ActorCritic(TinyNetwork())
    collector = SelfPlayCollector(counting_game(), policy, **{**SMALL, **options})
    return policy, SelfPlayDataModule(collector, minibatch_size=16, num_epochs=1)


def ppo(policy: ActorCritic, **options: Any) -> PPOModule:
    return PPOModule(policy, **{"learning_rate": 0.05, **options})


# ---- the players get what is learned


def test_ppo_brings_the_callback_that_publishes(tmp_path: Path) -> None:
    policy, data = parts()
    trainer = quiet_trainer(tmp_path, max_epochs=4)
    trainer.fit(ppo(policy), datamodule=data)
    assert data.collector.policy_version == 4
    assert sum(isinstance(callback, WeightSyncCallback) for callback in trainer.callbacks) == 1


@pytest.mark.parametrize("kind", [WeightSyncCallback, type("Own", (WeightSyncCallback,), {})])
def test_the_users_own_callback_is_kept_and_stays_the_only_one(kind: type, tmp_path: Path) -> None:
    policy, data = parts()
    own = kind(every_n_steps=1)
    trainer = quiet_trainer(tmp_path, max_epochs=3, callbacks=[own])
    for epochs in (3, 5):
        trainer.fit_loop.max_epochs = epochs
        trainer.fit(ppo(policy), datamodule=data)
    assert [callback for callback in trainer.callbacks if isinstance(callback, WeightSyncCallback)] == [own]
    assert data.collector.policy_version == 2 * 5  # two minibatches an epoch


@pytest.mark.slow
def test_several_trainers_have_a_callback_each(tmp_path: Path) -> None:
    policy, data = parts()
    module = ppo(policy)
    for fits in (1, 2, 3):
        quiet_trainer(tmp_path, max_epochs=2).fit(module, datamodule=data)
        assert data.collector.policy_version == 2 * fits


def test_nothing_is_brought_where_there_is_no_collector() -> None:
    assert ppo(ActorCritic(TinyNetwork())).configure_callbacks() == []


def test_a_collector_with_another_policy_is_refused(tmp_path: Path) -> None:
    _, data = parts()
    with pytest.raises(
        ConfigError,
        match=r"^collector: its policy is not the one that PPOModule learns \(network\..* is another object\)",
    ):
        quiet_trainer(tmp_path).fit(ppo(ActorCritic(TinyNetwork())), datamodule=data)


def test_a_policy_of_which_the_module_learns_a_part_only_is_refused(tmp_path: Path) -> None:
    policy, data = parts()
    other = ActorCritic(TinyNetwork())
    other.network.linear.bias = policy.network.linear.bias  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="is another object"):
        quiet_trainer(tmp_path).fit(ppo(other), datamodule=data)


def test_a_wrapped_policy_is_the_same_one(tmp_path: Path) -> None:
    policy = ActorCritic(TinyNetwork())
    collector = SelfPlayCollector(counting_game(), policy.as_policy(), **SMALL)
    data = SelfPlayDataModule(collector, minibatch_size=16, num_epochs=1)
    quiet_trainer(tmp_path, max_epochs=2).fit(ppo(policy), datamodule=data)
    assert collector.policy_version == 2


def test_a_module_that_publishes_nothing_is_stopped_before_its_second_iteration(tmp_path: Path) -> None:
    module = Learns()
    collector = SelfPlayCollector(counting_game(), module.actor_critic, **SMALL)
    data = SelfPlayDataModule(collector, minibatch_size=16, num_epochs=1)
    with pytest.raises(ConfigError, match=r"^callbacks: after 2 optimiser steps the players still have the weights"):
        quiet_trainer(tmp_path, max_epochs=2).fit(module, datamodule=data)


def test_a_module_may_publish_in_its_own_way(tmp_path: Path) -> None:
    module = Learns()
    collector = SelfPlayCollector(counting_game(), module.actor_critic, **SMALL)
    data = SelfPlayDataModule(collector, minibatch_size=16, num_epochs=1)
    quiet_trainer(tmp_path, max_epochs=3, callbacks=[Publishes()]).fit(module, datamodule=data)
    assert collector.policy_version == 3


def test_the_loader_alone_is_refused(tmp_path: Path) -> None:
    policy, data = parts()
    with pytest.raises(ConfigError, match="give the data module itself"):
        quiet_trainer(tmp_path).fit(ppo(policy), train_dataloaders=data.train_dataloader())


def test_players_play_with_the_learned_weights(tmp_path: Path) -> None:
    policy, data = parts()
    seen: list[Tensor] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:  # the worker's value of each ply, beside the learner's own
                seen.append((pl_module.actor_critic.value(batch["observation"]) - batch["state_value"]).abs().max())

    quiet_trainer(tmp_path, max_epochs=3, callbacks=[Watch()]).fit(ppo(policy), datamodule=data)
    assert torch.stack(seen).tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)


# ---- one data module, several fits


def test_a_second_fit_continues_with_the_same_collector(tmp_path: Path) -> None:
    policy, data = parts()
    for fits in (1, 2):
        quiet_trainer(tmp_path, max_epochs=3).fit(ppo(policy), datamodule=data)
        assert (data.iteration, data.collector.stats()["plies"]) == (3 * fits, 3 * 32 * fits)
        with pytest.raises(CollectorClosedError, match="was shut down"):
            data.collector.start()


def test_two_fits_of_serial_play_are_the_games_of_one(tmp_path: Path) -> None:
    def minibatches(*epochs: int) -> list[list[float]]:
        torch.manual_seed(0)
        rows: list[list[float]] = []

        class Notes(NotingModule):
            def training_step(self, minibatch: Any, batch_idx: int) -> Tensor:
                rows.append(minibatch["observation"].flatten().tolist())
                return self.weight * minibatch["advantage"].mean()

        module = Notes()
        game = game_factory("tic_tac_toe", opening_plies=3)  # its games can be taken up in their middle
        collector = SelfPlayCollector(game, ActorCritic(NineCells()), **SMALL)
        for weight in collector.policy.parameters():
            weight.requires_grad_(False)  # nothing to learn: both play the same games
        data = SelfPlayDataModule(collector, minibatch_size=16, num_epochs=1)
        for count in epochs:
            quiet_trainer(tmp_path, max_epochs=count).fit(module, datamodule=data)
        return rows

    assert minibatches(2, 2) == minibatches(4)


def test_fit_then_validate_then_fit(tmp_path: Path) -> None:
    class Validates(PPOModule):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("value", self.actor_critic.value(batch[0]).mean())

    class Data(SelfPlayDataModule):
        def val_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(
                torch.utils.data.TensorDataset(torch.zeros(4, 2, 1, 1, dtype=torch.uint8)), batch_size=4
            )

    policy = ActorCritic(TinyNetwork())
    module = Validates(policy)
    data = Data(SelfPlayCollector(counting_game(), policy, **SMALL), minibatch_size=16, num_epochs=1)
    trainer = quiet_trainer(tmp_path, max_epochs=2)
    trainer.validate(module, datamodule=data)
    trainer.fit(module, datamodule=data)
    trainer.validate(module, datamodule=data)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, datamodule=data)
    assert (data.iteration, data.collector.policy_version) == (4, 4)


@pytest.mark.parametrize("error", [ValueError("on purpose"), KeyboardInterrupt()])
def test_a_fit_after_one_that_was_interrupted(error: BaseException, tmp_path: Path) -> None:
    policy, data = parts()
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises((ValueError, SystemExit)):
            quiet_trainer(tmp_path, callbacks=[Raises(error, at=3)]).fit(ppo(policy), datamodule=data)
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored
    assert not data.collector.is_healthy()  # type: ignore[attr-defined]  # shut down
    quiet_trainer(tmp_path, max_epochs=2).fit(ppo(policy), datamodule=data)
    assert (data.iteration, data.collector.stats()["plies"]) == (4, 4 * 32)


def test_a_rollout_that_ctrl_c_interrupted_is_played_again(tmp_path: Path) -> None:
    policy, data = parts()
    interrupt = [5]  # plies until then: in the middle of the first rollout

    def count(step: int) -> None:
        interrupt[0] -= 1
        if interrupt[0] == 0:
            raise KeyboardInterrupt

    collector = SelfPlayCollector(counting_game(before_step=count), policy, **SMALL)
    data = SelfPlayDataModule(collector, minibatch_size=16, num_epochs=1)
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):
            quiet_trainer(tmp_path).fit(ppo(policy), datamodule=data)
    finally:
        signal.signal(signal.SIGINT, handler)
    quiet_trainer(tmp_path, max_epochs=2).fit(ppo(policy), datamodule=data)
    assert (data.iteration, collector.plies) == (2, 64)


def test_the_same_module_resumes_from_its_own_checkpoint(tmp_path: Path) -> None:
    policy, data = parts()
    module = ppo(policy)
    first = quiet_trainer(tmp_path, max_epochs=2)
    first.fit(module, datamodule=data)
    first.save_checkpoint(tmp_path / "two.ckpt")
    weights = [weight.detach().clone() for weight in policy.parameters()]
    quiet_trainer(tmp_path, max_epochs=1).fit(module, datamodule=data)  # leads elsewhere
    last = quiet_trainer(tmp_path, max_epochs=3)
    last.fit(module, datamodule=data, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    assert (data.iteration, data.collector.stats()["plies"], last.global_step) == (3, 96, 6)
    assert data.collector.policy_version == 3
    assert any(not torch.equal(old, new) for old, new in zip(weights, policy.parameters(), strict=True))


def test_a_collector_that_plays_already_is_restored_from_a_checkpoint(tmp_path: Path) -> None:
    policy, data = parts()
    first = quiet_trainer(tmp_path, max_epochs=2)
    first.fit(ppo(policy), datamodule=data)
    first.save_checkpoint(tmp_path / "two.ckpt")
    other, again = parts()
    next(iter(again.collector))  # tried by hand before the fit
    last = quiet_trainer(tmp_path, max_epochs=3)
    last.fit(ppo(other), datamodule=again, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    assert (again.iteration, again.collector.stats()["plies"]) == (3, 96)


@pytest.mark.parametrize("final", [None, 2e-5])
@pytest.mark.slow
def test_lightnings_learning_rate_finder_works(final: float | None, tmp_path: Path) -> None:
    policy, data = parts()
    module = ppo(policy, learning_rate=0.5, final_learning_rate=final)
    rates: list[float] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    finder = LearningRateFinder(min_lr=1e-4, max_lr=0.1, num_training_steps=16, early_stop_threshold=None)
    trainer = quiet_trainer(tmp_path, max_epochs=8, callbacks=[finder, Watch()])
    trainer.fit(module, datamodule=data)
    assert finder.optimal_lr is not None
    assert len(finder.optimal_lr.results["lr"]) == 16
    assert 1e-4 <= module.learning_rate <= 0.1
    assert (trainer.global_step, data.iteration, data.collector.stats()["plies"]) == (16, 8, 256)
    assert data.collector.policy_version == 8
    assert list(tmp_path.glob(".lr_find*")) == []
    found, last = module.learning_rate, module.learning_rate if final is None else final
    assert rates == pytest.approx([found + (last - found) * (step + 1) / 16 for step in range(16)])


# ---- the data module makes the collector


def test_the_data_module_makes_its_collector_around_the_modules_policy(tmp_path: Path) -> None:
    options = {**SMALL, "opponents": {"share": 0.5}}
    data = SelfPlayDataModule(
        game="tic_tac_toe",
        game_options={"opening_plies": 2},
        collector_options=options,
        minibatch_size=16,
        num_epochs=1,
    )
    assert not hasattr(data, "collector")
    module = ppo(ActorCritic(NineCells()))
    for fits in (1, 2):
        quiet_trainer(tmp_path, max_epochs=2).fit(module, datamodule=data)
        assert (data.iteration, data.collector.policy_version) == (2 * fits, 2 * fits)
    assert isinstance(data.collector, SelfPlayCollector)
    assert data.collector.policy is module.actor_critic
    assert data.collector.snapshots == []
    other = ppo(ActorCritic(NineCells()))
    quiet_trainer(tmp_path, max_epochs=1).fit(other, datamodule=data)
    assert data.collector.policy is other.actor_critic
    assert data.iteration == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({}, "game=None: must be given without a collector, or a collector without it"),
        ({"game": "tic_tac_toe", "minibatch_size": 0}, "minibatch_size=0: must be a whole number, 1 or more"),
        (
            {"game": counting_game(), "game_options": {"goal": 3}},
            "game_options={'goal': 3}: must be given with a game's",
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SelfPlayDataModule(**arguments)
    assert caught.value.errors[0].startswith(line)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_wokers": 3}, "collector_options: .*num_wokers"),
        ({**SMALL, "plies_per_rollout": 2}, "minibatch_size=16: must be from 1 to 8, the plies of one rollout"),
    ],
)
def test_options_of_the_collector_are_checked_before_anything_is_played(
    options: dict[str, Any], line: str, tmp_path: Path
) -> None:
    data = SelfPlayDataModule(game=counting_game(), collector_options=options, minibatch_size=16)
    with pytest.raises(ConfigError, match=line):
        quiet_trainer(tmp_path).fit(ppo(ActorCritic(TinyNetwork())), datamodule=data)


def test_a_module_without_a_policy_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    data = SelfPlayDataModule(game=counting_game(), collector_options=SMALL, minibatch_size=16)
    with pytest.raises(ConfigError, match=r"^SelfPlayDataModule: NotingModule must have the policy as `actor_critic`"):
        quiet_trainer(tmp_path).fit(NotingModule(), datamodule=data)


def test_every_argument_of_the_data_module_has_a_type_that_resolves() -> None:
    """What LightningCLI needs to fill it from a configuration file."""
    hints = typing.get_type_hints(SelfPlayDataModule.__init__)
    arguments = set(inspect.signature(SelfPlayDataModule).parameters)
    assert set(hints) - {"return"} == arguments
    assert hints["game"] == str | Callable[[int], Game] | None
