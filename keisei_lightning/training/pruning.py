"""Ending a bad training early: a trial of Optuna's whose scores are worse than those of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keisei_lightning.errors import ConfigError
from keisei_lightning.launching import agreed
from keisei_lightning.system.studies import open_storage
from keisei_lightning.training.evaluation import EvaluationCallback, is_last_epoch
from keisei_lightning.training.ranks import ranks_of

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

__all__ = ["ScorePruning"]


class ScorePruning(Callback):
    """Reports the score of each evaluation to a trial of an Optuna study, and ends the training if it is a bad one.

    The study is reached through its storage, so that the training may run in any process: the one that asked for the
    trial, a launcher's, or another machine's. (Optuna's own callback for Lightning needs the trial itself, and reports
    at the end of a validation loop, which self-play does not have.)

    Put it after the :class:`EvaluationCallback`.

    Args:
        storage: of the study, as :func:`keisei_lightning.system.studies.open_storage` takes it.
        study_name: of the study in that storage.
        trial: its number. None, of any of the three: this training is no trial, and nothing is reported.
        pruner: decides; None: Optuna's ``MedianPruner``.
        monitor: a metric of an evaluation, such as ``eval/rating``; None: the score against the first opponent.

    Raises:
        ConfigError: (when training starts) there is no such trial, it has ended, or there is no ``EvaluationCallback``.
        optuna.TrialPruned: (at the end of an epoch, in all ranks) the trial is pruned.
    """

    def __init__(
        self,
        *,
        storage: str | None,
        study_name: str | None,
        trial: int | None,
        pruner: BasePruner | None = None,
        monitor: str | None = None,
    ) -> None:
        from optuna.pruners import MedianPruner

        self.storage, self.study_name, self.trial, self.monitor = storage, study_name, trial, monitor
        self.pruner = pruner or MedianPruner()
        self._evaluation: EvaluationCallback | None = None
        self._trial: _Trial | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the evaluation whose metric counts, and the trial."""
        if stage != "fit" or self.storage is None or self.study_name is None or self.trial is None:
            return
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        self._evaluation = next((each for each in callbacks if isinstance(each, EvaluationCallback)), None)
        if self._evaluation is None:
            raise ConfigError(f"{type(self).__name__}: needs an EvaluationCallback, whose metric it reports")
        self.monitor = self.monitor or self._evaluation.monitor
        if trainer.is_global_zero:
            self._trial = _Trial(self.storage, self.study_name, self.trial)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the score, if the policy has just been evaluated, and end the training if the trial is pruned.

        In the last epoch there is nothing left to save: the trial ends as any other.
        """
        from optuna import TrialPruned

        if self._evaluation is None or self.monitor is None:
            return
        if self._evaluation.evaluated_step != trainer.global_step:
            return
        epochs, score = trainer.current_epoch + 1, float(trainer.callback_metrics[self.monitor])

        def report() -> bool:
            if self._trial is None:  # the first rank's work
                return False
            self._trial.report(score, epochs)
            return not is_last_epoch(trainer) and self._trial.is_pruned_by(self.pruner)

        if any(ranks_of(trainer).collect("reporting the score to the study", report)):
            raise agreed(TrialPruned(f"after epoch {epochs} (trial {self.trial} of the study {self.study_name})"))


class _Trial:
    """A running trial of a study, reached through its storage.

    Raises:
        ConfigError: there is no such trial, or it has ended.
    """

    def __init__(self, storage: str, study_name: str, number: int) -> None:
        import optuna

        self._storage = open_storage(storage)
        where = f"trial {number} of the study {study_name} in {storage}"
        try:
            study_id = self._storage.get_study_id_from_name(study_name)
            self._trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        except KeyError as error:
            raise ConfigError(f"{where}: there is none") from error
        state = self._storage.get_trial(self._trial_id).state
        if state.is_finished():
            raise ConfigError(f"{where}: has ended ({state.name.lower()})")
        self._study = optuna.load_study(study_name=study_name, storage=self._storage)

    def report(self, score: float, epochs: int) -> None:
        self._storage.set_trial_intermediate_value(self._trial_id, epochs, score)

    def is_pruned_by(self, pruner: BasePruner) -> bool:
        return bool(pruner.prune(self._study, self._storage.get_trial(self._trial_id)))
