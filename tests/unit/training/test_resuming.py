"""What a run that resumes takes from the checkpoint, and what from today's configuration."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from training_fakes import FakeCollector, FourByteNetwork, quiet_trainer

from keisei_lightning.models import ActorCritic
from keisei_lightning.training import PPOModule, SelfPlayDataModule

STEPS = 8  # of an epoch: 2 passes of 4 minibatches


class Watches(Callback):
    """Keeps the optimiser's options at each step, and the entropy coefficient; stops after some steps.

    Args:
        stop_at: leave training after this many minibatches, saving a checkpoint.
    """

    def __init__(self, path: Path, stop_at: int | None = None) -> None:
        self.path, self.stop_at = path, stop_at
        self.options: list[dict[str, Any]] = []
        self.entropy: list[float] = []
        self.gradients: list[torch.Tensor] = []
        self.sizes: list[int] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.options.append({name: x for name, x in optimizer.param_groups[0].items() if name != "params"})
        self.entropy.append(float(pl_module.loss.entropy_coeff))
        self.gradients.append(pl_module.actor_critic.network.linear.weight.grad.clone())

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.sizes.append(len(batch))
        if trainer.fit_loop.epoch_loop.batch_progress.total.ready == self.stop_at:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt

    def rates(self) -> list[float]:
        return [options["lr"] for options in self.options]


def train(
    tmp_path: Path,
    *,
    resume: bool = False,
    stop_at: int | None = None,
    max_epochs: int = 2,
    kind: type[PPOModule] = PPOModule,
    trainer: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    **options: Any,
) -> Watches:
    torch.manual_seed(1)
    path = tmp_path / "a.ckpt"
    watch = Watches(path, stop_at)
    run = quiet_trainer(tmp_path, max_epochs=max_epochs, callbacks=[watch], **(trainer or {}))
    actor_critic = ActorCritic(FourByteNetwork())
    loader = SelfPlayDataModule(FakeCollector(policy=actor_critic), **({"minibatch_size": 8} | (data or {})))
    fit = {"ckpt_path": path, "weights_only": True} if resume else {}
    try:
        run.fit(kind(actor_critic, **options), datamodule=loader, **fit)
    except (KeyboardInterrupt, SystemExit):
        assert stop_at is not None
    else:
        assert stop_at is None
        run.save_checkpoint(path)
    return watch


@pytest.mark.parametrize("stop_at", [3, None], ids=["in an epoch", "between two epochs"])
def test_a_changed_constant_learning_rate_holds_from_the_first_step_on(tmp_path: Path, stop_at: int | None) -> None:
    train(tmp_path, max_epochs=1, stop_at=stop_at, learning_rate=3e-3)
    rates = train(tmp_path, resume=True, learning_rate=1e-4).rates()
    assert rates == [1e-4] * (2 * STEPS - (stop_at or STEPS))


def test_a_changed_schedule_continues_from_its_position_to_its_new_end(tmp_path: Path) -> None:
    train(tmp_path, stop_at=STEPS + 4, learning_rate=3e-3, final_learning_rate=3e-4)
    rates = train(tmp_path, resume=True, learning_rate=1e-3, final_learning_rate=1e-4).rates()
    schedule = [1e-3 - 9e-4 * step / (2 * STEPS) for step in range(2 * STEPS)]
    assert rates == pytest.approx(schedule[STEPS + 4 :])
    assert rates[-1] == pytest.approx(1e-4 + 9e-4 / (2 * STEPS))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [(None, 1e-4, lambda done: 1e-3 - 9e-4 * done), (1e-4, None, lambda done: 1e-3), (1e-4, 1e-3, lambda done: 1e-3)],
    ids=["a schedule that there was not", "no schedule any more", "a schedule that has become flat"],
)
def test_a_schedule_that_comes_or_goes_is_followed_from_the_step_that_training_is_at(
    tmp_path: Path, before: float | None, now: float | None, expected: Any
) -> None:
    train(tmp_path, stop_at=4, learning_rate=1e-3, final_learning_rate=before)
    rates = train(tmp_path, resume=True, learning_rate=1e-3, final_learning_rate=now).rates()
    assert rates == pytest.approx([expected(step / (2 * STEPS)) for step in range(4, 2 * STEPS)])


def test_the_scale_that_a_kl_target_has_found_is_kept_and_the_schedule_is_the_present_one(tmp_path: Path) -> None:
    train(tmp_path, max_epochs=1, learning_rate=3e-3, kl_target=1e-9)  # far below what an epoch does: rate / 1.5
    rates = train(tmp_path, resume=True, learning_rate=1e-3, kl_target=1e-9).rates()
    assert rates == pytest.approx([1e-3 / 1.5] * STEPS)
    train(tmp_path, max_epochs=1, learning_rate=3e-3, kl_target=1e-9)
    assert train(tmp_path, resume=True, learning_rate=1e-3).rates() == [1e-3] * STEPS


def test_weight_decay_and_epsilon_are_the_present_ones_and_the_moments_are_kept(tmp_path: Path) -> None:
    train(tmp_path, stop_at=STEPS, adam_eps=1e-5, weight_decay=0.0)
    before = torch.load(tmp_path / "a.ckpt", weights_only=True)["optimizer_states"][0]["state"][0]
    watch = train(tmp_path, resume=True, adam_eps=1e-3, weight_decay=0.1)
    assert {(options["eps"], options["weight_decay"]) for options in watch.options} == {(1e-3, 0.1)}
    assert float(before["step"]) == STEPS
    after = torch.load(tmp_path / "a.ckpt", weights_only=True)["optimizer_states"][0]["state"][0]
    assert float(after["step"]) == 2 * STEPS


def test_what_is_not_changed_continues_to_the_last_bit(tmp_path: Path) -> None:
    options = {"learning_rate": 3e-3, "final_learning_rate": 1e-4, "entropy_coeff": 0.1, "final_entropy_coeff": 0.0}
    whole = train(tmp_path, **options)
    train(tmp_path, stop_at=STEPS + 3, **options)
    resumed = train(tmp_path, resume=True, **options)
    assert resumed.options == whole.options[STEPS + 3 :]
    assert resumed.entropy == whole.entropy[STEPS + 3 :]
    for ours, theirs in zip(resumed.gradients, whole.gradients[STEPS + 3 :], strict=True):
        assert torch.equal(ours, theirs)


def test_the_entropy_coefficient_of_the_rest_of_an_epoch_is_the_present_one(tmp_path: Path) -> None:
    train(tmp_path, stop_at=STEPS + 3, entropy_coeff=0.1, final_entropy_coeff=0.02)
    resumed = train(tmp_path, resume=True, entropy_coeff=0.5, final_entropy_coeff=0.1)
    assert resumed.entropy == pytest.approx([0.3] * (STEPS - 3))  # the second of two epochs, with today's ends
    train(tmp_path, stop_at=STEPS + 3, entropy_coeff=0.1, final_entropy_coeff=0.02)
    assert train(tmp_path, resume=True, entropy_coeff=0.2).entropy == pytest.approx([0.2] * (STEPS - 3))


def test_one_log_line_names_what_has_changed_and_what_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, max_epochs=1, learning_rate=3e-3, kl_target=0.01)
    with caplog.at_level(logging.INFO, "keisei_lightning"):
        train(tmp_path, resume=True, learning_rate=1e-4, clip_epsilon=0.1, kl_target=0.01, data={"gamma": 0.9})
        train(tmp_path, resume=True, learning_rate=1e-4, clip_epsilon=0.1, max_epochs=3)
    lines = [record.message for record in caplog.records if record.message.startswith("resumed")]
    assert lines == [
        f"resumed from {tmp_path / 'a.ckpt'} at step 8: clip_epsilon 0.2 -> 0.1, learning_rate 0.003 -> 0.0001, "
        "gamma 0.995 -> 0.9, max_epochs 1 -> 2; kept: weights, Adam's moments, the schedules' position, "
        "the learning rate's KL scale, random streams",
        f"resumed from {tmp_path / 'a.ckpt'} at step 16: kl_target 0.01 -> None, gamma 0.9 -> 0.995, "
        "max_epochs 2 -> 3; kept: weights, Adam's moments, the schedules' position, random streams",
    ]


def test_that_nothing_has_changed_is_logged_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, stop_at=3)
    with caplog.at_level(logging.INFO, "keisei_lightning"):
        train(tmp_path, resume=True)
    assert "at step 3: no option changed; kept: weights" in caplog.text


class OwnOptimizer(PPOModule):
    """SGD with two groups of parameters, and a schedule by epochs."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        weight, bias = self.parameters()
        optimizer = torch.optim.SGD([{"params": [weight]}, {"params": [bias], "lr": 1.0}], lr=self.learning_rate)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)]


