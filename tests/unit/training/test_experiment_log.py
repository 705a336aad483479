"""Loggers are told what a run was and what came of it, each as far as it has the means."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import yaml
from fakes import TinyNetwork, counting_game
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_fakes import quiet_trainer

from keisei_lightning.models import ActorCritic, num_parameters
from keisei_lightning.training import (
    CurvesCallback,
    EvaluationCallback,
    ExperimentLog,
    LeagueCallback,
    PPOModule,
    SelfPlayDataModule,
    SelfPlayMetrics,
)
from keisei_lightning.training.experiment_log import log_picture, log_text, software_versions

OPTIONS = {"seed": 7, "ppo": {"learning_rate": 0.05}, "ratings": {"alpha_beta(depth=1)": 5.0}, "opponents": ["random"]}


class PlainLogger(Logger):
    """Somebody's logger with no more than it must have."""

    name, version = "plain", 0

    def __init__(self) -> None:
        self.hyperparameters: dict[str, Any] = {}

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        pass

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.hyperparameters |= dict(params)


class Gone:
    """The means of TensorBoard's writer, and no server."""

    def _fails(self, *args: Any, **kwargs: Any) -> None:
        raise ConnectionError("the server\nis gone")

    add_text = add_image = _fails


class BrokenLogger(PlainLogger):
    """Takes Lightning's own hyperparameters, and nothing of ours."""

    experiment = Gone()

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        if "versions" in params:
            raise ConnectionError("the server\nis gone")


class MLflowLike:
    """The means of MLflow's client."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.calls.append((run_id, text, artifact_file))

    def log_artifact(self, run_id: str, local_path: str) -> None:
        self.calls.append((run_id, local_path))


class MLflowLikeLogger(PlainLogger):
    run_id = "run 1"

    def __init__(self) -> None:
        super().__init__()
        self.experiment = MLflowLike()


class WandbLikeLogger(PlainLogger):
    """The means of W&B's logger."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []

    def log_text(self, **options: Any) -> None:
        self.calls.append(options)

    def log_image(self, **options: Any) -> None:
        self.calls.append(options)


def fit(folder: Path, *loggers: Logger, epochs: int = 2, **options: Any) -> PPOModule:
    module = PPOModule(ActorCritic(TinyNetwork()), learning_rate=0.05)
    callbacks = [
        SelfPlayMetrics(),
        EvaluationCallback(counting_game(), num_games=2, every_n_epochs=1),
        CurvesCallback(folder),
        ExperimentLog(OPTIONS),
    ]
    trainer = quiet_trainer(folder, max_epochs=epochs, logger=list(loggers), callbacks=callbacks, **options)
    small = {"mode": "serial", "games_per_worker": 4, "plies_per_rollout": 8}
    data = SelfPlayDataModule(game=counting_game(), collector_options=small, minibatch_size=16, num_epochs=1, seed=3)
    trainer.fit(module, datamodule=data)
    return module


@pytest.mark.slow
def test_hyperparameters_are_the_whole_configuration_with_versions_and_parameters(tmp_path: Path) -> None:
    loggers = CSVLogger(tmp_path, name="csv", version=""), TensorBoardLogger(str(tmp_path), name="tb", version="")
    plain = PlainLogger()
    module = fit(tmp_path, *loggers, plain)
    for found in (
        yaml.safe_load((tmp_path / "csv" / "hparams.yaml").read_text(encoding="utf-8")),
        yaml.safe_load((tmp_path / "tb" / "hparams.yaml").read_text(encoding="utf-8")),
        plain.hyperparameters,
    ):
        assert (found["seed"], found["ppo"], found["opponents"]) == (7, {"learning_rate": 0.05}, ["random"])
        assert found["ratings"] == {"alpha_beta_depth_1_": 5.0}
        assert found["num_parameters"] == num_parameters(module) == 12
        assert found["versions"] == software_versions()
        assert found["collector"] == {"game": "counting", "plies_per_epoch": 32}
        assert (found["learning_rate"], found["data"]["seed"]) == (0.05, 3)  # of the module and the data module


@pytest.mark.slow
def test_tensorboard_has_games_as_text_curves_as_a_picture_and_a_row_in_the_table_of_runs(tmp_path: Path) -> None:
    fit(tmp_path, TensorBoardLogger(str(tmp_path), name="tb", version="", default_hp_metric=False))
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    games = events.Tensors("last_game/text_summary")
    assert [game.step for game in games] == [2, 4]
    text = games[-1].tensor_proto.string_val[0].decode()
    assert text.startswith("    +")
    (picture,) = events.Images("curves")
    assert picture.step == 4
    assert (picture.width, picture.height) == (1870, 825)
    (score,) = events.Scalars("final_eval/score_vs_random")
    assert score.step == 4
    assert 0.0 <= score.value <= 1.0
    assert events.summary_metadata["_hparams_/session_start_info"].plugin_data.plugin_name == "hparams"


def test_a_leagues_picture_is_logged_at_the_end(tmp_path: Path) -> None:
    class Pictures(PlainLogger):
        logged: ClassVar[list[dict[str, Any]]] = []

        def log_image(self, **what: Any) -> None:
            self.logged.append(what)

    league = LeagueCallback(tmp_path)
    league.files = [tmp_path / "league.csv", tmp_path / "league.png"]
    trainer: Any = SimpleNamespace(callbacks=[league], global_step=4, loggers=[Pictures()], is_global_zero=True)
    ExperimentLog().on_train_end(trainer, Any)
    assert Pictures.logged == [{"key": "league", "images": [str(tmp_path / "league.png")]}]


@pytest.mark.slow
def test_loggers_without_text_and_pictures_get_the_rest_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, csv = PlainLogger(), CSVLogger(tmp_path, name="csv", version="")
    with caplog.at_level(logging.WARNING):
        module = fit(tmp_path, plain, csv, epochs=1)
    assert [record.message for record in caplog.records if record.name.endswith("experiment_log")] == []
    assert module.trainer.current_epoch == 1
    assert plain.hyperparameters["seed"] == 7
    assert "eval/score_vs_random" in (tmp_path / "csv" / "metrics.csv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_logger_that_fails_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fit(tmp_path, BrokenLogger(), epochs=1)
    lines = [record.message for record in caplog.records if record.name.endswith("experiment_log")]
    assert len(lines) == 3  # hyperparameters, a game, the curves
    assert set(lines) == {"BrokenLogger could not log all of the run: ConnectionError: the server is gone"}


def test_fast_dev_run_logs_nothing(tmp_path: Path) -> None:
    plain = PlainLogger()
    fit(tmp_path, plain, fast_dev_run=True)
    assert plain.hyperparameters == {}


def test_other_loggers_get_what_they_support(tmp_path: Path) -> None:
    picture = tmp_path / "curves.png"
    mlflow, wandb = MLflowLikeLogger(), WandbLikeLogger()
    for logger in (mlflow, wandb):
        log_text(logger, "last_game", "1. a\n2. b", 40)
        log_picture(logger, "curves", picture, 40)
    assert mlflow.experiment.calls == [
        ("run 1", "1. a\n2. b", "last_game/step_0000040.txt"),
        ("run 1", str(picture)),
    ]
    assert wandb.calls == [
        {"key": "last_game", "columns": ["step", "last_game"], "data": [[40, "1. a\n2. b"]]},
        {"key": "curves", "images": [str(picture)]},
    ]
