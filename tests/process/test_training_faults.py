"""An error anywhere in training reaches the caller as it is, and no worker outlives it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from fakes import TinyNetwork, counting_game
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader

from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.training import (
    AtomicCheckpointIO,
    OrderlyStop,
    PPOModule,
    SelfPlayDataModule,
    WeightSyncCallback,
)

pytestmark = pytest.mark.process

GONE_WITHIN_S = 60.0


class OnPurposeError(Exception):
    pass


class Notes(Callback):
    """Notes the workers' process ids once training has begun."""

    def __init__(self, collector: SelfPlayCollector) -> None:
        self._collector = collector
        self.pids: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.pids = [worker["pid"] for worker in self._collector.health()]


class FailingStep(PPOModule):
    def training_step(self, minibatch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(minibatch, batch_idx)
        if batch_idx == 1:
            raise OnPurposeError
        return loss


class FailingValidation(PPOModule):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        raise OnPurposeError


class FailingCallback(Callback):
    def on_train_batch_end(self, *args: Any) -> None:
        raise OnPurposeError


class FailingOnException(Callback):
    """Fails once more while the first failure is being dealt with, before the data module gets it."""

    def on_train_batch_end(self, *args: Any) -> None:
        raise ValueError("the first")

    def on_exception(self, *args: Any) -> None:
        raise OnPurposeError


class FailingLogger(Logger):
    name, version = "failing", 0

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if any(name.startswith("train/") for name in metrics):
            raise OnPurposeError

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class WithValidation(SelfPlayDataModule):
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader([torch.zeros(1)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make_module", "callbacks", "logger"),
    [
        (FailingStep, [], False),
        (FailingValidation, [], False),
        (PPOModule, [FailingCallback()], False),
        (PPOModule, [FailingOnException()], False),
        (PPOModule, [], FailingLogger()),
    ],
    ids=["training_step", "validation", "callback", "on_exception", "logger"],
)
def test_the_error_reaches_the_caller_and_the_workers_have_ended(
    make_module: Callable[..., PPOModule], callbacks: list[Callback], logger: Any, tmp_path: Path
) -> None:
    actor_critic = ActorCritic(TinyNetwork())
    collector = SelfPlayCollector(
        counting_game(), actor_critic, num_workers=2, games_per_worker=4, plies_per_rollout=8, zero_copy=True
    )
    notes = Notes(collector)
    data = (WithValidation if make_module is FailingValidation else SelfPlayDataModule)(collector, minibatch_size=16)
    last = tmp_path / "last.ckpt"
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        logger=logger,
        plugins=[AtomicCheckpointIO()],
        callbacks=[OrderlyStop(last), WeightSyncCallback(), notes, *callbacks],
    )
    with pytest.raises(OnPurposeError):
        trainer.fit(make_module(actor_critic), datamodule=data)
    raised = time.monotonic()
    assert len(notes.pids) == 2
    while any(psutil.pid_exists(pid) for pid in notes.pids):
        assert time.monotonic() - raised < GONE_WITHIN_S
        time.sleep(0.01)
    assert not last.exists()  # weights that an error may have spoilt are not saved over good ones


def test_each_fit_of_one_data_module_has_workers_of_its_own_and_leaves_none(tmp_path: Path) -> None:
    actor_critic = ActorCritic(TinyNetwork())
    collector = SelfPlayCollector(counting_game(), actor_critic, num_workers=2, games_per_worker=4, plies_per_rollout=8)
    data = SelfPlayDataModule(collector, minibatch_size=16, num_epochs=1)
    seen: list[list[int]] = []
    for module, fails in ((PPOModule, False), (FailingStep, True), (PPOModule, False)):
        notes = Notes(collector)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=2,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            logger=False,
            callbacks=[notes],
        )
        with pytest.raises(OnPurposeError) if fails else contextlib.nullcontext():
            trainer.fit(module(actor_critic), datamodule=data)
        seen.append(notes.pids)
        deadline = time.monotonic() + GONE_WITHIN_S
        while any(psutil.pid_exists(pid) for pid in notes.pids):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert len({pid for pids in seen for pid in pids}) == 6
    assert (data.iteration, collector.plies) == (5, 5 * 64)
