from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer
from training_fakes import FakeCollector, NotingModule, quiet_trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.training import SelfPlayDataModule, WeightSyncCallback


class CollectorWithAClock(FakeCollector):
    """Notes the optimiser step of each publish."""

    trainer: Trainer

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.steps: list[int] = []

    def update_policy_weights_(self) -> None:
        super().update_policy_weights_()
        self.steps.append(self.trainer.global_step)


def steps_of(tmp_path: Path, callback: WeightSyncCallback, *, schedule: str = "sync", **options: Any) -> list[int]:
    collector = CollectorWithAClock(schedule=schedule)
    collector.trainer = quiet_trainer(tmp_path, callbacks=[callback], **options)
    data = SelfPlayDataModule(collector, minibatch_size=8, num_epochs=3)  # 12 minibatches an epoch
    collector.trainer.fit(NotingModule(), datamodule=data)
    return collector.steps


@pytest.mark.parametrize(
    ("every_n_steps", "schedule", "options", "expected"),
    [
        (None, "sync", {}, [0, 12, 24]),
        (None, "async", {}, [0, 12, 24]),
        (5, "async", {}, [0, 5, 10, 15, 20]),
        (5, "sync", {}, [0, 5, 10, 12, 15, 20, 24]),
        (12, "sync", {}, [0, 12, 24]),
        # 12 minibatches are 3 steps; the step counts, not the minibatch.
        (2, "async", {"accumulate_grad_batches": 4}, [0, 2, 4, 6]),
        (1, "async", {"accumulate_grad_batches": 4}, [0, 1, 2, 3, 4, 5, 6]),
        (None, "sync", {"accumulate_grad_batches": 4}, [0, 3, 6]),
        # An epoch that is cut short ends an iteration all the same.
        (None, "sync", {"limit_train_batches": 5}, [0, 5, 10]),
        (None, "sync", {"max_steps": 15}, [0, 12, 15]),
    ],
)
def test_weights_are_published_at_these_optimiser_steps(
    tmp_path: Path, every_n_steps: int | None, schedule: str, options: dict[str, Any], expected: list[int]
) -> None:
    assert steps_of(tmp_path, WeightSyncCallback(every_n_steps), schedule=schedule, **options) == expected


def test_a_subclass_decides_when_to_publish(tmp_path: Path) -> None:
    class Once(WeightSyncCallback):
        def should_publish(self, *, global_step: int, end_of_iteration: bool, schedule: str) -> bool:
            return global_step == 7

    assert steps_of(tmp_path, Once()) == [0, 7]


def test_an_epoch_that_ends_without_a_new_step_publishes_nothing(tmp_path: Path) -> None:
    class Stops(NotingModule):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
            return -1 if self.current_epoch == 1 else None  # Lightning: skip the rest of the epoch

    collector = CollectorWithAClock()
    collector.trainer = quiet_trainer(tmp_path, callbacks=[WeightSyncCallback()])
    collector.trainer.fit(Stops(), datamodule=SelfPlayDataModule(collector, minibatch_size=8, num_epochs=1))
    assert collector.steps == [0, 4]


def test_restored_weights_are_published_before_the_first_batch(tmp_path: Path) -> None:
    path = tmp_path / "half.ckpt"
    first = quiet_trainer(tmp_path, max_epochs=1, callbacks=[WeightSyncCallback()])
    first.fit(NotingModule(), datamodule=SelfPlayDataModule(FakeCollector(), minibatch_size=8, num_epochs=3))
    first.save_checkpoint(path)
    collector = CollectorWithAClock()
    collector.trainer = quiet_trainer(tmp_path, max_epochs=2, callbacks=[WeightSyncCallback()])
    data = SelfPlayDataModule(collector, minibatch_size=8, num_epochs=3)
    collector.trainer.fit(NotingModule(), datamodule=data, ckpt_path=path, weights_only=True)
    assert collector.steps == [12, 24]
    assert collector.events[2:4] == ["publish", "collect"]  # after what was open has been closed


def test_every_n_steps_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="every_n_steps=0: must be a whole number, 1 or more, or None"):
        WeightSyncCallback(0)


def test_a_trainer_without_a_collector_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    class Own(NotingModule):
        def train_dataloader(self) -> list[Any]:
            return [FakeCollector().rollout(1)]

    module: LightningModule = Own()
    with pytest.raises(ConfigError, match="SelfPlayDataModule"):
        quiet_trainer(tmp_path, callbacks=[WeightSyncCallback()]).fit(module)
