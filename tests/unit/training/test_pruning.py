"""A trial's scores reach its study, and a bad trial ends early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import TinyNetwork, counting_game
from lightning.pytorch import Trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.launching import Phase
from keisei_lightning.launching.outcomes import failure_of
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.training import EvaluationCallback, PPOModule, ScorePruning, SelfPlayDataModule

optuna = pytest.importorskip("optuna", reason="the extra 'sweep' is not installed")

from optuna.trial import TrialState, create_trial  # noqa: E402

from keisei_lightning.system.studies import open_storage  # noqa: E402

EPOCHS = 4


class Study:
    """A study with one complete trial, of a score that is the same after every epoch, and trials that run."""

    def __init__(self, storage: str, *, score_of_the_first: float) -> None:
        self.storage = storage
        self.study: Any = optuna.create_study(study_name="test", storage=open_storage(storage), direction="maximize")
        values = dict.fromkeys(range(1, EPOCHS + 1), score_of_the_first)
        self.study.add_trial(create_trial(value=score_of_the_first, intermediate_values=values))

    def ask(self) -> int:
        number: int = self.study.ask().number
        return number

    def scores(self, number: int) -> dict[int, float]:
        scores: dict[int, float] = self.study.get_trials()[number].intermediate_values
        return scores


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return str(tmp_path / "study.journal")


def fit(callback: ScorePruning, folder: Path, *, every_n_epochs: int = 1) -> Trainer:
    policy = ActorCritic(TinyNetwork())
    collector = SelfPlayCollector(counting_game(), policy, mode="serial", games_per_worker=4, plies_per_rollout=16)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        callbacks=[
            EvaluationCallback(counting_game(opening_plies=6), num_games=10, every_n_epochs=every_n_epochs),
            callback,
        ],
    )
    trainer.fit(PPOModule(policy), datamodule=SelfPlayDataModule(collector, minibatch_size=32, num_epochs=1))
    return trainer


def pruning(study: Study, number: int | None, **options: Any) -> ScorePruning:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1)
    return ScorePruning(storage=study.storage, study_name="test", trial=number, pruner=pruner, **options)


def test_a_bad_trial_ends_after_its_first_evaluation(storage: str, tmp_path: Path) -> None:
    study = Study(storage, score_of_the_first=2.0)  # better than any score can be
    number = study.ask()
    with pytest.raises(optuna.TrialPruned, match=r"^after epoch 1 \(trial 1 of the study test\)$") as caught:
        fit(pruning(study, number), tmp_path)
    assert list(study.scores(number)) == [1]
    assert failure_of(caught.value, Phase.ENDING).is_agreed  # of several ranks none has failed


def test_a_good_trial_reports_every_score_and_runs_to_its_end(storage: str, tmp_path: Path) -> None:
    study = Study(storage, score_of_the_first=-1.0)
    number = study.ask()
    trainer = fit(pruning(study, number), tmp_path)
    assert trainer.current_epoch == EPOCHS
    scores = study.scores(number)
    assert list(scores) == [1, 2, 3, 4]
    assert scores[4] == pytest.approx(float(trainer.callback_metrics["eval/score_vs_random"]))
    assert study.study.get_trials()[number].state is TrialState.RUNNING  # whoever asked for it tells its end


def test_epochs_without_an_evaluation_report_nothing(storage: str, tmp_path: Path) -> None:
    study = Study(storage, score_of_the_first=-1.0)
    number = study.ask()
    fit(pruning(study, number), tmp_path, every_n_epochs=3)
    assert list(study.scores(number)) == [3, 4]


def test_a_trial_that_has_all_its_epochs_is_not_pruned(storage: str, tmp_path: Path) -> None:
    study = Study(storage, score_of_the_first=2.0)
    number = study.ask()
    fit(pruning(study, number), tmp_path, every_n_epochs=EPOCHS)
    assert list(study.scores(number)) == [EPOCHS]


def test_another_metric_may_be_the_one_that_counts(storage: str, tmp_path: Path) -> None:
    study = Study(storage, score_of_the_first=-1.0)
    number = study.ask()
    trainer = fit(pruning(study, number, monitor="eval/wins_vs_random"), tmp_path)
    assert study.scores(number)[EPOCHS] == float(trainer.callback_metrics["eval/wins_vs_random"])


def test_a_training_that_is_no_trial_reports_nothing(storage: str, tmp_path: Path) -> None:
    study = Study(storage, score_of_the_first=2.0)
    assert fit(pruning(study, None), tmp_path).current_epoch == EPOCHS
    assert len(study.study.get_trials()) == 1


@pytest.mark.parametrize(("number", "reason"), [(7, "there is none"), (0, r"has ended \(complete\)")])
def test_a_trial_that_does_not_run_is_refused(number: int, reason: str, storage: str, tmp_path: Path) -> None:
    study = Study(storage, score_of_the_first=0.5)
    with pytest.raises(ConfigError, match=f"^trial {number} of the study test in {storage}: {reason}$"):
        fit(pruning(study, number), tmp_path)
