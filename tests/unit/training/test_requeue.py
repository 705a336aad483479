"""A job that SLURM cannot run again has saved, and says so."""

from __future__ import annotations

import logging
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keisei_lightning.system import stopping
from keisei_lightning.system.stopping import Stopped
from keisei_lightning.training.orderly_stop import OrderlyStop


class FakeTrainer:
    """Has taken some steps, and notes what it is asked to save."""

    fast_dev_run = False
    is_global_zero = True
    datamodule = None

    def __init__(self) -> None:
        self.global_step = 0
        progress = SimpleNamespace(total=SimpleNamespace(completed=0))
        self.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
        self.saved: list[Path] = []

    def save_checkpoint(self, path: Path, *, weights_only: bool) -> None:
        assert not weights_only
        self.saved.append(path)


def no_such_command(command: Sequence[str]) -> int:
    raise FileNotFoundError(2, "No such file or directory", command[0])


def no_answer(command: Sequence[str]) -> int:
    raise subprocess.TimeoutExpired(command, 60.0)


@pytest.mark.parametrize(
    ("run_command", "reason"),
    [
        (no_such_command, "No such file or directory"),
        (lambda command: 1, "exit status 1"),
        (no_answer, "no answer in 60 s"),
    ],
)
def test_a_job_that_cannot_be_requeued_has_saved_and_logs_it(
    run_command: Callable[[Sequence[str]], int],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    trainer: Any = FakeTrainer()
    stop = OrderlyStop(tmp_path / "last.ckpt", run_command=run_command)
    stop.on_train_start(trainer, None)  # type: ignore[arg-type]
    trainer.global_step = 7
    monkeypatch.setattr(stopping, "requested", lambda: signal.SIGUSR1)
    with caplog.at_level(logging.ERROR):
        stop.on_exception(trainer, None, Stopped(signal.SIGUSR1))  # type: ignore[arg-type]
    assert trainer.saved == [tmp_path / "last.ckpt"]
    assert [record.getMessage() for record in caplog.records] == [
        f"scontrol requeue 4711: {reason}; the job will not run again, its checkpoint is {tmp_path / 'last.ckpt'}"
    ]
