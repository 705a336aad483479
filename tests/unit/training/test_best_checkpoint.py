from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import counting_game
from training_fakes import FakeCollector, PlayingModule, quiet_trainer

from keisei_lightning.training import AtomicCheckpointIO, BestCheckpoint, EvaluationCallback, SelfPlayDataModule


class ScoresAsTold(EvaluationCallback):
    """Plays no games: each evaluation gives the next of these scores; None: a signal ended it."""

    def __init__(self, *scores: float | None, every_n_epochs: int = 1) -> None:
        super().__init__(counting_game(), every_n_epochs=every_n_epochs)
        self.scores = list(scores)

    def play(self, trainer: Any, pl_module: Any) -> dict[str, float]:
        score = self.scores.pop(0)
        if score is None:
            return {}
        self.evaluated_step = trainer.global_step
        return {self.monitor: score}


@pytest.mark.parametrize(
    ("scores", "every_n_epochs", "best", "step"),
    [
        ((0.5, 0.9, 0.7), 1, 0.9, 2),
        ((0.5, 0.6, 0.7), 1, 0.7, 3),
        ((0.5, 0.5, 0.5), 1, 0.5, 1),  # the first of equals
        ((0.5, 0.6), 2, 0.6, 3),  # after the second epoch, and at the end
        ((None, 0.4, 0.3), 1, 0.4, 2),
    ],
)
def test_the_policy_with_the_best_score_stays(
    tmp_path: Path, scores: tuple[float | None, ...], every_n_epochs: int, best: float, step: int
) -> None:
    evaluation = ScoresAsTold(*scores, every_n_epochs=every_n_epochs)
    kept = BestCheckpoint(evaluation, tmp_path / "kept")
    trainer = quiet_trainer(
        tmp_path, callbacks=[kept, evaluation], max_epochs=3, enable_checkpointing=True, plugins=[AtomicCheckpointIO()]
    )
    trainer.fit(PlayingModule(), datamodule=SelfPlayDataModule(FakeCollector(), minibatch_size=32, num_epochs=1))
    assert [file.name for file in (tmp_path / "kept").glob("*.ckpt")] == ["best.ckpt"]
    assert torch.load(tmp_path / "kept/best.ckpt", weights_only=True)["global_step"] == step
    assert kept.best_model_score is not None
    assert kept.best_model_score.item() == pytest.approx(best)
