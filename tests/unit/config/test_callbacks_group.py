"""The group ``callbacks``: the user's callbacks run in a training, and what a run sets itself is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ProgressBar, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig

from keisei_lightning.app import build, run
from keisei_lightning.commands.compose import compose_training
from keisei_lightning.config.compose_errors import COMPOSE_ERRORS, explain
from keisei_lightning.errors import ConfigError
from keisei_lightning.policies import load_policy
from keisei_lightning.training import (
    CurvesCallback,
    EvaluationCallback,
    OrderlyStop,
    ScoreEarlyStopping,
    WeightSyncCallback,
)

TINY = [
    "env=tic_tac_toe",
    "model=mlp",
    "model.channels=16",
    "parallel=serial",
    "parallel.games_per_worker=8",
    "parallel.plies_per_rollout=16",
    "ppo.minibatch_size=64",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "evaluation.num_games=2",
    "logger.tensorboard=null",
]


class Counts(Callback):
    """Counts epochs, over all runs that it resumes."""

    def __init__(self, start: int = 0) -> None:
        self.epochs = start

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs += 1
        pl_module.log("epochs_counted", float(self.epochs))

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = state_dict["epochs"]


class OwnSync(WeightSyncCallback):
    pass


class Scores(EvaluationCallback):
    """Plays no games: the scores are given, one for each evaluation."""

    given: tuple[float, ...] = ()

    def play(self, trainer: Any, pl_module: Any) -> dict[str, float]:
        self.evaluated_step = trainer.global_step
        score, *rest = self.given
        self.given = tuple(rest)
        return {self.monitor: score}


def quiet_trainer(folder: Path, **options: Any) -> Trainer:
    """A Trainer that logs and saves nothing."""
    off = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "enable_progress_bar": False}
    return Trainer(**{"accelerator": "cpu", "default_root_dir": folder, **off, **options})


def composed(folder: Path, *overrides: str) -> DictConfig:
    return compose_training([f"output_dir={folder}", *TINY, *overrides])


def own(name: str, kind: type) -> str:
    return f"+callbacks.{name}._target_={kind.__module__}.{kind.__qualname__}"


def faults(folder: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build(composed(folder, *overrides))
    assert list(folder.iterdir()) == []
    return list(caught.value.errors)


@pytest.mark.parametrize(
    ("override", "instead"),
    [
        ("+trainer.callbacks=[1]", "+callbacks.NAME._target_="),
        ("+trainer.callbacks=null", "+callbacks.NAME._target_="),
        ("+trainer.plugins=[bitsandbytes]", "one of ours writes checkpoints"),
        ("+trainer.logger=false", "the group logger"),
        ("+trainer.default_root_dir=/tmp/elsewhere", "output_dir"),
    ],
)
def test_what_a_run_sets_itself_is_refused(override: str, instead: str, tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, override)
    key = override.removeprefix("+").partition("=")[0]
    assert fault.startswith(f"{key}=")
    assert "must not be given, a run sets it itself; " in fault
    assert instead in fault


def test_a_trainer_of_ones_own_is_not_given_them_either(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, f"trainer._target_={__name__}.quiet_trainer", "+trainer.plugins=[]")
    assert fault.startswith("trainer.plugins=[]: must not be given")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["+callbacks.x._target_=lightning.pytorch.callbacks.EarlyStoping"],
            "callbacks.x._target_=lightning.pytorch.callbacks.EarlyStoping: cannot be loaded (ModuleNotFoundErr",
        ),
        (["+callbacks.x.patience=3"], "callbacks.x={'patience': 3}: must have a _target_"),
        (["+callbacks.x=early"], "callbacks.x=early: must have a _target_"),
        (
            ["callbacks=early_stopping", "+callbacks.early_stopping.patiense=3"],
            "callbacks.early_stopping._target_=keisei_lightning.training.ScoreEarlyStopping: cannot be called with",
        ),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.mode=more"],
            "callbacks.early_stopping: keisei_lightni",
        ),
        (
            ["+callbacks.x._target_=builtins.dict"],
            "callbacks.x._target_=builtins.dict: makes a dict; must make a Callback",
        ),
        (
            ["callbacks=policy_average", "callbacks.policy_average.share=2"],
            "callbacks.policy_average: keisei_lightning.training.PolicyAverage cannot be made (ConfigError: PolicyAv",
        ),
        (
            ["callbacks=learning_rate_monitor", "logger=none"],
            "callbacks.learning_rate_monitor: must not be with logger=none",
        ),
        (
            ["+callbacks.x._target_=keisei_lightning.training.SelfPlayMetrics"],
            "callbacks.x: every run has a SelfPlayMetrics already",
        ),
        (
            ["+logger.other.x._target_=builtins.dict"],
            "logger.other.x._target_=builtins.dict: makes a dict; must make a L",
        ),
        (
            ["logger.csv._target_=pathlib.Path.read_text", "~logger.csv.save_dir", "~logger.csv.name"],
            "logger.csv._target_=pathlib.Path.read_text: cannot be called with",
        ),
    ],
)
@pytest.mark.slow
def test_a_callback_or_logger_that_cannot_be_made_is_one_line(overrides: list[str], line: str, tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, *overrides)
    assert fault.startswith(line)
    assert "\n" not in fault


def test_a_misspelt_key_of_a_shipped_callback_is_named() -> None:
    word = "callbacks.early_stopping.patiense=3"
    with pytest.raises(COMPOSE_ERRORS) as caught:
        compose_training(["callbacks=early_stopping", word])
    assert explain(caught.value, [word]).startswith("callbacks.early_stopping.patiense=3: no such key")


def test_several_of_the_group_may_be_chosen_and_one_taken_away(tmp_path: Path) -> None:
    cfg = composed(
        tmp_path,
        "callbacks=[early_stopping,learning_rate_monitor]",
        "callbacks.learning_rate_monitor=null",
        "callbacks.early_stopping.patience=2",
        own("counts", Counts),
        "+callbacks.counts.start=7",
    )
    assert list(cfg.callbacks) == ["early_stopping", "learning_rate_monitor", "counts"]
    callbacks = build(cfg).trainer.callbacks  # type: ignore[attr-defined]
    (stopping,) = (each for each in callbacks if isinstance(each, EarlyStopping))
    assert stopping.patience == 2
    assert not any(isinstance(each, LearningRateMonitor) for each in callbacks)
    (counts,) = (each for each in callbacks if isinstance(each, Counts))
    assert counts.epochs == 7


def test_the_users_callbacks_come_after_the_metrics_and_before_the_curves(tmp_path: Path) -> None:
    callbacks = build(composed(tmp_path, own("counts", Counts))).trainer.callbacks  # type: ignore[attr-defined]
    place = {type(callback): index for index, callback in enumerate(callbacks)}
    assert place[OrderlyStop] == 0
    assert place[WeightSyncCallback] < place[EvaluationCallback] < place[Counts] < place[CurvesCallback]


@pytest.mark.parametrize(("kind", "ours"), [(OwnSync, WeightSyncCallback), (RichProgressBar, ProgressBar)])
def test_a_callback_of_the_users_replaces_ours(kind: type[Callback], ours: type[Callback], tmp_path: Path) -> None:
    cfg = composed(tmp_path, own("mine", kind), "trainer.enable_progress_bar=true")
    callbacks = build(cfg).trainer.callbacks  # type: ignore[attr-defined]
    assert [type(callback) for callback in callbacks if isinstance(callback, ours)] == [kind]


@pytest.mark.slow
def test_a_callback_runs_and_its_state_goes_on_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = [f"results_dir={tmp_path}", "name=counted", own("counts", Counts), "trainer.max_epochs=2"]
    run(composed(tmp_path / "counted" / "first", *results))
    assert "callbacks  counts" in capsys.readouterr().out
    run(composed(tmp_path / "counted" / "second", *results, "ckpt_path=last", "trainer.max_epochs=3"))
    names, *rows = (tmp_path / "counted/second/csv/metrics.csv").read_text(encoding="utf-8").splitlines()
    column = names.split(",").index("epochs_counted")
    assert [row.split(",")[column] for row in rows if row.split(",")[column]] == ["3.0"]


@pytest.mark.parametrize(
    ("scores", "options", "epochs"),
    [
        ((0.5, 0.4, 0.3, 0.9), {"patience": 2}, 6),  # evaluated after every second epoch
        ((0.5, 0.4, 0.6, 0.6, 0.6), {"patience": 2}, 10),
        ((0.5, 0.9, 0.9), {"patience": 2, "stopping_threshold": 0.8}, 4),
        ((0.5, 0.52, 0.54), {"patience": 2, "min_delta": 0.1}, 6),
        ((0.1, 0.2, 0.3), {"patience": 1, "mode": "min"}, 4),
    ],
)
@pytest.mark.slow
def test_training_ends_when_the_score_has_not_become_better_for_so_many_evaluations(
    scores: tuple[float, ...], options: dict[str, Any], epochs: int, tmp_path: Path
) -> None:
    parts = build(composed(tmp_path, "trainer.max_epochs=20"))
    evaluation = Scores(parts.evaluation.game, every_n_epochs=2, num_games=2)
    evaluation.given = (*scores, 0.0)
    trainer = quiet_trainer(tmp_path, max_epochs=20, callbacks=[evaluation, ScoreEarlyStopping(**options)])
    trainer.fit(parts.module, datamodule=parts.data)
    assert trainer.current_epoch == epochs


def test_early_stopping_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    parts = build(composed(tmp_path))
    with pytest.raises(ConfigError, match="ScoreEarlyStopping: needs an EvaluationCallback"):
        quiet_trainer(tmp_path, max_epochs=1, callbacks=[ScoreEarlyStopping()]).fit(parts.module, datamodule=parts.data)


@pytest.mark.slow
def test_a_timeline_of_the_group_is_written_into_the_runs_folder(tmp_path: Path) -> None:
    words = [f"results_dir={tmp_path}", "name=traced", "callbacks=timeline", "callbacks.timeline.skip_epochs=0"]
    run(composed(tmp_path / "traced" / "run", *words))
    assert len(list(tmp_path.glob("**/timeline.json"))) == len(list(tmp_path.glob("**/timeline.png"))) == 1


@pytest.mark.slow
def test_an_average_of_the_group_is_the_policy_of_the_checkpoint_and_of_the_run(tmp_path: Path) -> None:
    parts = build(composed(tmp_path, "callbacks=policy_average", "callbacks.policy_average.share=0.5"))
    parts.fit()
    saved = torch.load(parts.last_checkpoint, weights_only=True)
    trained, average = saved["current_model_state"], saved["state_dict"]
    policy = load_policy(parts.last_checkpoint).actor_critic.state_dict()
    assert all(torch.equal(weight, average[f"actor_critic.{name}"]) for name, weight in policy.items())
    assert all(torch.equal(weight, average[name]) for name, weight in parts.module.state_dict().items())
    assert any(not torch.equal(weight, average[name]) for name, weight in trained.items())


@pytest.mark.slow
def test_lightnings_learning_rate_monitor_writes_to_the_loggers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        parts = build(composed(tmp_path, "callbacks=learning_rate_monitor", "trainer.log_every_n_steps=1"))
        parts.fit()
    (logger,) = parts.trainer.loggers
    assert isinstance(logger, CSVLogger)
    assert "lr-AdamW" in Path(logger.log_dir, "metrics.csv").read_text(encoding="utf-8").splitlines()[0]
