"""A callback for runs of several ranks: at one hook of one rank it makes a file, then waits to be killed or signalled.

``+callbacks.fault._target_=rank_faults.Dwells +callbacks.fault.hook=on_before_backward +callbacks.fault.rank=1 ...``
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keisei_lightning.system import stopping

__all__ = ["Dwells", "Raises"]


class Dwells(Callback):
    """Makes ``marker`` and waits, once, at a hook of one rank, until this rank gets a signal that asks it to stop.

    Args:
        hook: name of the callback's method.
        rank: where.
        marker: file that is made, with the process's number in it.
        epoch: in which epoch, from 0.
        seconds: how long, at most.
    """

    def __init__(self, hook: str, rank: int, marker: str, epoch: int = 1, seconds: float = 600.0) -> None:
        self._rank, self._marker, self._epoch, self._seconds = rank, Path(marker), epoch, seconds
        setattr(self, hook, self._act)

    def _act(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_rank == self._rank and trainer.current_epoch == self._epoch and not self._marker.exists():
            self._marker.write_text(str(os.getpid()))
            end = time.monotonic() + self._seconds
            while time.monotonic() < end and stopping.requested() is None:
                time.sleep(0.01)


class Raises(Callback):
    """Raises at the beginning of an epoch of one rank.

    Args:
        rank: where.
        epoch: in which epoch, from 0.
    """

    def __init__(self, rank: int, epoch: int = 1) -> None:
        self._rank, self._epoch = rank, epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise.

        Raises:
            ZeroDivisionError: as asked for.
        """
        if trainer.global_rank == self._rank and trainer.current_epoch == self._epoch:
            raise ZeroDivisionError("on purpose")
