"""What a run's loggers record about it: every option, versions, games and curves."""

from __future__ import annotations

import logging
import platform
import re
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from matplotlib.image import imread

from keisei_lightning.models import num_parameters
from keisei_lightning.training.calibration import CalibrationCallback
from keisei_lightning.training.evaluation import EvaluationCallback
from keisei_lightning.training.league import LeagueCallback
from keisei_lightning.training.report import CurvesCallback
from keisei_lightning.training.saveable import plain
from keisei_lightning.training.source import find_source

__all__ = ["ExperimentLog", "log_picture", "log_text", "software_versions"]

log = logging.getLogger(__name__)

_DRAWING = (CurvesCallback, CalibrationCallback, LeagueCallback)
_PACKAGES = ("keisei-lightning", "torch", "lightning", "torchrl", "tensordict", "numpy")


class ExperimentLog(Callback):
    """Records in every logger of the trainer what the run is and what came of it, as far as the logger supports it.

    =============================  =================================================================================
    hyperparameters                those given, ``versions``, ``num_parameters``, and of the collector ``game``
                                   and ``plies_per_epoch``; beside what Lightning logs of the module itself
    text ``last_game``             the record of a game of each evaluation (TensorBoard, W&B, MLflow)
    picture ``curves``             at the end, as a :class:`CurvesCallback` has drawn them (the same)
    picture ``calibration``        at the end, of the value, by a :class:`CalibrationCallback` (the same)
    picture ``league``             at the end, payoff and ratings of a :class:`LeagueCallback` (the same)
    TensorBoard's table of runs    at the end, the hyperparameters with the last evaluation's score
    =============================  =================================================================================

    A logger that fails at one of these is a warning, never the end of a training. Put it after the
    :class:`EvaluationCallback`, the :class:`CurvesCallback` and the :class:`CalibrationCallback`.

    Args:
        hyperparameters: nested options by name, such as the whole configuration, with the seed.
    """

    def __init__(self, hyperparameters: Mapping[str, Any] | None = None) -> None:
        self.hyperparameters: dict[str, Any] = plain(dict(hyperparameters or {}))
        self._logged_step = -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the run is, before Lightning writes the hyperparameters to files."""
        source = find_source(trainer)
        of_collector = {} if source is None else {"game": source.spec.name, "plies_per_epoch": source.frames_per_batch}
        self.hyperparameters |= {
            "num_parameters": num_parameters(pl_module),
            "versions": software_versions(),
            **({} if source is None else {"collector": of_collector}),
        }
        _for_each_logger(trainer, lambda logger: logger.log_hyperparams(_with_plain_names(self.hyperparameters)))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log a game of the evaluation that has just been played."""
        self._log_game(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what came of the run."""
        self._log_game(trainer)
        step = trainer.global_step
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        drawing = [callback for callback in callbacks if isinstance(callback, _DRAWING)]
        files = [file for callback in drawing for file in callback.files]
        for picture in [file for file in files if file.suffix == ".png"]:
            _for_each_logger(trainer, partial(log_picture, name=picture.stem, path=picture, step=step))
        evaluation = _evaluation(trainer)
        if evaluation is not None and (result := evaluation.last_result) is not None:
            score = {f"final_{evaluation.monitor}": result.score}
            _for_each_logger(trainer, partial(self._log_table_of_runs, score=score, step=step))

    def _log_game(self, trainer: Trainer) -> None:
        evaluation = _evaluation(trainer)
        if evaluation is None or evaluation.last_result is None or evaluation.evaluated_step == self._logged_step:
            return
        step = self._logged_step = evaluation.evaluated_step
        record = evaluation.last_result.last_record
        if record:
            _for_each_logger(trainer, partial(log_text, name="last_game", text=record, step=step))

    def _log_table_of_runs(self, logger: Logger, score: dict[str, float], step: int) -> None:
        if isinstance(logger, TensorBoardLogger):  # shows hyperparameters only together with a metric
            logger.log_hyperparams(_with_plain_names(self.hyperparameters), metrics=score, step=step)


def log_text(logger: Logger, name: str, text: str, step: int) -> None:
    """Log a text of several lines, if the logger supports texts.

    Args:
        logger: one of Lightning's, or of another package.
        name: of the series of texts.
        text: shown as it is, line by line.
        step: optimiser steps.
    """
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_text"):  # TensorBoard, which reads Markdown
        experiment.add_text(name, textwrap.indent(text, "    "), step)
    elif hasattr(logger, "log_text"):  # W&B
        logger.log_text(key=name, columns=["step", name], data=[[step, text]])
    elif hasattr(experiment, "log_text") and hasattr(logger, "run_id"):  # MLflow
        experiment.log_text(logger.run_id, text, f"{name}/step_{step:07d}.txt")


def log_picture(logger: Logger, name: str, path: Path, step: int) -> None:
    """Log a picture, if the logger supports pictures.

    Args:
        logger: one of Lightning's, or of another package.
        name: of the series of pictures.
        path: a PNG file.
        step: optimiser steps.
    """
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_image"):  # TensorBoard; float [height, width, red, green, blue, opacity]
        experiment.add_image(name, imread(path)[:, :, :3], step, dataformats="HWC")
    elif hasattr(logger, "log_image"):  # W&B
        logger.log_image(key=name, images=[str(path)])
    elif hasattr(experiment, "log_artifact") and hasattr(logger, "run_id"):  # MLflow
        experiment.log_artifact(logger.run_id, str(path))


def software_versions() -> dict[str, str]:
    """Versions of Python and of what the numbers of a training depend on, by name."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # on the path, but not installed
            versions[name] = "unknown"
    return versions


def _with_plain_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with names that every tracker takes (MLflow: no parentheses, which a player's name may have)."""
    return {
        re.sub(r"[^\w .:/-]+", "_", name): _with_plain_names(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }


def _evaluation(trainer: Trainer) -> EvaluationCallback | None:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, EvaluationCallback)), None)


def _for_each_logger(trainer: Trainer, write: Callable[[Logger], object]) -> None:
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        try:
            write(logger)
        except Exception as error:  # noqa: BLE001 - a third party's logger may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            log.warning("%s could not log all of the run: %s", type(logger).__name__, reason)
