from __future__ import annotations

import math
from pathlib import Path

from training_fakes import FakeCollector, NotingModule, quiet_trainer

from keisei_lightning.training import SelfPlayDataModule, SelfPlayMetrics


class CollectorWithoutGames(FakeCollector):
    def stats(self) -> dict[str, float]:
        return super().stats() | {"game_length_mean": math.nan}


def test_the_collectors_numbers_are_logged_at_the_end_of_each_epoch(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, callbacks=[SelfPlayMetrics()])
    trainer.fit(NotingModule(), datamodule=SelfPlayDataModule(CollectorWithoutGames(), minibatch_size=8))
    assert {name: float(value) for name, value in trainer.callback_metrics.items()} == {
        "self_play/plies": 64.0,
        "self_play/plies_per_s": 1234.4000244140625,
        "self_play/games_per_s": 5.5,
        "self_play/policy_lag_max": 1.0,
    }