def test_an_optimiser_of_a_users_own_is_restored_as_lightning_does_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, max_epochs=1, kind=OwnOptimizer, learning_rate=0.1)
    with caplog.at_level(logging.INFO, "keisei_lightning"):
        rates = train(tmp_path, resume=True, kind=OwnOptimizer, learning_rate=0.3).rates()
    assert rates == [0.05] * STEPS
    assert "kept: weights, the optimiser and its schedule with their options, random streams" in caplog.text


class TwoGroups(PPOModule):
    """Our own optimiser, with another learning rate for the biases."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        weight, bias = self.parameters()
        configured = super().configure_optimizers()
        assert isinstance(configured, torch.optim.Optimizer)
        configured.param_groups[0]["params"] = [weight]
        configured.add_param_group({"params": [bias], "lr": 2 * self.learning_rate})
        return configured


def test_parameter_groups_that_a_subclass_adds_to_our_optimiser_have_the_present_options_too(tmp_path: Path) -> None:
    train(tmp_path, max_epochs=1, kind=TwoGroups, learning_rate=1e-3)
    train(tmp_path, resume=True, kind=TwoGroups, learning_rate=1e-4)
    groups = torch.load(tmp_path / "a.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert [(group["lr"], group["params"]) for group in groups] == [(1e-4, [0]), (2e-4, [1])]


@pytest.mark.parametrize("stop_at", [2, 4, 7])
@pytest.mark.slow
def test_a_checkpoint_inside_a_group_of_minibatches_keeps_its_gradients(tmp_path: Path, stop_at: int) -> None:
    groups = {"accumulate_grad_batches": 3}
    whole = train(tmp_path, trainer=groups)
    train(tmp_path, trainer=groups, stop_at=stop_at)
    resumed = train(tmp_path, resume=True, trainer=groups)
    assert len(whole.gradients) == 6  # steps at minibatches 3, 6 and 8 of each epoch
    for ours, theirs in zip(resumed.gradients[::-1], whole.gradients[::-1], strict=False):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("stop_at", [3, 6, 8])
def test_after_a_step_there_are_no_gradients_to_keep(tmp_path: Path, stop_at: int) -> None:
    train(tmp_path, trainer={"accumulate_grad_batches": 3}, stop_at=stop_at)
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["keisei_resume"]["gradients"] == {}


def test_gradients_of_groups_of_another_size_are_left_out(tmp_path: Path) -> None:
    train(tmp_path, trainer={"accumulate_grad_batches": 3}, stop_at=2)
    taken: list[dict[str, torch.Tensor]] = []

    class Sees(PPOModule):
        def on_train_start(self) -> None:
            super().on_train_start()
            taken.append({name: x.grad for name, x in self.named_parameters() if x.grad is not None})

    train(tmp_path, resume=True, kind=Sees, trainer={"accumulate_grad_batches": 2})
    assert taken == [{}]


@pytest.mark.parametrize(
    "data", [{"minibatch_size": 4}, {"minibatch_size": 16}, {"num_epochs": 1}, {"num_epochs": 5}], ids=str
)
@pytest.mark.slow
def test_a_run_resumes_in_the_middle_of_an_iteration_with_other_minibatches(tmp_path: Path, data: Any) -> None:
    """The rest of an iteration is cut as it was begun: no ply is learned from too often."""
    train(tmp_path, stop_at=3)
    watch = train(tmp_path, resume=True, data=data)
    size = data.get("minibatch_size", 8)
    of_an_epoch = data.get("num_epochs", 2) * 32 // size
    rest = min(STEPS, of_an_epoch) - 3  # Lightning takes no more than there are in an epoch now
    assert watch.sizes == [8] * rest + [size] * of_an_epoch
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["SelfPlayDataModule"]["iteration"] == 2
