from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fakes import counting_game
from rich.console import Console
from training_fakes import FakeCollector, PlayingModule, quiet_trainer

from keisei_lightning.training import EvaluationCallback, SelfPlayDataModule, TrainingProgress


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so much whenever it is read."""
    ticks: Iterator[int] = count()
    return lambda: next(ticks) * seconds


def shown(tmp_path: Path, *, terminal: bool, seconds: float = 0.01, **options: Any) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    progress = TrainingProgress(console=console, clock=ticking(seconds))
    evaluation = EvaluationCallback(counting_game(), num_games=4, every_n_epochs=1)
    trainer = quiet_trainer(tmp_path, enable_progress_bar=True, callbacks=[progress, evaluation], **options)
    trainer.fit(PlayingModule(), datamodule=SelfPlayDataModule(FakeCollector(), minibatch_size=8, num_epochs=1))
    return out.getvalue().splitlines()


def test_without_a_terminal_there_is_a_plain_line_every_ten_seconds(tmp_path: Path) -> None:
    # 8 batches; the clock goes on by 3 s at each look.
    lines = shown(tmp_path, terminal=False, seconds=3.0)
    assert 2 <= len(lines) <= 5
    assert "\x1b" not in "".join(lines)
    assert lines[-1].startswith("0:")
    assert "epoch 2/2  100%  1234 plies/s  5.5 games/s  lag 1  " in lines[-1]
    assert "% against random" in lines[-1]


def test_the_remaining_time_is_shown_from_the_second_epoch_on(tmp_path: Path) -> None:
    lines = shown(tmp_path, terminal=False, seconds=3.0, max_epochs=4)
    for line in lines:  # the first epoch waits for workers that start: its pace is not that of the others
        assert (" left" in line) == ("epoch 1/" not in line and "100%" not in line), line
    assert " left" not in lines[0]
    assert any(" left" in line for line in lines)


def test_a_short_run_without_a_terminal_says_one_line(tmp_path: Path) -> None:
    assert len(shown(tmp_path, terminal=False)) == 1


def test_on_a_terminal_there_is_one_bar_over_the_whole_fit(tmp_path: Path) -> None:
    text = "\n".join(shown(tmp_path, terminal=True, seconds=0.3))
    assert "epoch 2/2" in text
    assert "100%" in text
    assert "1234 plies/s" in text


def test_a_limit_by_time_or_steps_drives_the_bar_as_well(tmp_path: Path) -> None:
    assert " 100%" in shown(tmp_path, terminal=False, max_epochs=-1, max_steps=6)[-1]
    line = shown(tmp_path, terminal=False, max_epochs=-1, max_steps=6, max_time="00:01:00:00")[-1]
    assert "epoch 2" in line
    assert "epoch 2/" not in line


def test_the_terminal_is_given_back_after_an_error(tmp_path: Path) -> None:
    class Fails(PlayingModule):
        def training_step(self, minibatch: Any, batch_idx: int) -> Any:
            raise ValueError("on purpose")

    streams = (sys.stdout, sys.stderr)
    console = Console(file=io.StringIO(), force_terminal=True)
    trainer = quiet_trainer(tmp_path, enable_progress_bar=True, callbacks=[TrainingProgress(console=console)])
    with pytest.raises(ValueError, match="on purpose"):
        trainer.fit(Fails(), datamodule=SelfPlayDataModule(FakeCollector(), minibatch_size=8))
    assert (sys.stdout, sys.stderr) == streams


class GoneTerminal(io.StringIO):
    """Takes some writes, and then is gone as a terminal is whose connection was cut.

    Args:
        writes: that it takes.
    """

    def __init__(self, writes: int) -> None:
        super().__init__()
        self._left = writes

    def write(self, text: str) -> int:
        self._left -= 1
        if self._left < 0:
            raise OSError(5, "Input/output error")
        return super().write(text)


class Slowly(PlayingModule):
    """Takes long enough for a bar to be redrawn."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        time.sleep(0.04)
        return super().training_step(*args, **kwargs)


@pytest.mark.parametrize("module", [PlayingModule, Slowly])
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("writes", [0, 2])  # a bar's third is a redraw, or its end
def test_a_closed_terminal_ends_the_display_and_not_the_training(
    tmp_path: Path, module: type[PlayingModule], terminal: bool, writes: int, caplog: pytest.LogCaptureFixture
) -> None:
    streams = (sys.stdout, sys.stderr)
    console = Console(file=GoneTerminal(writes), force_terminal=terminal, width=120)
    progress = TrainingProgress(console=console, clock=ticking(20.0))
    trainer = quiet_trainer(tmp_path, enable_progress_bar=True, callbacks=[progress])
    trainer.fit(module(), datamodule=SelfPlayDataModule(FakeCollector(), minibatch_size=8, num_epochs=1))
    assert trainer.global_step == 8
    lines = [message for message in caplog.messages if message.startswith("progress is no longer shown")]
    assert lines == ["progress is no longer shown: OSError: [Errno 5] Input/output error"]
    assert (sys.stdout, sys.stderr) == streams
