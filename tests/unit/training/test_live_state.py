"""The callback that writes what is going on: when, what, and that no training ends because of it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from training_fakes import FakeCollector, NotingModule, quiet_trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.parallel import WorkerState
from keisei_lightning.parallel.supervision.messages import BoardView
from keisei_lightning.training import LiveStateCallback, SelfPlayDataModule
from keisei_lightning.training import live_state as module
from keisei_lightning.training.live_file import LiveBoard, LiveState, LiveWorker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class WatchedCollector(FakeCollector):
    """Has two workers, and a picture of each as soon as it has been asked for one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[int] = []

    @property
    def drawn_boards(self) -> dict[int, tuple[BoardView, ...]]:
        view = BoardView(board=0, ply=len(self.asked), mover=1, svg="<svg/>")
        return {0: (view,), 1: (view, view)} if self.asked else {}

    def draw_boards(self, num_boards: int) -> None:
        self.asked.append(num_boards)

    def health(self) -> list[dict[str, Any]]:
        return [
            {
                "name": f"worker {number}",
                "state": WorkerState.RUNNING,
                "paused": number == 1,
                "restarts": number,
                "policy_lag": None,
                "last_batch_plies_per_s": 100.0 * number,
                "last_batch_age_s": 0.5,
                "rss_bytes": 1,
            }
            for number in range(2)
        ]


class EachStep(Callback):
    """Reads the file after each optimiser step, and lets time pass."""

    def __init__(self, live: LiveStateCallback, clock: Clock, step_s: float) -> None:
        self.live, self.clock, self.step_s = live, clock, step_s
        self.states: list[LiveState | None] = []

    def on_train_batch_end(self, *args: Any) -> None:
        path = self.live.path
        self.states.append(LiveState.parse(path.read_text()) if path.exists() else None)
        self.clock.now += self.step_s


def trained(
    folder: Path, collector: FakeCollector, *, epochs: int = 4, step_s: float = 0.5, **options: Any
) -> tuple[LiveStateCallback, list[LiveState | None]]:
    clock = Clock()
    live = LiveStateCallback(folder, clock=clock, **options)
    steps = EachStep(live, clock, step_s)
    data = SelfPlayDataModule(collector, minibatch_size=16, num_epochs=1)  # two steps in an epoch
    quiet_trainer(folder, max_epochs=epochs, callbacks=[live, steps]).fit(NotingModule(), datamodule=data)
    return live, steps.states


def test_the_state_is_written_at_once_and_then_in_its_period(tmp_path: Path) -> None:
    _, states = trained(tmp_path / "new", WatchedCollector(), every_s=1.0)
    assert [state and (state.epoch, state.plies, state.boards[:1]) for state in states] == [
        (0, 32, ()),
        (0, 32, ()),
        (1, 64, (LiveBoard(worker=0, board=0, ply=1, mover=1, svg="<svg/>"),)),
        (1, 64, (LiveBoard(worker=0, board=0, ply=1, mover=1, svg="<svg/>"),)),
        (2, 96, (LiveBoard(worker=0, board=0, ply=2, mover=1, svg="<svg/>"),)),
        (2, 96, (LiveBoard(worker=0, board=0, ply=2, mover=1, svg="<svg/>"),)),
        (3, 128, (LiveBoard(worker=0, board=0, ply=3, mover=1, svg="<svg/>"),)),
        (3, 128, (LiveBoard(worker=0, board=0, ply=3, mover=1, svg="<svg/>"),)),
    ]
    assert states[0] is not None
    assert states[0].workers == (
        LiveWorker(name="worker 0", state="running", plies_per_s=0.0, last_rollout_s=0.5),
        LiveWorker(name="worker 1", state="running", paused=True, restarts=1, plies_per_s=100.0, last_rollout_s=0.5),
    )
    assert list((tmp_path / "new").iterdir()) == []


