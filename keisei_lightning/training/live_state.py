"""Writes what is going on in a training: its workers, and pictures of games in progress, for ``keisei serve``."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keisei_lightning.errors import ConfigError
from keisei_lightning.training.files import write_whole
from keisei_lightning.training.live_file import LIVE_EVERY_S, LIVE_NAME, LiveBoard, LiveState, LiveWorker
from keisei_lightning.training.source import WatchableSource, source_of

__all__ = ["LiveStateCallback"]

log = logging.getLogger(__name__)

_MAX_SHARE: Final = 0.005  # of the time
_RETRY_S: Final = 60.0


class LiveStateCallback(Callback):
    """Writes ``live.json`` into the run's folder while the training goes on; a training that has ended has none.

    It is written after an optimiser step, so that during a long rollout or evaluation it grows old. It takes at most
    half a percent of the learner's time: where it is slow to write, it is written less often. Several learners (ranks)
    each have workers of their own; the first one writes its own. A file that cannot be written is a warning, and is
    tried again a minute later.

    Args:
        directory: where to write; made if need be.
        every_s: seconds between two states, at least.
        num_boards: games in progress to show, of as many workers as possible; 0: none.
        clock: seconds; injected by tests.

    Raises:
        ConfigError: a number is out of its range.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        every_s: float = LIVE_EVERY_S,
        num_boards: int = 4,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        errors = []
        if not 0 < every_s < float("inf"):
            errors.append(f"every_s={every_s}: must be above 0, and finite")
        if not 0 <= num_boards <= 64:
            errors.append(f"num_boards={num_boards}: must be from 0 to 64")
        if errors:
            raise ConfigError(errors)
        self.path = Path(directory) / LIVE_NAME
        """The file."""
        self.every_s, self.num_boards = every_s, num_boards
        self._clock = clock
        self._due = clock()
        self._has_failed = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the present state, if it is time."""
        started = self._clock()
        if started < self._due or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        try:
            self._write(trainer)
        except Exception as error:  # noqa: BLE001 - a state to look at is worth no training's exit code
            self._due = started + _RETRY_S
            if not self._has_failed:
                log.warning("%s was not written: %s", self.path, " ".join(f"{type(error).__name__}: {error}".split()))
            self._has_failed = True
        else:
            self._has_failed = False
            self._due = started + max(self.every_s, (self._clock() - started) / _MAX_SHARE)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the file."""
        self._remove(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the file."""
        self._remove(trainer)

    def _write(self, trainer: Trainer) -> None:
        source = source_of(trainer)
        state = LiveState(time_s=time.time(), epoch=trainer.current_epoch, plies=int(source.stats().get("plies", 0)))
        if isinstance(source, WatchableSource):
            state = replace(state, workers=_workers(source), boards=_boards(source)[: self.num_boards])
            source.draw_boards(self.num_boards)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, state.to_json().encode())

    def _remove(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            with contextlib.suppress(OSError):  # one that stays is told apart by its age, and by run.json
                self.path.unlink(missing_ok=True)


def _workers(source: WatchableSource) -> tuple[LiveWorker, ...]:
    return tuple(
        LiveWorker(
            name=worker["name"],
            state=str(worker["state"]),
            paused=worker["paused"],
            restarts=worker["restarts"],
            policy_lag=worker["policy_lag"],
            plies_per_s=worker["last_batch_plies_per_s"],
            last_rollout_s=worker["last_batch_age_s"],
        )
        for worker in source.health()
    )


def _boards(source: WatchableSource) -> tuple[LiveBoard, ...]:
    return tuple(
        LiveBoard(worker=worker, board=view.board, ply=view.ply, mover=view.mover, svg=view.svg)
        for worker, views in source.drawn_boards.items()
        for view in views
    )
