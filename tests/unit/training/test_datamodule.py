from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes import MirrorGame
from lightning.pytorch import Callback
from training_fakes import FakeCollector, FourByteNetwork, NotingModule, ply_numbers, quiet_trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.models import ActorCritic, LegalCategorical, build_network
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.training import PPOModule, SelfPlayDataModule, WeightSyncCallback
from keisei_lightning.training.minibatches import add_advantages
from keisei_lightning.training.options import MinibatchOptions


def data_module(collector: FakeCollector, **options: Any) -> SelfPlayDataModule:
    return SelfPlayDataModule(collector, **({"minibatch_size": 10, "num_epochs": 3} | options))


def test_an_epoch_covers_each_ply_exactly_num_epochs_times(tmp_path: Path) -> None:
    module = NotingModule()
    quiet_trainer(tmp_path, max_epochs=2).fit(module, datamodule=data_module(FakeCollector()))
    seen = Counter(ply for minibatch in module.minibatches for ply in minibatch)
    assert seen == {(rollout, ply): 3 for rollout in (1, 2) for ply in range(32)}
    assert [len(minibatch) for minibatch in module.minibatches] == 6 * [8, 8, 8, 8]


@pytest.mark.parametrize("trainable_share", [1.0, 0.5])
def test_with_a_share_only_the_plies_with_the_largest_advantages_are_learned_from(
    trainable_share: float, tmp_path: Path
) -> None:
    rollout = FakeCollector(trainable_share=trainable_share).rollout(1)
    options = {"gamma": 0.9, "lmbda": 0.8}
    plies, trainable = add_advantages(rollout, normalize=True, **options)
    sizes = plies["advantage"].squeeze(-1).abs()
    expected = sorted(trainable.tolist(), key=lambda ply: -float(sizes[ply]))[: int(len(trainable) * 0.25)]
    module = NotingModule()
    data = data_module(
        FakeCollector(trainable_share=trainable_share), minibatch_size=4, advantage_share=0.25, **options
    )
    quiet_trainer(tmp_path, max_epochs=1).fit(module, datamodule=data)
    assert len(expected) == 8 * trainable_share
    seen = Counter(ply for minibatch in module.minibatches for ply in minibatch)
    assert seen == {(1, ply): 3 for ply in expected}
    assert len(module.minibatches) == data.num_minibatches * 3 == 6


def test_nothing_is_collected_before_the_first_minibatch_is_asked_for() -> None:
    collector = FakeCollector()
    data = data_module(collector)
    loader = data.train_dataloader()
    iterator = iter(loader)
    assert len(loader) == 12
    assert collector.events == []
    next(iterator)
    assert collector.events == ["collect"]


def test_a_rollout_is_asked_for_only_after_the_weights_before_it_were_published(tmp_path: Path) -> None:
    collector = FakeCollector()
    trainer = quiet_trainer(tmp_path, max_epochs=3, callbacks=[WeightSyncCallback()])
    trainer.fit(NotingModule(), datamodule=data_module(collector))
    assert collector.events == ["publish", *(3 * ["collect", "publish"]), "shutdown"]


def test_reloading_the_loader_every_epoch_restarts_nothing(tmp_path: Path) -> None:
    collector = FakeCollector()
    trainer = quiet_trainer(tmp_path, max_epochs=3, reload_dataloaders_every_n_epochs=1)
    trainer.fit(NotingModule(), datamodule=data_module(collector))
    assert collector.events == ["collect", "collect", "collect", "shutdown"]


def test_the_workers_stop_when_training_raises(tmp_path: Path) -> None:
    collector = FakeCollector()
    module = NotingModule(fail_at=(2, ValueError("on purpose")))
    with pytest.raises(ValueError, match="on purpose"):
        quiet_trainer(tmp_path).fit(module, datamodule=data_module(collector))
    assert collector.events == ["collect", "shutdown"]


def test_the_workers_stop_on_ctrl_c(tmp_path: Path) -> None:
    collector = FakeCollector()
    module = NotingModule(fail_at=(2, KeyboardInterrupt()))
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):
            quiet_trainer(tmp_path).fit(module, datamodule=data_module(collector))
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored
    assert collector.events == ["collect", "shutdown"]


