"""Who did what and when: workers, learner and weights over some seconds of a training, as a trace and a picture."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from keisei_lightning.errors import ConfigError
from keisei_lightning.training.files import write_whole
from keisei_lightning.training.source import source_of

__all__ = ["Span", "TimelineCallback", "plot_timeline"]

_LEARNER: Final = "learner"
_LEAST_WAIT_S: Final = 2e-4  # a shorter gap between two optimiser steps is nobody's wait
_COLOURS: Final = {"play": "#4477aa", "wait for rollouts": "#ccbb44", "learn": "#228833", "publish": "#ee6677"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Something that was done.

    Attributes:
        lane: who did it: ``"learner"`` or ``"worker 0"`` and so on.
        kind: ``"play"``, ``"wait for rollouts"``, ``"learn"`` or ``"publish"``.
        start_s: when it began, in seconds since the trace began.
        end_s: when it ended.
        version: of the weights that played it or were published; None: it has none.
    """

    lane: str
    kind: str
    start_s: float
    end_s: float
    version: int | None = None


class TimelineCallback(Callback):
    """Traces a training for some seconds.

    Files in ``directory``: ``timeline.json``, which ``chrome://tracing`` and https://ui.perfetto.dev open (Trace Event
    Format), and ``timeline.png``. A worker's span is its rollout, from the adoption of its weights to the learner's
    receipt; of several that come between two optimiser steps the newest is seen. What the learner does between two
    optimiser steps counts as waiting: it is waiting for rollouts, and preparing them.

    Put it behind ``WeightSyncCallback``, so that it sees what that one publishes.

    Args:
        directory: where to write; made if need be.
        seconds: how long to trace.
        skip_epochs: iterations before it begins: the first ones start the workers, and compile.
        clock: seconds; injected by tests.

    Raises:
        ConfigError: a number is out of its range.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        seconds: float = 60.0,
        skip_epochs: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        errors = []
        if not 0 < seconds < float("inf"):
            errors.append(f"seconds={seconds}: must be above 0, and finite")
        if skip_epochs < 0:
            errors.append(f"skip_epochs={skip_epochs}: must be at least 0")
        if errors:
            raise ConfigError(errors)
        self.directory, self.seconds, self.skip_epochs = Path(directory), seconds, skip_epochs
        self.spans: list[Span] = []
        """What has been seen."""
        self.files: list[Path] = []
        """What has been written."""
        self._clock = clock
        self._began: float | None = None
        self._learner_since = 0.0
        self._version = 0
        self._rollout_ends: dict[str, float] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The learner's wait is over."""
        if self.files or trainer.current_epoch < self.skip_epochs:
            return
        now = self._clock()
        if self._began is None:
            self._began, self._version = now, source_of(trainer).policy_version
        else:
            self._add(_LEARNER, "wait for rollouts", self._learner_since, now, least_s=_LEAST_WAIT_S)
        self._see_workers(trainer, now)
        self._learner_since = now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """An optimiser step is done, and perhaps a publish."""
        if self.files or self._began is None:
            return
        now, source = self._clock(), source_of(trainer)
        publish_s = 0.0
        if source.policy_version != self._version:
            publish_s = min(_publish_s(source), now - self._learner_since)
            self._version = source.policy_version
            self._add(_LEARNER, "publish", now - publish_s, now, version=self._version)
        self._add(_LEARNER, "learn", self._learner_since, now - publish_s)
        self._see_workers(trainer, now)
        self._learner_since = now
        if now - self._began >= self.seconds:
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The training ends before the trace does."""
        if not self.files and self.spans:
            self._write(trainer)

    def _add(
        self, lane: str, kind: str, start: float, end: float, *, version: int | None = None, least_s: float = 0.0
    ) -> None:
        assert self._began is not None
        if end - start >= least_s:
            self.spans.append(
                Span(lane=lane, kind=kind, start_s=start - self._began, end_s=end - self._began, version=version)
            )

    def _see_workers(self, trainer: Trainer, now: float) -> None:
        """Add the newest rollout of each worker, unless it has been seen."""
        health: Iterable[dict[str, Any]] = getattr(source_of(trainer), "health", list)()
        for worker in health:
            age_s, play_s = worker.get("last_batch_age_s"), worker.get("last_batch_play_s")
            if age_s is None or play_s is None:
                continue
            lane, end = worker["name"], now - age_s
            before = self._rollout_ends.get(lane)
            # The age is measured a little earlier than `now`: the same rollout seems to end a little later each time.
            if before is None or end - before > max(play_s / 2, 1e-3):
                self._rollout_ends[lane] = end
                self._add(lane, "play", end - play_s, end, version=worker.get("policy_version"))

    def _write(self, trainer: Trainer) -> None:
        self.files = [self.directory / "timeline.json", self.directory / "timeline.png"]
        if not trainer.is_global_zero:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_whole(self.files[0], json.dumps(_trace_events(self.spans)).encode())
            plot_timeline(self.spans, self.files[1])
        except Exception as error:  # noqa: BLE001 - a picture is worth no training's exit code
            log.warning("the timeline was not written to %s: %s: %s", self.directory, type(error).__name__, error)


def _publish_s(source: Any) -> float:
    """How long the last publish took."""
    return float(source.stats().get("publish_ms", 0.0)) / 1e3


def _trace_events(spans: Iterable[Span]) -> dict[str, Any]:
    """Spans in the Trace Event Format: times in microseconds, a thread for each lane."""
    lanes: dict[str, int] = {}
    events: list[dict[str, Any]] = []
    for span in spans:
        thread = lanes.setdefault(span.lane, len(lanes))
        duration_us = 1e6 * (span.end_s - span.start_s)
        events.append(
            {"name": span.kind, "ph": "X", "ts": 1e6 * span.start_s, "dur": duration_us, "pid": 0, "tid": thread}
            | ({} if span.version is None else {"args": {"weights": span.version}})
        )
    names = [
        {"name": "thread_name", "ph": "M", "pid": 0, "tid": thread, "args": {"name": lane}}
        for lane, thread in lanes.items()
    ]
    return {"traceEvents": [*names, *events], "displayTimeUnit": "ms"}


def plot_timeline(spans: Iterable[Span], path: str | Path, *, seconds: float | None = None) -> Path:
    """Draw spans, a lane for the learner and each worker.

    Args:
        spans: what was done.
        path: of the picture.
        seconds: draw the last so many; None: all.

    Returns:
        The path.
    """
    shown = list(spans)
    last_s = max((span.end_s for span in shown), default=0.0)
    first_s = 0.0 if seconds is None else max(0.0, last_s - seconds)
    shown = [span for span in shown if span.end_s >= first_s]
    lanes = [_LEARNER, *sorted({span.lane for span in shown} - {_LEARNER}, key=_by_number)]
    figure = Figure(figsize=(11, 1.4 + 0.4 * len(lanes)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row, lane in enumerate(lanes):
        for kind, colour in _COLOURS.items():
            own = [span for span in shown if span.lane == lane and span.kind == kind]
            bars = [(max(span.start_s, first_s), span.end_s - max(span.start_s, first_s)) for span in own]
            axes.broken_barh(bars, (row - 0.4, 0.8), facecolors=colour, edgecolors="white", linewidth=0.3)
    for span in shown:
        if span.kind == "publish":
            axes.axvline(span.end_s, color=_COLOURS["publish"], linewidth=0.6, alpha=0.6)
    axes.set_yticks(range(len(lanes)), lanes)
    axes.invert_yaxis()
    axes.set_xlim(first_s, max(last_s, first_s + 1e-3))
    axes.set_xlabel("seconds; a line is a publish of new weights")
    handles = [Patch(color=colour, label=kind) for kind, colour in _COLOURS.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_whole(Path(path), picture.getvalue())
    return Path(path)


def _by_number(lane: str) -> tuple[str, int]:
    name, _, number = lane.rpartition(" ")
    return (name, int(number)) if number.isdigit() else (lane, 0)
