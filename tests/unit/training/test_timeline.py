"""Who did what and when: spans of workers and learner, as a trace and a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from matplotlib.image import imread
from training_fakes import FakeCollector, NotingModule, quiet_trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.training import SelfPlayDataModule, TimelineCallback, WeightSyncCallback
from keisei_lightning.training.timeline import Span, plot_timeline

STEP_S = 0.25


class Clock:
    """Goes on by a quarter of a second each time it is looked at."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += STEP_S
        return self.now


class HealthyCollector(FakeCollector):
    """Has two workers, whose newest rollouts ended a tenth of a second ago and took one and two seconds."""

    def stats(self) -> dict[str, float]:
        return {**super().stats(), "publish_ms": 50.0}

    def health(self) -> list[dict[str, Any]]:
        return [
            {
                "name": f"worker {number}",
                "last_batch_age_s": 0.1,
                "last_batch_play_s": 1.0 + number,
                "policy_version": self.policy_version,
            }
            for number in range(2)
        ]


def traced(folder: Path, collector: FakeCollector, *, epochs: int, **options: Any) -> TimelineCallback:
    timeline = TimelineCallback(folder, clock=Clock(), **options)
    callbacks: list[Callback] = [WeightSyncCallback(), timeline]
    quiet_trainer(folder, max_epochs=epochs, callbacks=callbacks).fit(
        NotingModule(), datamodule=SelfPlayDataModule(collector, minibatch_size=16, num_epochs=1)
    )
    return timeline


def of_kind(timeline: TimelineCallback, kind: str) -> Iterator[Span]:
    return (span for span in timeline.spans if span.kind == kind)


def test_the_learners_spans_follow_one_another_without_a_gap_and_a_publish_ends_an_iteration(tmp_path: Path) -> None:
    timeline = traced(tmp_path, FakeCollector(), epochs=4, skip_epochs=1)
    learner = [span for span in timeline.spans if span.lane == "learner"]
    ordered = sorted(learner, key=lambda span: span.start_s)
    assert ordered[0].start_s == 0.0
    assert [span.start_s for span in ordered[1:]] == pytest.approx([span.end_s for span in ordered[:-1]])
    # Three of the four iterations are traced, of two optimiser steps each; a publish follows the last step of each.
    assert len(list(of_kind(timeline, "learn"))) == 6
    assert [span.version for span in of_kind(timeline, "publish")] == [3, 4, 5]


def test_a_workers_rollout_is_seen_once_and_lies_where_it_was_played(tmp_path: Path) -> None:
    timeline = traced(tmp_path, HealthyCollector(), epochs=3, skip_epochs=0)
    first, second = ([span for span in timeline.spans if span.lane == f"worker {number}"] for number in range(2))
    assert first[0].end_s - first[0].start_s == pytest.approx(1.0)
    assert second[0].end_s - second[0].start_s == pytest.approx(2.0)
    assert first[0].end_s == pytest.approx(-0.1)
    assert len(first) >= len(second) >= 1
    assert all(after.end_s - before.end_s > 0.5 for before, after in pairwise(first))


def test_a_publish_takes_as_long_as_the_collector_says(tmp_path: Path) -> None:
    timeline = traced(tmp_path, HealthyCollector(), epochs=2, skip_epochs=0)
    assert [span.end_s - span.start_s for span in of_kind(timeline, "publish")] == pytest.approx([0.05, 0.05])


def test_a_trace_ends_when_its_time_is_over_and_is_written_then(tmp_path: Path) -> None:
    timeline = traced(tmp_path, HealthyCollector(), epochs=8, skip_epochs=0, seconds=1.0)
    assert 1.0 <= max(span.end_s for span in timeline.spans) <= 1.0 + 2 * STEP_S
    trace = json.loads((tmp_path / "timeline.json").read_text())
    lanes = [event["args"]["name"] for event in trace["traceEvents"] if event["ph"] == "M"]
    assert lanes == ["worker 0", "worker 1", "learner"]
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(spans) == len(timeline.spans)
    assert sum(event["dur"] for event in spans) == pytest.approx(
        1e6 * sum(span.end_s - span.start_s for span in timeline.spans)
    )
    assert imread(tmp_path / "timeline.png").shape[1] > 1000


def test_a_training_that_ends_before_its_trace_leaves_what_there_is(tmp_path: Path) -> None:
    timeline = traced(tmp_path, FakeCollector(), epochs=3, skip_epochs=1, seconds=1e6)
    assert [path.name for path in timeline.files] == ["timeline.json", "timeline.png"]
    assert all(path.is_file() for path in timeline.files)


def test_a_training_that_ends_before_the_trace_begins_leaves_none(tmp_path: Path) -> None:
    timeline = traced(tmp_path, FakeCollector(), epochs=2, skip_epochs=5)
    assert timeline.files == []
    assert not (tmp_path / "timeline.json").exists()


def test_a_trace_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    traced(tmp_path / "file", FakeCollector(), epochs=2, skip_epochs=0)
    assert "the timeline was not written to" in caplog.text


def test_a_picture_of_the_last_seconds_shows_all_lanes(tmp_path: Path) -> None:
    spans = [
        Span(lane=lane, kind="play", start_s=start, end_s=start + 1.0)
        for lane in ("worker 10", "worker 2", "learner")
        for start in range(5)
    ]
    assert plot_timeline(spans, tmp_path / "picture.png", seconds=2.0).stat().st_size > 1000
    assert plot_timeline([], tmp_path / "empty.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds=0: must be above 0"),
        ({"seconds": float("nan")}, "seconds=nan: must be above 0"),
        ({"skip_epochs": -1}, "skip_epochs=-1: must be at least 0"),
    ],
)
def test_a_number_out_of_its_range_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        TimelineCallback(tmp_path, **options)
