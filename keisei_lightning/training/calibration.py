"""How well the value knows what comes of a game, by the games of the training itself."""

from __future__ import annotations

import logging
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keisei_lightning.evaluation.calibration import calibrate, error_and_brier_score
from keisei_lightning.training.calibration_picture import draw_calibration
from keisei_lightning.training.finished_games import FinishedGames, ValuedPlies
from keisei_lightning.training.picture_style import save

__all__ = ["CalibrationCallback"]

log = logging.getLogger(__name__)


class CalibrationCallback(Callback):
    """Compares the values of self-play with the results of its games, and draws the comparison at the end.

    Each iteration it logs ``self_play/calibration_error`` and ``self_play/brier_score``
    (:class:`~keisei_lightning.evaluation.calibration.Calibration`), and at the end of training writes
    ``calibration.png``, which the callback :class:`~keisei_lightning.training.ExperimentLog` logs.

    They are of the learner's last 20,000 plies or more whose games have ended by the rules (fewer at first, and after a
    resume), with the values of the policies that played them; nothing is played or evaluated for it. ``keisei runs
    plot`` instead lets the newest policy play games of its own. A discount ``gamma`` below 1 moves a value towards 0,
    the more the further the end is. With several learners (ranks) it is of the first one's games. A data module without
    ``finished_games``, and a collector that does not tell games apart, log nothing.

    Args:
        directory: where the picture is written; made if need be.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.files: list[Path] = []
        """What has been written."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the present numbers."""
        if len((plies := _plies(trainer)).game):
            error, brier = error_and_brier_score(plies.value, plies.result)
            numbers = {"self_play/calibration_error": error, "self_play/brier_score": brier}
            pl_module.log_dict(numbers, batch_size=1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw it."""
        plies = _plies(trainer)
        if not (trainer.is_global_zero and len(plies.game)) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        figure = draw_calibration(calibrate(plies.value, plies.result, plies.game), name="self-play of the training")
        try:
            self.files = [save(figure, self.directory / "calibration.png")]
        except Exception as error:  # noqa: BLE001 - a picture is worth no training's exit code
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            log.warning("calibration.png was not written to %s: %s", self.directory, reason)


def _plies(trainer: Trainer) -> ValuedPlies:
    games: FinishedGames | None = getattr(getattr(trainer, "datamodule", None), "finished_games", None)
    return ValuedPlies() if games is None else games.plies
