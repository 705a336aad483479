from __future__ import annotations

import logging
from pathlib import Path

import pytest
from training_fakes import FakeCollector, NotingModule, quiet_trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.training import SelfPlayDataModule, SnapshotCallback, WeightSyncCallback


class CollectorWithAPool(FakeCollector):
    """Notes the version of each snapshot."""

    has_room = True

    def __init__(self) -> None:
        super().__init__()
        self.snapshots: list[int] = []

    def push_snapshot(self) -> bool:
        self.snapshots.append(self.policy_version)
        return self.has_room


def fit(tmp_path: Path, collector: FakeCollector, *, max_epochs: int, every_n_epochs: int) -> None:
    callbacks = [WeightSyncCallback(), SnapshotCallback(every_n_epochs)]
    trainer = quiet_trainer(tmp_path, max_epochs=max_epochs, callbacks=callbacks)
    trainer.fit(NotingModule(), datamodule=SelfPlayDataModule(collector, minibatch_size=8))


@pytest.mark.parametrize(("every_n_epochs", "versions"), [(1, [2, 3, 4, 5, 6]), (2, [3, 5]), (6, [])])
def test_the_version_that_has_just_been_published_is_frozen(
    tmp_path: Path, every_n_epochs: int, versions: list[int]
) -> None:
    collector = CollectorWithAPool()
    fit(tmp_path, collector, max_epochs=5, every_n_epochs=every_n_epochs)
    assert collector.snapshots == versions  # version 1 is that of the start


def test_a_postponed_snapshot_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    collector = CollectorWithAPool()
    collector.has_room = False
    with caplog.at_level(logging.WARNING):
        fit(tmp_path, collector, max_epochs=2, every_n_epochs=2)
    assert "epoch 1: no snapshot was taken: games in flight still need every buffer" in caplog.text


def test_a_collector_without_a_pool_is_refused_before_the_first_batch(tmp_path: Path) -> None:
    collector = FakeCollector()
    with pytest.raises(ConfigError, match=r"FakeCollector: has no push_snapshot\(\), which SnapshotCallback needs"):
        fit(tmp_path, collector, max_epochs=2, every_n_epochs=1)
    assert "collect" not in collector.events


def test_a_number_of_epochs_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="every_n_epochs=0: must be a whole number, 1 or more"):
        SnapshotCallback(0)