def test_the_end_of_a_validation_does_not_stop_the_workers() -> None:
    collector = FakeCollector()
    data_module(collector).teardown("validate")
    assert collector.events == []
    data_module(collector).teardown("fit")
    assert collector.events == ["shutdown"]


def test_a_collector_that_has_delivered_all_ends_the_training(tmp_path: Path) -> None:
    module = NotingModule()
    trainer = quiet_trainer(tmp_path, max_epochs=100)
    trainer.fit(module, datamodule=data_module(FakeCollector(num_rollouts=2)))
    assert trainer.global_step == 2 * 12
    assert trainer.current_epoch < 4


@pytest.mark.parametrize(
    ("options", "steps", "rollouts"),
    [
        ({"limit_train_batches": 5}, 10, 2),
        ({"limit_train_batches": 0.5}, 12, 2),
        ({"fast_dev_run": True}, 1, 1),
        ({"max_steps": 15, "max_epochs": -1}, 15, 2),
        ({"accumulate_grad_batches": 5}, 6, 2),
    ],
)
def test_the_trainers_limits_mean_what_they_say(
    tmp_path: Path, options: dict[str, Any], steps: int, rollouts: int
) -> None:
    collector = FakeCollector()
    trainer = quiet_trainer(tmp_path, **options)
    trainer.fit(NotingModule(), datamodule=data_module(collector))
    assert trainer.global_step == steps
    assert collector.events.count("collect") == rollouts


def test_overfitting_repeats_the_first_minibatches(tmp_path: Path) -> None:
    collector = FakeCollector()
    module = NotingModule()
    quiet_trainer(tmp_path, overfit_batches=2, max_epochs=3).fit(module, datamodule=data_module(collector))
    assert collector.events.count("collect") == 1
    assert len(module.minibatches) == 6
    assert module.minibatches[:2] == module.minibatches[2:4] == module.minibatches[4:]


def test_a_resumed_run_shuffles_as_one_that_never_stopped() -> None:
    whole = data_module(FakeCollector())
    first, second = (list(map(ply_numbers, whole.train_dataloader())) for _ in range(2))
    stopped = data_module(FakeCollector())
    assert list(map(ply_numbers, stopped.train_dataloader())) == first
    resumed = data_module(FakeCollector())
    resumed.load_state_dict(stopped.state_dict())
    assert list(map(ply_numbers, resumed.train_dataloader())) == second


def test_options_out_of_bounds_are_refused_a_line_each() -> None:
    with pytest.raises(ConfigError) as caught:
        data_module(FakeCollector(), minibatch_size=0, num_epochs=0, gamma=1.5, seed=-1)
    assert caught.value.errors == (
        "gamma=1.5: must be a number, from 0 to 1",
        "epochs=0: must be a whole number, from 1 to 100",
        "minibatch_size=0: must be a whole number, 1 or more",
        "seed=-1: must be 0 or more",
    )
    with pytest.raises(ConfigError) as caught:
        data_module(FakeCollector(), minibatch_size=33, seed=-1)
    assert caught.value.errors == (
        "minibatch_size=33: must be from 1 to 32, the plies of one rollout",
        "seed=-1: must be 0 or more",
    )


def test_options_are_given_as_an_object_or_by_name_and_a_name_counts_more() -> None:
    options = MinibatchOptions(minibatch_size=8, epochs=7, gamma=0.5)
    data = SelfPlayDataModule(FakeCollector(), options, gamma=0.9)
    assert data.options == MinibatchOptions(minibatch_size=8, epochs=7, gamma=0.9)
    assert (data.num_epochs, SelfPlayDataModule(FakeCollector(), options, num_epochs=3).num_epochs) == (7, 3)
    with pytest.raises(TypeError, match=r"^SelfPlayDataModule has no option 'gama' \(did you mean gamma\?\)$"):
        SelfPlayDataModule(FakeCollector(), gama=0.9)


