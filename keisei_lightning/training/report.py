"""What a run leaves to look at: the training curves as a picture, and one game."""

from __future__ import annotations

import functools
import io
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from keisei_lightning.evaluation import MatchResult
from keisei_lightning.system.stopping import requested
from keisei_lightning.training.evaluation import EvaluationCallback
from keisei_lightning.training.files import write_whole

__all__ = ["HISTORY_KEY", "CurvesCallback", "plot_curves", "write_last_game"]

HISTORY_KEY = "keisei_history"
"""Where a checkpoint keeps the metrics so far, so that a resumed run has the whole curves."""

_PLIES = "self_play/plies"

_OLDER_NAMES = {"self_play/frames": _PLIES, "self_play/frames_per_s": "self_play/plies_per_s"}
"""Metrics of checkpoints that earlier versions wrote, and what they are called now."""

log = logging.getLogger(__name__)

History = Sequence[Mapping[str, float]]
"""One mapping of metric names to numbers for each epoch; a name may be missing from an epoch."""


class CurvesCallback(Callback):
    """Keeps the metrics of every epoch, and at the end draws them and writes the last evaluation game.

    Files in ``directory``: ``curves.png``, and after an evaluation ``last_game.svg`` with the game's record:
    ``last_game.txt``, or a file that other programs read (:class:`~keisei_lightning.games.RecordedGame`). They are also
    written when training ends early. A file that cannot be written is a warning: the checkpoint has the data for it.

    Args:
        directory: where to write; made if need be.
        clock: seconds; injected by tests.
    """

    def __init__(self, directory: str | Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.directory = Path(directory)
        self.history: list[dict[str, float]] = []
        """Metrics by name for each epoch, with ``epoch``, ``global_step`` and ``minutes``."""
        self.files: list[Path] = []
        """What has been written."""
        self._clock = clock
        self._started = clock()
        self._minutes_before = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = self._clock()
        self._minutes_before = self.history[-1]["minutes"] if self.history else 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the metrics of the epoch before: only now are they complete."""
        self._record(trainer, epochs_done=trainer.current_epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the last epoch's metrics and write everything."""
        self._record(trainer, epochs_done=trainer.current_epoch)
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what there is; not after SIGTERM, whose sender waits only a few seconds."""
        signum = requested()
        if signum not in (None, signal.SIGINT) or (signum is None and isinstance(exception, SIGTERMException)):
            return
        self._write(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the metrics so far in the checkpoint: plain numbers."""
        epochs: Any = trainer.fit_loop.epoch_progress.current
        # Between two epochs, or at the end of one: its metrics are complete, unless an error has come before they were.
        if epochs.ready == (epochs.completed if trainer.interrupted else epochs.processed):
            self._record(trainer, epochs_done=epochs.processed)
        checkpoint[HISTORY_KEY] = [dict(row) for row in self.history]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the curves of the run that is resumed."""
        rows = checkpoint.get(HISTORY_KEY, [])
        self.history = [{_OLDER_NAMES.get(name, name): value for name, value in row.items()} for row in rows]

    def _record(self, trainer: Trainer, *, epochs_done: int) -> None:
        """Add one row; where that epoch has one, what it does not have yet (a score of the very end)."""
        if self.history and self.history[-1]["epoch"] > epochs_done:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        # Lightning shows the latest value of every metric; a score belongs to the epoch that it was played in only.
        scored = any(
            isinstance(callback, EvaluationCallback) and callback.evaluated_step == trainer.global_step
            for callback in trainer.callbacks  # type: ignore[attr-defined]
        )
        if not scored:
            metrics = {name: value for name, value in metrics.items() if not name.startswith("eval/")}
        if not metrics:
            return
        if self.history and self.history[-1]["epoch"] == epochs_done:
            self.history[-1] = metrics | self.history[-1]
            return
        minutes = self._minutes_before + (self._clock() - self._started) / 60.0
        position = {"epoch": float(epochs_done), "global_step": float(trainer.global_step), "minutes": minutes}
        self.history.append({**metrics, **position})

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.files, failed = [], []
        for write in self._writers(trainer):
            try:
                self.files += write()
            except Exception as error:  # noqa: BLE001 - a picture is worth no training's exit code
                failed.append(" ".join(f"{type(error).__name__}: {error}".split()))
        if failed:
            log.warning("not all pictures of the training were written to %s: %s", self.directory, "; ".join(failed))

    def _writers(self, trainer: Trainer) -> Iterator[Callable[[], list[Path]]]:
        """What is to be written: functions that return the files."""
        if self.history:
            yield lambda: [plot_curves(self.history, self.directory / "curves.png")]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EvaluationCallback) and (result := callback.last_result) is not None:
                yield functools.partial(write_last_game, result, self.directory)


def write_last_game(result: MatchResult, directory: str | Path) -> list[Path]:
    """Write the game that a match shows.

    Args:
        result: of a match.
        directory: where to write; made if need be.

    Returns:
        The files: ``last_game.svg``, the final position, and its record, ``last_game.txt`` where the game has no other.

    Raises:
        OSError: one cannot be written.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    ending, record = next(iter(result.last_files.items()), (".txt", result.last_record))
    files = []
    for path, text in (
        (folder / "last_game.svg", result.last_svg),
        (folder / f"last_game{ending}", record),
    ):
        if text:
            write_whole(path, text.encode())
            files.append(path)
    return files


def plot_curves(history: History, path: str | Path) -> Path:
    """Draw the curves of a training run.

    Args:
        history: metrics of each epoch, as :class:`CurvesCallback` keeps them. What is missing is left out.
        path: the PNG file; its folder is made if need be.

    Returns:
        The path.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    figure = Figure(figsize=(17, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 4).flatten()
    by_plies = any(_PLIES in row for row in history)
    for axes, draw in zip(panels, _PANELS, strict=True):
        draw(axes, history)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("plies" if by_plies else "epoch")
        if by_plies:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    write_whole(target, picture.getvalue())
    return target


def _points(history: History, *names: str) -> tuple[list[float], ...]:
    """Plies (or epochs) and the values of the given metrics, for the epochs that have them all."""
    rows = [row for row in history if all(name in row for name in names)]
    # An epoch before the first rollout has no plies yet.
    x = [row.get(_PLIES, row.get("epoch", 0.0)) for row in rows]
    return (x, *([row[name] for row in rows] for name in names))


def _lines(axes: Axes, history: History, title: str, lines: Mapping[str, str]) -> None:
    axes.set_title(title)
    for name, label in lines.items():
        x, y = _points(history, name)
        if x:
            axes.plot(x, y, label=label if len(lines) > 1 else None, linewidth=1.2)


def _draw_score(axes: Axes, history: History) -> None:
    axes.set_title("score (wins + draws / 2), 95 % interval")
    prefix = "eval/score_vs_"
    for name in sorted({name for row in history for name in row if name.startswith(prefix)}):
        if name.endswith(("_low", "_high")):
            continue
        x, score, low, high = _points(history, name, f"{name}_low", f"{name}_high")
        line = axes.plot(x, score, marker="o", markersize=3, label=f"against {name.removeprefix(prefix)}")[0]
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_ylim(0.0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_losses(axes: Axes, history: History) -> None:
    _lines(axes, history, "losses", {"train/loss_objective": "policy", "train/loss_critic": "value"})


def _draw_value(axes: Axes, history: History) -> None:
    _lines(axes, history, "explained variance of the value", {"train/explained_variance": "explained variance"})


def _draw_entropy(axes: Axes, history: History) -> None:
    _lines(axes, history, "entropy of the policy (nats)", {"train/entropy": "entropy"})


def _draw_kl(axes: Axes, history: History) -> None:
    _lines(axes, history, "policy change", {"train/kl_approx": "KL", "train/clip_fraction": "clipped share"})


def _draw_speed(axes: Axes, history: History) -> None:
    _lines(axes, history, "collected plies per second", {"self_play/plies_per_s": "plies/s"})
    axes.set_ylim(bottom=0.0)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_length(axes: Axes, history: History) -> None:
    _lines(axes, history, "game length (plies)", {"self_play/game_length_mean": "plies"})


def _draw_results(axes: Axes, history: History) -> None:
    shares = {
        "self_play/first_win_share": "first wins",
        "self_play/second_win_share": "second wins",
        "self_play/draw_share": "draws",
    }
    _lines(axes, history, "results of self-play", shares)
    axes.set_ylim(0.0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


_PANELS: tuple[Callable[[Axes, History], None], ...] = (
    _draw_score,
    _draw_losses,
    _draw_value,
    _draw_entropy,
    _draw_kl,
    _draw_speed,
    _draw_length,
    _draw_results,
)
