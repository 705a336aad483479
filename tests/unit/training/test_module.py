from __future__ import annotations

import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import TinyNetwork, counting_game
from lightning.pytorch import Callback
from tensordict import TensorDict
from torch import Tensor
from training_fakes import SPEC, FakeCollector, FourByteNetwork, quiet_trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.models import ActorCritic, LegalCategorical, build_network
from keisei_lightning.models.compiling import Evaluator
from keisei_lightning.models.heads import WinDrawLossValue
from keisei_lightning.models.two_heads import TwoHeads
from keisei_lightning.parallel.collector import SelfPlayCollector
from keisei_lightning.training import PPOModule, SelfPlayDataModule, WeightSyncCallback
from keisei_lightning.training.minibatches import add_advantages, add_outcomes
from keisei_lightning.training.optimizer import KLScale, fraction_trained
from keisei_lightning.training.options import PPOOptions


class KeepsMetrics(Callback):
    """Keeps the metrics of each epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._keep(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._keep(trainer)

    def _keep(self, trainer: Any) -> None:
        if trainer.callback_metrics:
            self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def self_play(
    tmp_path: Path, *, epochs: int = 4, compile_mode: str | None = None, **options: Any
) -> tuple[list[dict[str, float]], PPOModule]:
    """Train on the counting game with the real collector in this process."""
    torch.manual_seed(5)
    actor_critic = ActorCritic(TinyNetwork())
    collector = SelfPlayCollector(
        counting_game(), actor_critic, mode="serial", games_per_worker=8, plies_per_rollout=16, seed=3
    )
    metrics = KeepsMetrics()
    trainer = quiet_trainer(tmp_path, max_epochs=epochs, callbacks=[WeightSyncCallback(), metrics], **options)
    module = PPOModule(actor_critic, learning_rate=0.05, compile_mode=compile_mode)
    trainer.fit(module, datamodule=SelfPlayDataModule(collector, minibatch_size=32, num_epochs=3, seed=1))
    return metrics.epochs, module


def minibatch(policy: ActorCritic | None = None) -> TensorDict:
    plies, _ = add_advantages(FakeCollector(policy=policy).rollout(1), gamma=0.9, lmbda=0.8, normalize=True)
    return plies


def module_of(network: torch.nn.Module, **options: Any) -> PPOModule:
    return PPOModule(ActorCritic(network), **options)


def test_the_first_minibatch_after_a_publish_has_ratio_1_and_kl_0(tmp_path: Path) -> None:
    epochs, _ = self_play(tmp_path)
    assert len(epochs) == 4
    for metrics in epochs:
        assert metrics["train/first_ratio"] == pytest.approx(1.0, abs=1e-4)
        assert metrics["train/first_kl"] == pytest.approx(0.0, abs=1e-4)
        assert abs(metrics["train/mean_ratio"] - 1.0) > 1e-6  # the later ones have moved on


@pytest.mark.slow
def test_two_runs_of_one_seed_give_the_same_curves(tmp_path: Path) -> None:
    first, module = self_play(tmp_path)
    second, again = self_play(tmp_path)
    assert first == second
    for weight, other in zip(module.parameters(), again.parameters(), strict=True):
        assert torch.equal(weight, other)


@pytest.mark.slow
def test_the_network_is_compiled_for_the_time_of_a_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[dict[str, Any]] = []
    evaluated: list[int] = []

    def compile_nothing(function: Evaluator, **options: Any) -> Evaluator:
        asked.append(options)

        def evaluate(observation: Tensor) -> tuple[Tensor, Tensor]:
            evaluated.append(len(observation))
            return function(observation)

        return evaluate

    plain, module = self_play(tmp_path)
    monkeypatch.setattr(torch, "compile", compile_nothing)
    with caplog.at_level(logging.INFO):
        compiled, same = self_play(tmp_path, compile_mode="reduce-overhead")
    assert asked == [{"mode": "reduce-overhead", "dynamic": True}]
    assert evaluated == [32] * (4 * 3 * 4)  # epochs, passes, minibatches
    assert caplog.text.count("network compiled (reduce-overhead): the first minibatch took") == 1
    assert list(same.state_dict()) == list(module.state_dict())
    assert compiled == plain
    with SelfPlayCollector(counting_game(), same.actor_critic, mode="serial", games_per_worker=2) as collector:
        plies, _ = add_advantages(next(iter(collector)), gamma=0.9, lmbda=0.8, normalize=True)
    same.training_step(plies, 0)
    assert len(evaluated) == 4 * 3 * 4  # what was compiled has gone with the fit


def test_the_trunk_runs_once_for_each_minibatch() -> None:
    network = FourByteNetwork()
    module_of(network).training_step(minibatch(), 0)
    assert network.calls == 1


def test_a_minibatch_is_left_as_it_came() -> None:
    batch = minibatch()
    keys = set(batch.keys())
    module_of(FourByteNetwork()).training_step(batch, 0)
    assert set(batch.keys()) == keys


class ByBoard(TwoHeads):
    """Says something of its own of each of two boards, by their first byte."""

    def __init__(self) -> None:
        super().__init__("wdl")
        self.head = WinDrawLossValue(2)

    def _evaluate(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        board = torch.nn.functional.one_hot(observation[:, 0].long(), 2).float()
        return torch.zeros(len(observation), 3), self.head(board)


def one_ply_games(rewards: list[list[float]]) -> TensorDict:
    """Games [2, T] of one ply each: row 0 is always played on board 0, row 1 on board 1; these are their results."""
    reward = torch.tensor(rewards).unsqueeze(-1)
    games, plies = reward.shape[:2]
    board = torch.arange(games, dtype=torch.uint8)[:, None, None].expand(games, plies, 4).contiguous()
    zeros, ends, seat = (
        torch.zeros(games, plies, 1),
        torch.ones_like(reward, dtype=torch.bool),
        torch.zeros(games, plies),
    )
    mover = seat.to(torch.int8)
    following = {"reward": reward, "done": ends, "terminated": ends, "truncated": ~ends, "state_value": zeros}
    columns = {
        "observation": board,
        "action_mask": torch.full((games, plies, 1), 0b11100000, dtype=torch.uint8),
        "action": mover.long(),
        "action_log_prob": torch.full((games, plies), -math.log(3)),
        "state_value": zeros,
        "mover": mover,
        "trainable": torch.ones(games, plies, dtype=torch.bool),
        "next": {**following, "mover": mover},
    }
    return TensorDict(columns, batch_size=(games, plies))


def learned_outcomes(rollout: TensorDict, *, with_outcomes: bool) -> Tensor:
    """What a head of win, draw and loss says of the two boards after 150 steps: probabilities [2, 3]."""
    torch.manual_seed(0)
    module = module_of(ByBoard(), entropy_coeff=0.0)
    rates = {"gamma": 0.9, "lmbda": 0.8}
    plies, _ = add_advantages(rollout, normalize=False, **rates)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(150):
        batch = plies
        if with_outcomes:
            batch = add_outcomes(plies, rollout, module.actor_critic.evaluate_outcomes, num_minibatches=2, **rates)
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
    boards = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.uint8)
    return module.actor_critic.evaluate_outcomes(boards)[1].detach().exp()


@pytest.mark.slow
def test_a_win_draw_loss_head_tells_a_sure_draw_from_a_game_that_is_half_won() -> None:
    """Both have the expected score 0; a head that learns through it ends at thirds for both."""
    rollout = one_ply_games([[0.0] * 8, [1.0, -1.0] * 4])
    found = learned_outcomes(rollout, with_outcomes=True)
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]), atol=0.02, rtol=0)
    through_the_score = learned_outcomes(rollout, with_outcomes=False)
    torch.testing.assert_close(through_the_score, torch.full((2, 3), 1 / 3), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_win_draw_loss_head_learns_the_shares_of_the_outcomes_and_so_the_value() -> None:
    found = learned_outcomes(one_ply_games([[1.0, 1.0, 1.0, 0.0, -1.0], [-1.0] * 5]), with_outcomes=True)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.2, 0.2], [0.0, 0.0, 1.0]]), atol=0.02, rtol=0)


def test_the_data_module_gives_a_win_draw_loss_head_its_targets(tmp_path: Path) -> None:
    """A real training: who is to move with one to three left wins at once, and nobody draws."""
    torch.manual_seed(0)
    game = counting_game(goal=3)
    actor_critic = ActorCritic(build_network(game(1).spec, kind="mlp", num_blocks=1, channels=16, value_head="wdl"))
    collector = SelfPlayCollector(game, actor_critic, mode="serial", games_per_worker=16, plies_per_rollout=8, seed=3)
    trainer = quiet_trainer(tmp_path, max_epochs=12, callbacks=[WeightSyncCallback()])
    data = SelfPlayDataModule(collector, minibatch_size=64, num_epochs=4, gamma=1.0, seed=1)
    trainer.fit(PPOModule(actor_critic, learning_rate=0.02), datamodule=data)
    end = torch.tensor([2, 1], dtype=torch.uint8).view(1, 2, 1, 1)  # one is left
    win, draw, loss = actor_critic.evaluate_outcomes(end)[1].exp()[0].tolist()
    assert win > 0.9
    assert draw < 0.05
    assert loss < 0.05


def test_metrics_are_logged_once_an_epoch(tmp_path: Path) -> None:
    epochs, _ = self_play(tmp_path, epochs=2, gradient_clip_val=0.5)
    names = "loss_objective loss_critic loss_entropy entropy kl_approx clip_fraction ESS mean_ratio explained_variance"
    names += " first_kl first_ratio grad_norm learning_rate entropy_coeff"
    assert {f"train/{name}" for name in names.split()} == set(epochs[0])
    assert 0.0 < epochs[0]["train/ESS"] <= 1.0
    assert 0.0 < epochs[0]["train/entropy"] <= math.log(3) + 1e-6


def test_a_game_whose_targets_do_not_vary_has_no_explained_variance(tmp_path: Path) -> None:
    class Undecided(FakeCollector):
        def rollout(self, number: int) -> TensorDict:
            rollout = super().rollout(number)
            for key in ("state_value", ("next", "reward"), ("next", "state_value")):
                rollout[key] = torch.zeros_like(rollout[key])
            return rollout

    actor_critic = ActorCritic(FourByteNetwork())
    metrics = KeepsMetrics()
    trainer = quiet_trainer(tmp_path, max_epochs=2, callbacks=[metrics])
    data = SelfPlayDataModule(Undecided(policy=actor_critic), minibatch_size=8, num_epochs=1)
    trainer.fit(PPOModule(actor_critic), datamodule=data)
    assert [set(epoch) & {"train/explained_variance", "train/ESS"} for epoch in metrics.epochs] == [{"train/ESS"}] * 2


def test_gradients_are_clipped_to_the_trainers_value(tmp_path: Path) -> None:
    class Watches(Callback):
        norms: tuple[float, ...] = ()

        def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            gradients = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
            if gradients:
                self.norms += (torch.cat([gradient.flatten() for gradient in gradients]).norm().item(),)

    actor_critic = ActorCritic(FourByteNetwork())
    watch = Watches()
    trainer = quiet_trainer(tmp_path, max_epochs=1, gradient_clip_val=0.01, callbacks=[watch])
    data = SelfPlayDataModule(FakeCollector(policy=actor_critic), minibatch_size=8, num_epochs=1)
    trainer.fit(PPOModule(actor_critic), datamodule=data)
    assert watch.norms
    assert max(watch.norms) <= 0.01 + 1e-6


def test_learning_rate_and_entropy_go_linearly_to_their_ends(tmp_path: Path) -> None:
    actor_critic = ActorCritic(FourByteNetwork())
    metrics = KeepsMetrics()
    trainer = quiet_trainer(tmp_path, max_epochs=4, callbacks=[metrics])
    data = SelfPlayDataModule(FakeCollector(policy=actor_critic), minibatch_size=8, num_epochs=1)
    module = PPOModule(
        actor_critic, learning_rate=0.01, final_learning_rate=0.002, entropy_coeff=0.1, final_entropy_coeff=0.02
    )
    trainer.fit(module, datamodule=data)
    rates = [epoch["train/learning_rate"] for epoch in metrics.epochs]
    entropies = [epoch["train/entropy_coeff"] for epoch in metrics.epochs]
    assert rates == pytest.approx([0.008, 0.006, 0.004, 0.002])  # after each epoch
    assert entropies == pytest.approx([0.1, 0.08, 0.06, 0.04])  # during each epoch


@pytest.mark.parametrize(
    ("kl_target", "direction"),
    [(1e-9, -1), (1e9, 1), (None, 0)],
    ids=["far above the target", "far below it", "no target"],
)
def test_the_learning_rate_follows_the_kl_target(tmp_path: Path, kl_target: float | None, direction: int) -> None:
    actor_critic = ActorCritic(FourByteNetwork())
    metrics = KeepsMetrics()
    trainer = quiet_trainer(tmp_path, max_epochs=4, callbacks=[metrics])
    data = SelfPlayDataModule(FakeCollector(policy=actor_critic), minibatch_size=8, num_epochs=2)
    module = PPOModule(actor_critic, learning_rate=0.01, final_learning_rate=0.002, kl_target=kl_target)
    trainer.fit(module, datamodule=data)
    rates = [epoch["train/learning_rate"] for epoch in metrics.epochs]
    schedule = [0.008, 0.006, 0.004, 0.002]
    assert rates == pytest.approx([rate * 1.5 ** (direction * epoch) for epoch, rate in enumerate(schedule)])


def test_the_adapted_learning_rate_stays_within_a_factor_of_a_hundred() -> None:
    scale = KLScale(0.01)
    for kl, bound in ((1.0, 0.01), (0.0, 100.0)):
        for _ in range(50):
            scale.adapt(kl)
        assert scale.value == pytest.approx(bound)
    for kl in (0.006, 0.019):
        scale.adapt(kl)
        assert scale.value == pytest.approx(100.0)


def test_a_resumed_run_keeps_its_adapted_learning_rate(tmp_path: Path) -> None:
    def run(max_epochs: int, path: Path | None) -> tuple[float, Any]:
        torch.manual_seed(1)
        actor_critic = ActorCritic(FourByteNetwork())
        metrics = KeepsMetrics()
        trainer = quiet_trainer(tmp_path, max_epochs=max_epochs, callbacks=[metrics])
        data = SelfPlayDataModule(FakeCollector(policy=actor_critic), minibatch_size=8, num_epochs=2)
        module = PPOModule(actor_critic, learning_rate=0.01, final_learning_rate=None, kl_target=1e-9)
        trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
        return metrics.epochs[-1]["train/learning_rate"], trainer

    whole, _ = run(4, None)
    _, trainer = run(2, None)
    trainer.save_checkpoint(tmp_path / "kl.ckpt")
    assert run(4, tmp_path / "kl.ckpt")[0] == pytest.approx(whole)
    assert whole == pytest.approx(0.01 / 1.5**3)


def test_checkpoints_carry_the_recipe_along(tmp_path: Path) -> None:
    recipe = {"env": {"game": "fake", "options": {}}, "model": {"kind": "mlp"}}
    actor_critic = ActorCritic(FourByteNetwork())
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    data = SelfPlayDataModule(FakeCollector(policy=actor_critic), minibatch_size=8)
    trainer.fit(PPOModule(actor_critic, recipe=recipe), datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["keisei_recipe"] == recipe


def test_the_schedule_goes_by_time_only_where_nothing_else_ends_training(tmp_path: Path) -> None:
    for options, expected in (({"max_epochs": -1, "max_time": "00:00:01:40"}, 0.0), ({"max_epochs": 4}, 0.25)):
        trainer = quiet_trainer(tmp_path, **options)
        total_steps = math.inf if trainer.max_epochs == -1 else 40.0
        assert fraction_trained(trainer, 10, total_steps) == pytest.approx(expected, abs=1e-3)


def saved(tmp_path: Path) -> Path:
    actor_critic = ActorCritic(FourByteNetwork())
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    data = SelfPlayDataModule(FakeCollector(policy=actor_critic), minibatch_size=8)
    trainer.fit(PPOModule(actor_critic), datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_a_checkpoint_names_its_game_and_holds_the_networks_weights_only(tmp_path: Path) -> None:
    checkpoint = torch.load(saved(tmp_path), weights_only=True)
    assert checkpoint["keisei"] == {"game": "fake", "num_actions": 3, "observation_shape": [4], "format": 1}
    assert sorted(checkpoint["state_dict"]) == [
        "actor_critic.network.linear.bias",
        "actor_critic.network.linear.weight",
    ]


def test_a_checkpoint_of_another_game_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    collector = FakeCollector()
    collector.spec = type(SPEC)(name="other", num_actions=3, observation_shape=(4,), max_plies=9)
    module = PPOModule(ActorCritic(FourByteNetwork()))
    with pytest.raises(ConfigError, match=r"last.ckpt: its game is fake, this run's is other$"):
        quiet_trainer(tmp_path).fit(
            module, datamodule=SelfPlayDataModule(collector, minibatch_size=8), ckpt_path=path, weights_only=True
        )
    assert collector.events == ["shutdown"]


def test_a_network_that_is_not_of_the_data_modules_game_is_refused_when_the_fit_begins(tmp_path: Path) -> None:
    collector = FakeCollector()
    module = PPOModule(ActorCritic(FourByteNetwork(num_actions=5)))
    with pytest.raises(
        ConfigError, match=r"^network=FourByteNetwork: its logits are float32 \[2, 5\]; must be floating"
    ):
        quiet_trainer(tmp_path).fit(module, datamodule=SelfPlayDataModule(collector, minibatch_size=8))
    assert collector.events == ["shutdown"]


def test_a_checkpoint_of_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    class Wider(FourByteNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(8, 4)

        def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return super().forward(observation.repeat(1, 2))

    path = saved(tmp_path)
    module = PPOModule(ActorCritic(Wider()))
    data = SelfPlayDataModule(FakeCollector(), minibatch_size=8)
    with pytest.raises(
        ConfigError, match=r"linear.weight is \[4, 4\], here \[4, 8\]\); use the model it was trained with"
    ):
        quiet_trainer(tmp_path).fit(module, datamodule=data, ckpt_path=path, weights_only=True)


def test_a_run_resumes_with_the_restored_weights(tmp_path: Path) -> None:
    path = saved(tmp_path)
    actor_critic = ActorCritic(FourByteNetwork())
    trainer = quiet_trainer(tmp_path, max_epochs=3)
    data = SelfPlayDataModule(FakeCollector(policy=actor_critic), minibatch_size=8)
    metrics = KeepsMetrics()
    trainer.callbacks.append(metrics)
    trainer.fit(PPOModule(actor_critic), datamodule=data, ckpt_path=path, weights_only=True)
    assert data.iteration == 3
    assert trainer.global_step == 3 * 8
    assert metrics.epochs[0]["train/first_ratio"] == pytest.approx(1.0, abs=1e-4)


def test_options_out_of_bounds_are_refused_a_line_each() -> None:
    with pytest.raises(ConfigError) as caught:
        module_of(FourByteNetwork(), clip_epsilon=2, learning_rate=0.0, entropy_coeff=-0.1, clip_value=0.0)
    assert caught.value.errors == (
        "clip_epsilon=2: must be a number, more than 0 and less than 1",
        "entropy_coeff=-0.1: must be a number, 0 or more",
        "clip_value=0: must be a number, more than 0, or None",
        "learning_rate=0: must be a number, more than 0 and at most 1",
    )


def test_options_are_given_as_an_object_or_by_name_and_a_name_counts_more() -> None:
    by_name = module_of(FourByteNetwork(), learning_rate=0.01, kl_target=0.02)
    together = PPOModule(
        ActorCritic(FourByteNetwork()), PPOOptions(learning_rate=0.5, kl_target=0.02), learning_rate=0.01
    )
    assert by_name.options == together.options == PPOOptions(learning_rate=0.01, kl_target=0.02)
    assert dict(by_name.hparams) == dict(together.hparams) == asdict(by_name.options)


def test_an_unknown_option_is_one_line_with_the_nearest_name() -> None:
    with pytest.raises(TypeError, match=r"^PPOModule has no option 'learning_rat' \(did you mean learning_rate\?\)$"):
        module_of(FourByteNetwork(), learning_rat=0.01)


def test_a_subclass_keeps_its_own_hyperparameters() -> None:
    class Warm(PPOModule):
        def __init__(self, actor_critic: ActorCritic, *, warmup_steps: int = 10, **options: Any) -> None:
            super().__init__(actor_critic, **options)

    module = Warm(ActorCritic(FourByteNetwork()), learning_rate=0.01)
    assert dict(module.hparams) == asdict(PPOOptions(learning_rate=0.01)) | {"warmup_steps": 10}


def test_the_behaviour_policy_of_the_fake_is_the_learners() -> None:
    policy = ActorCritic(FourByteNetwork())
    batch = minibatch(policy)
    logits, _ = policy(batch["observation"])
    expected = LegalCategorical(logits, batch["action_mask"]).log_prob(batch["action"])
    torch.testing.assert_close(batch["action_log_prob"], expected)