def test_several_learners_whose_strategy_shards_the_weights_are_refused_before_anything_is_played() -> None:
    collector = FakeCollector()
    data = data_module(collector)
    data.trainer = SimpleNamespace(world_size=2, strategy=object())  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"^trainer\.strategy=object: must be ddp with 2 learners, each of which "):
        data.setup("fit")
    assert collector.events == []


def test_decoupling_needs_a_module_with_a_policy() -> None:
    data = SelfPlayDataModule(FakeCollector(), minibatch_size=8, decoupled=True)
    with pytest.raises(ConfigError, match="decoupled=True: NoneType must have the policy as `actor_critic`"):
        next(data.iteration_minibatches())


class WatchesFirstRatios(Callback):
    """Keeps the log ratios of each epoch's first minibatch, computed as the loss computes them."""

    def __init__(self) -> None:
        self.proximal: list[torch.Tensor] = []
        self.behaviour: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            with trainer.precision_plugin.train_step_context(), torch.no_grad():
                logits, _ = pl_module.actor_critic(batch["observation"])
            log_prob = LegalCategorical(logits, batch["action_mask"]).log_prob(batch["action"])
            self.proximal.append(log_prob - batch.get("proximal_log_prob", batch["action_log_prob"]))
            self.behaviour.append(log_prob - batch["action_log_prob"])


def test_decoupled_minibatches_carry_the_learners_own_log_probabilities(tmp_path: Path) -> None:
    watch = WatchesFirstRatios()
    trainer = quiet_trainer(tmp_path, max_epochs=2, callbacks=[watch])
    # The fake's behaviour policy is another one: its log-probabilities are all zero.
    data = SelfPlayDataModule(FakeCollector(trainable_share=0.5), minibatch_size=8, decoupled=True)
    trainer.fit(PPOModule(ActorCritic(FourByteNetwork())), datamodule=data)
    for proximal, behaviour in zip(watch.proximal, watch.behaviour, strict=True):
        assert proximal.abs().max() < 1e-6
        assert behaviour.max() < -0.1


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_without_lag_the_decoupled_ratio_is_exactly_one_in_the_precision_of_the_loss(
    tmp_path: Path, precision: str
) -> None:
    torch.manual_seed(0)
    actor_critic = ActorCritic(build_network(MirrorGame(1).spec, kind="mlp", num_blocks=2, channels=64))
    collector = SelfPlayCollector(
        MirrorGame, actor_critic, mode="serial", games_per_worker=8, plies_per_rollout=16, seed=3
    )
    watch, metrics = WatchesFirstRatios(), []

    class Keeps(Callback):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            metrics.append(dict(trainer.callback_metrics))

    trainer = quiet_trainer(
        tmp_path, max_epochs=3, precision=precision, callbacks=[WeightSyncCallback(), watch, Keeps()]
    )
    data = SelfPlayDataModule(collector, minibatch_size=32, num_epochs=2, decoupled=True)
    trainer.fit(PPOModule(actor_critic, learning_rate=0.01), datamodule=data)
    assert max(float(ratio.abs().max()) for ratio in watch.proximal) == 0.0
    # The workers play in float32: that a bfloat16 learner is not quite the same policy must not be hidden.
    gap = max(float(ratio.abs().max()) for ratio in watch.behaviour)
    assert gap < 1e-5 if precision == "32-true" else gap > 1e-4
    last = watch.behaviour[-1]
    assert float(metrics[0]["train/first_kl"]) == pytest.approx(-float(last.mean()), abs=1e-6)
    assert float(metrics[0]["train/first_ratio"]) == pytest.approx(float(last.exp().mean()), abs=1e-6)


def test_minibatches_are_gathered_where_the_network_is() -> None:
    data = data_module(FakeCollector())
    module = SimpleNamespace(device=torch.device("meta"))
    data.trainer = SimpleNamespace(lightning_module=module, overfit_batches=0)  # type: ignore[assignment]
    assert {minibatch["observation"].device.type for minibatch in data.train_dataloader()} == {"meta"}
    module.device = torch.device("cpu")
    assert {minibatch["observation"].device.type for minibatch in data.train_dataloader()} == {"cpu"}
