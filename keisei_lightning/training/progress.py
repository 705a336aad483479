"""Progress of a training: a bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, Timer
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from keisei_lightning.system.console import bar_on_screen
from keisei_lightning.training.evaluation import EvaluationCallback
from keisei_lightning.training.metrics import SelfPlayMetrics
from keisei_lightning.training.source import source_of

__all__ = ["TrainingProgress", "fraction_done"]

log = logging.getLogger(__name__)

_BAR_EVERY_S = 0.5


class TrainingProgress(ProgressBar):
    """One progress bar over the whole fit, with plies per second, games per second, policy lag and the latest score.

    On a terminal it is a bar, and log records (those of the workers too) appear above it. Otherwise it is one plain
    line every ``line_every_s`` seconds. Where it cannot be shown (a closed terminal), that is a warning, and training
    continues without it.

    Args:
        console: where to draw; None: standard error.
        line_every_s: seconds between lines when the output is no terminal.
        clock: seconds; injected by tests.
    """

    def __init__(
        self,
        *,
        console: Console | None = None,
        line_every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._console = console if console is not None else Console(stderr=True)
        self._line_every_s = line_every_s
        self._clock = clock
        self._enabled = True
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._screen = ExitStack()  # holds the bar
        self._started = self._shown = 0.0
        self._pace_since: tuple[float, float] | None = None  # when, and how much was done

    def disable(self) -> None:
        """Show nothing from now on (Lightning calls it on all processes but the first)."""
        self._enabled = False

    def enable(self) -> None:
        """Show progress again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        self._console.print(*args, **kwargs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the empty bar."""
        self._started = self._shown = self._clock()
        self._pace_since = None
        if self._enabled and self._console.is_terminal:
            with self._decorating():
                self._draw_bar(trainer)

    def _draw_bar(self, trainer: Trainer) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=self._console,
            transient=False,
        )
        self._task = self._progress.add_task(_epoch_text(trainer), total=None, detail="the workers are starting")
        _let_redraws_fail_softly(self._progress.live)
        self._screen.enter_context(bar_on_screen(self._progress))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the present state, not more often than a person can read."""
        every_s = _BAR_EVERY_S if self._progress is not None else self._line_every_s
        if self._enabled and self._clock() - self._shown >= every_s:
            with self._decorating():
                self._show(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to measure the pace after the first epoch, which includes the start of the workers."""
        if self._pace_since is None:
            self._pace_since = (self._clock(), fraction_done(trainer) or 0.0)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the last state, and leave it standing."""
        if self._enabled:
            with self._decorating():
                self._show(trainer)
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the terminal back, if that has not been done."""
        self._stop()

    def _show(self, trainer: Trainer) -> None:
        self._shown = self._clock()
        fraction = fraction_done(trainer)
        detail = "  ".join([*_figures(trainer), *self._time_left(fraction)])
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task, description=_epoch_text(trainer), total=1.0, completed=fraction or 0.0, detail=detail
            )
            return
        percent = "" if fraction is None else f"{fraction:4.0%}  "
        self._console.print(
            f"{_clock_text(self._shown - self._started)}  {_epoch_text(trainer)}  {percent}{detail}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def _time_left(self, fraction: float | None) -> list[str]:
        """The remaining time at the pace since the first epoch, as a list of no or one word."""
        if fraction is None or self._pace_since is None:
            return []
        since, done = self._pace_since
        if not done < fraction < 1.0:
            return []
        pace = (self._clock() - since) / (fraction - done)
        return [f"{_clock_text(pace * (1.0 - fraction))} left"]

    def _stop(self) -> None:
        self._progress = None
        with self._decorating():
            self._screen.close()

    @contextmanager
    def _decorating(self) -> Iterator[None]:
        """Context whose failure is logged, once, and ends the display but not the training."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever a console raises: a terminal may be closed at any time
            was_enabled, self._enabled = self._enabled, False
            self._stop()  # which may fail likewise
            if was_enabled:
                log.warning("progress is no longer shown: %s: %s", type(error).__name__, error)


def _let_redraws_fail_softly(live: Live) -> None:
    """Silence errors in rich's own thread, which redraws the bar and could not report them.

    The next write of the thread that trains fails too, and is logged.
    """
    redraw, trains = live.refresh, threading.get_ident()

    def refresh() -> None:
        try:
            redraw()
        except Exception:
            if threading.get_ident() == trains:
                raise

    live.refresh = refresh  # type: ignore[method-assign]


def fraction_done(trainer: Trainer) -> float | None:
    """How much of the fit is done, in [0, 1], by whichever limit is nearest: epochs, steps or time.

    Args:
        trainer: in a fit.

    Returns:
        None where the fit has no limit.
    """
    fractions = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and trainer.num_training_batches:
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        within = min(1.0, batches / trainer.num_training_batches)
        # Between two epochs the batches are those of the epoch that is done.
        epochs: Any = trainer.fit_loop.epoch_progress.current
        done = epochs.processed + (within if epochs.processed < epochs.started else 0.0)
        fractions.append(done / trainer.max_epochs)
    if trainer.max_steps > 0:
        fractions.append(trainer.global_step / trainer.max_steps)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (remaining := callback.time_remaining()) is not None:
            elapsed = callback.time_elapsed()
            fractions.append(elapsed / max(elapsed + remaining, 1e-9))
    return min(1.0, max(fractions)) if fractions else None


def _epoch_text(trainer: Trainer) -> str:
    """Number of the epoch, from 1, and of all epochs if that is limited."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    limit = trainer.max_epochs
    return f"epoch {max(1, epochs.ready)}" + ("" if limit is None or limit < 0 else f"/{limit}")


def _figures(trainer: Trainer) -> list[str]:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    # Of several learners (ranks) only all together are of interest, and only an iteration's end knows of them.
    combined = [callback.latest for callback in callbacks if isinstance(callback, SelfPlayMetrics)]
    stats = combined[0] if combined and trainer.world_size > 1 else source_of(trainer).stats()
    words = []
    if "plies_per_s" in stats:
        words.append(f"{stats['plies_per_s']:.0f} plies/s")
    if "games_per_s" in stats:
        words.append(f"{stats['games_per_s']:.1f} games/s")
    if "policy_lag_max" in stats:
        words.append(f"lag {stats['policy_lag_max']:.0f}")
    results = [callback.last_result for callback in callbacks if isinstance(callback, EvaluationCallback)]
    return words + [f"{result.score:.0%} against {result.opponent}" for result in results if result is not None]


def _clock_text(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:d}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:d}:{seconds:02d}"