def test_no_more_boards_are_written_than_are_asked_for(tmp_path: Path) -> None:
    collector = WatchedCollector()
    _, states = trained(tmp_path, collector, every_s=1.0, num_boards=2)
    assert states[-1] is not None
    assert [(board.worker, board.board) for board in states[-1].boards] == [(0, 0), (1, 0)]
    assert set(collector.asked) == {2}
    collector = WatchedCollector()
    _, states = trained(tmp_path, collector, every_s=1.0, num_boards=0)
    assert states[-1] is not None
    assert states[-1].boards == ()
    assert set(collector.asked) == {0}


def test_a_source_that_tells_of_no_workers_is_written_without_them(tmp_path: Path) -> None:
    _, states = trained(tmp_path, FakeCollector(), epochs=1)
    assert states[0] is not None
    assert (states[0].plies, states[0].workers, states[0].boards) == (32, (), ())


def test_what_is_slow_to_write_is_written_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    written: list[float] = []

    def slow(path: Path, content: bytes) -> None:
        clock.now += 1.0
        written.append(clock.now)

    monkeypatch.setattr(module, "write_whole", slow)
    live = LiveStateCallback(tmp_path, every_s=2.0, clock=clock)
    data = SelfPlayDataModule(WatchedCollector(), minibatch_size=16, num_epochs=1)
    steps = EachStep(live, clock, step_s=50.0)
    quiet_trainer(tmp_path, max_epochs=5, callbacks=[live, steps]).fit(NotingModule(), datamodule=data)
    assert written == [101.0, 302.0, 503.0]


def test_a_full_disk_is_one_warning_and_is_tried_again_a_minute_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[Path] = []

    def full(path: Path, content: bytes) -> None:
        tries.append(path)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(module, "write_whole", full)
    with caplog.at_level(logging.WARNING, logger="keisei_lightning"):
        _, states = trained(tmp_path, WatchedCollector(), epochs=5, step_s=20.0, every_s=2.0)
    assert states == [None] * 10
    assert len(tries) == 4
    (record,) = [record for record in caplog.records if "live.json" in record.getMessage()]
    assert "No space left on device" in record.getMessage()


def test_a_source_whose_health_fails_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Unhealthy(WatchedCollector):
        def health(self) -> list[dict[str, Any]]:
            raise RuntimeError("no pulse")

    with caplog.at_level(logging.WARNING, logger="keisei_lightning"):
        _, states = trained(tmp_path, Unhealthy(), epochs=1)
    assert states == [None, None]
    assert "RuntimeError: no pulse" in caplog.text


def test_a_training_that_fails_leaves_no_state(tmp_path: Path) -> None:
    live = LiveStateCallback(tmp_path)
    data = SelfPlayDataModule(WatchedCollector(), minibatch_size=16, num_epochs=1)
    seen = EachStep(live, Clock(), 0.0)
    with pytest.raises(ZeroDivisionError):
        quiet_trainer(tmp_path, callbacks=[live, seen]).fit(
            NotingModule(fail_at=(2, ZeroDivisionError())), datamodule=data
        )
    assert None not in seen.states
    assert not live.path.exists()


def later_rank(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(trainer), "is_global_zero", False)


def fast_dev_run(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "fast_dev_run", 1, raising=False)


@pytest.mark.parametrize("make", [later_rank, fast_dev_run])
def test_no_other_rank_and_no_trial_run_writes_or_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., None]
) -> None:
    collector = WatchedCollector()
    live = LiveStateCallback(tmp_path)
    trainer = quiet_trainer(tmp_path, max_epochs=1, callbacks=[live])
    make(trainer, monkeypatch)
    live.on_train_batch_end(trainer, NotingModule(), None, None, 0)
    assert not live.path.exists()
    assert collector.asked == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"every_s": 0.0}, "every_s=0.0: must be above 0, and finite"),
        ({"every_s": float("inf")}, "every_s=inf: must be above 0, and finite"),
        ({"num_boards": -1}, "num_boards=-1: must be from 0 to 64"),
        ({"num_boards": 65}, "num_boards=65: must be from 0 to 64"),
    ],
)
def test_a_number_out_of_its_range_is_refused(tmp_path: Path, options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        LiveStateCallback(tmp_path, **options)
    assert raised.value.errors == (line,)
