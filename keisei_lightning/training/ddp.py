"""Several learner processes (ranks) under DDP: how they meet, agree to stop in a step, and note what each is doing."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from keisei_lightning.launching.phases import Phase, enter
from keisei_lightning.system.rank_place import RankPlace, present_place
from keisei_lightning.system.stopping import Stopped

__all__ = ["RankPhases", "StopAgreement", "join_group", "shared_by_first_rank", "strategy_of_ranks"]

_MEETING_TIMEOUT: Final = timedelta(minutes=10)
"""How long ranks of several machines may take to start."""

_stores: list[Any] = []
"""Stores that this process holds for the others; they end with it."""


class StopAgreement:
    """Agreement of all ranks on the signal by which they stop: one number, reduced over a group of its own (gloo).

    It is begun before a step and taken after it, so that nobody waits for it: the gradients' own reduction has met the
    other ranks meanwhile.

    Args:
        trainer: told to end its loop when the ranks agree.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._group = dist.new_group(backend="gloo", timeout=getattr(trainer.strategy, "_timeout", None))
        self._pending: tuple[dist.Work, Tensor] | None = None
        self.agreed: int | None = None
        """The signal that the ranks have agreed on."""

    def begin(self, signum: int | None) -> None:
        """Begin to agree; :meth:`take` has the answer.

        Args:
            signum: that this rank got; None: none.
        """
        self.take()  # of a step that a callback has skipped
        word = torch.tensor([signum or 0], dtype=torch.int32)
        work = dist.all_reduce(word, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._pending = (work, word)

    def take(self) -> int | None:
        """The signal by which all ranks stop; None: they go on.

        Raises:
            RuntimeError: a rank is gone, or does not answer in time.
        """
        if self._pending is not None:
            (work, word), self._pending = self._pending, None
            work.wait()
            self.agreed = int(word.item()) or self.agreed
        return self.agreed

    def note(self, signum: int) -> None:
        """Let Lightning's loop end at its own safe points: all ranks have agreed, here or elsewhere.

        Args:
            signum: the signal.
        """
        self.agreed = signum
        # Lightning's handler of SIGTERM would set this, and also broadcast from within a step.
        self._trainer._signal_connector.received_sigterm = True


class RankPhases(Callback):
    """Notes what this rank is doing, so that its parent can say so if it dies. Put it first."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Setting up."""
        enter(Phase.SETTING_UP)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The rollout of an epoch is collected with its first minibatch."""
        enter(Phase.COLLECTING)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """A step begins."""
        enter(Phase.LEARNING)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Gradients are computed, and averaged over the ranks."""
        enter(Phase.BACKWARD)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The optimiser's step follows."""
        enter(Phase.LEARNING)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluation, metrics and checkpoints follow."""
        enter(Phase.ENDING_AN_EPOCH)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A checkpoint is being put together, then written."""
        enter(Phase.SAVING)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Last matches and pictures follow."""
        enter(Phase.ENDING)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """After a signal the training ends; after an error what failed is what others must hear."""
        if isinstance(exception, Stopped | SIGTERMException):
            enter(Phase.ENDING)


def strategy_of_ranks(name: str, *, timeout_s: float) -> str | DDPStrategy:
    """Lightning's strategy for this process.

    Args:
        name: of the strategy, as Lightning knows it; "auto" is DDP where this process is one of several ranks.
        timeout_s: seconds that a rank waits for the others.

    Returns:
        The name itself where there is one rank.
    """
    place = present_place()
    if place is None or place.world_size == 1:
        return name
    return DDPStrategy(timeout=timedelta(seconds=timeout_s), find_unused_parameters=name.endswith("parameters_true"))


def shared_by_first_rank(text: str, place: RankPlace) -> str:
    """What rank 0 says, on every rank; before Lightning has made its process group, at the same address.

    Args:
        text: of this rank; that of rank 0 counts.
        place: of this process, which torchrun or SLURM has started.

    Raises:
        RuntimeError: rank 0 cannot be reached.
    """
    store = _store_of(place)
    key = f"shared/{len(_stores)}"
    _stores.append(store)
    if place.rank == 0:
        store.set(key, text)
        return text
    said: bytes = store.get(key)
    return said.decode()


def _store_of(place: RankPlace) -> Any:
    """Where the ranks of this attempt meet.

    A launcher that restarts all ranks gives them the store of the attempt before, with its addresses and words.
    """
    environment: ClusterEnvironment = SLURMEnvironment() if place.launcher == "SLURM" else TorchElasticEnvironment()
    url = f"tcp://{environment.main_address}:{environment.main_port}?rank={place.rank}&world_size={place.world_size}"
    store, _, _ = next(rendezvous(url, timeout=_MEETING_TIMEOUT))
    return PrefixStore(f"keisei/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def join_group(place: RankPlace, *, accelerator: str, timeout_s: float) -> None:
    """Make the process group of ranks that torchrun has started, before Lightning does.

    After a restart Lightning's could connect to a rank of the attempt before, whose address the store still has.

    Args:
        place: of this process.
        accelerator: of the trainer; ranks on the CPU talk by gloo, those on GPUs by NCCL.
        timeout_s: seconds that a rank waits for the others.
    """
    if place.launcher != "torchrun" or dist.is_initialized():
        return
    on_gpus = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    if on_gpus:
        torch.cuda.set_device(place.local_rank)
    dist.init_process_group(
        "nccl" if on_gpus else "gloo",
        store=PrefixStore("group", _store_of(place)),
        rank=place.rank,
        world_size=place.world_size,
        timeout=timedelta(seconds=timeout_s),
    )
