"""A checkpoint at the end of a fit, whether it ends as planned, by a signal or by an error.

::

    signal --> present step ends --> Lightning leaves its loop --> on_exception: last.ckpt --> workers stop
    last epoch --> last matches --> on_train_end: last.ckpt --> curves, last game
                        +-- error: on_exception: last.ckpt --> workers stop
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from keisei_lightning.errors import ConfigError
from keisei_lightning.system import stopping
from keisei_lightning.system.stopping import Stopped, temporary_file
from keisei_lightning.training.checkpoint import UnsaveableStateError
from keisei_lightning.training.ddp import StopAgreement
from keisei_lightning.training.evaluation import is_last_epoch
from keisei_lightning.training.integrity import temporary_path

__all__ = ["FinalCheckpoint", "OrderlyStop"]

log = logging.getLogger(__name__)


_REQUEUE_S = 60.0
"""How long SLURM's controller may take to answer."""


def _run(command: Sequence[str]) -> int:
    return subprocess.run(command, check=False, timeout=_REQUEUE_S).returncode


class OrderlyStop(Callback):
    """Ends a fit after the present step when a signal asks for it, and saves a checkpoint.

    It must be the first callback: it starts and ends the time in which signals are deferred. With plain Lightning,
    without :class:`~keisei_lightning.system.stopping.StopSignals`, it saves when SIGTERM has ended the loop.

    It also saves when an error occurs after the last step of a fit, such as in the last matches. An error before that
    saves nothing: weights that it may have spoilt must not replace good ones.

    Nothing is saved if no step has been taken since the start: such a checkpoint would be the newest, and hold less
    than the one before it.

    Of several ranks each may get the signal: they agree on it in every step, and in all that they do together, so that
    all stop after the same step and save one checkpoint together. An error of one rank saves nothing, since the others
    are not there to save with it.

    In a SLURM job with requeueing (``sbatch --signal=USR1@90``), SIGUSR1 saves in the same way, then calls
    ``scontrol requeue``. Lightning's own handler saves immediately, even in the middle of a step, and to a file that
    only a run in the same folder finds.

    Args:
        path: where to save; None: never.
        run_command: runs a command and returns its exit status; injected by tests.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, run_command: Callable[[Sequence[str]], int] = _run
    ) -> None:
        self.path = None if path is None else Path(path)
        self.saved: Path | None = None
        """What was saved when a signal or an error ended the fit."""
        self._run_command = run_command
        self._start_position: tuple[int, int] | None = None
        self._step = ExitStack()
        self._all_learned = False
        self._agreement: StopAgreement | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take SLURM's signal, before Lightning does."""
        if stage == "fit" and self.path is not None and SLURMEnvironment.detect():
            stopping.listen_to(signal.SIGUSR1)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Defer signals from here on, and note where training starts."""
        self._start_position, self._all_learned = _position(trainer), False
        stopping.defer()
        if stopping.is_active() and trainer.world_size > 1:
            self._agreement = StopAgreement(trainer)
            stopping.stop_together(self._agreement.note)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Let the step that begins end, however long it takes."""
        self._step.close()  # of a step that a callback has skipped
        self._step.enter_context(stopping.uninterruptible())
        if self._agreement is not None:
            self._agreement.begin(stopping.requested())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the uninterruptible part; of several ranks, learn whether all stop here."""
        self._step.close()
        if self._agreement is not None and (signum := self._agreement.take()) is not None:
            stopping.stop_all(signum)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note whether this is the last epoch, before any other callback acts at its end."""
        self._all_learned = is_last_epoch(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the deferral: no step follows at which the loop could end.

        Raises:
            Stopped: a signal came during the last steps.
        """
        if self._agreement is not None:
            self._agreement.begin(stopping.requested())
            if (signum := self._agreement.take()) is not None:
                stopping.stop_all(signum)
        stopping.stop_deferring(end=self._agreement is None or self._agreement.agreed is not None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save, if a signal ended the fit or all steps are done; always stop the workers before other callbacks act.

        Raises:
            OSError: a signal ended the fit, and the checkpoint cannot be saved.
        """
        # Of several ranks, all have raised this while signals were deferred, or one of them at some other time.
        all_stop = self._agreement is None or self._agreement.agreed is not None or stopping.deferred()
        stopping.stop_deferring()
        try:
            if isinstance(exception, Stopped | SIGTERMException):
                if all_stop:
                    self._save(trainer)
                if stopping.requested() == signal.SIGUSR1 and self._may_save(trainer) and trainer.is_global_zero:
                    self._requeue()
            elif self._all_learned and self._agreement is None:
                self._save_after(exception, trainer)
        finally:
            # Lightning calls the data module last, and not at all if this hook or another callback's raises.
            data: Any = getattr(trainer, "datamodule", None)
            if data is not None:
                data.on_exception(exception)

    def _save_after(self, exception: BaseException, trainer: Trainer) -> None:
        """Save after an error, which must reach the user even if saving fails."""
        try:
            self._save(trainer)
        except Exception as error:  # noqa: BLE001 - of two errors the user needs the first
            log.warning("the checkpoint could not be saved either: %s", error)
        else:
            if self.saved is not None:
                log.info("all steps were done before the %s: saved to %s", type(exception).__name__, self.saved)

    def _save(self, trainer: Trainer) -> None:
        """Save, unless no step has been taken."""
        if self.path is not None and self._may_save(trainer) and _position(trainer) != self._start_position:
            trainer.save_checkpoint(self.path, weights_only=False)  # with optimiser and progress, to resume from
            self.saved = self.path

    def _may_save(self, trainer: Trainer) -> bool:
        return self._start_position is not None and self.path is not None and not trainer.fast_dev_run  # type: ignore[attr-defined]

    def _requeue(self) -> None:
        """Ask SLURM to run the job again; if that fails, log where the checkpoint is."""
        job = os.environ["SLURM_JOB_ID"]
        if (array_job := os.environ.get("SLURM_ARRAY_JOB_ID")) is not None:
            job = f"{array_job}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        try:
            status = self._run_command(["scontrol", "requeue", job])
            reason = f"exit status {status}" if status else ""
        except OSError as error:
            reason = str(error.strerror)
        except subprocess.TimeoutExpired as error:
            reason = f"no answer in {error.timeout:g} s"
        if reason:
            log.error(
                "scontrol requeue %s: %s; the job will not run again, its checkpoint is %s", job, reason, self.saved
            )
        else:
            log.info("asked SLURM to run job %s again", job)


class FinalCheckpoint(Callback):
    """Saves a checkpoint at the end of training: in the last epoch no checkpoint may be due.

    Put it before all callbacks that act at the end (but after :class:`OrderlyStop`): what cannot be made again is saved
    first. The collector and its games still exist then.

    Before the first batch it saves once as a trial, and deletes the file: a folder that cannot be written to, a full
    disk, and a state that could not be read back are found then, and not after hours of training.

    Args:
        path: where to save.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save once as a trial.

        Raises:
            ConfigError: a state could not be read back.
            OSError: nothing can be written there.
        """
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        trial = temporary_path(self.path)  # hidden: no other run's search for checkpoints finds it
        with temporary_file(trial.with_name(f"{trial.name}.trial.tmp")) as file:
            try:
                trainer.save_checkpoint(file, weights_only=False)
            except UnsaveableStateError as error:
                raise ConfigError(f"this training could not be saved: {error.reason}") from error
            except OSError as error:
                raise type(error)(error.errno, error.strerror, str(self.path)) from error

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final weights, with optimiser and progress, to resume from."""
        trainer.save_checkpoint(self.path, weights_only=False)


def _position(trainer: Trainer) -> tuple[int, int]:
    """Where training is: optimiser steps and minibatches (which differ with gradient accumulation)."""
    return trainer.global_step, trainer.fit_loop.epoch_loop.batch_progress.total.completed
