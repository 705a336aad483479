from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from fakes import counting_game
from lightning.pytorch import Callback, Trainer
from training_fakes import FakeCollector, NotingModule, PlayingModule, quiet_trainer

from keisei_lightning.evaluation import MatchResult, Tally
from keisei_lightning.training import (
    CurvesCallback,
    EvaluationCallback,
    SelfPlayDataModule,
    SelfPlayMetrics,
    plot_curves,
    write_last_game,
)

PNG = b"\x89PNG\r\n\x1a\n"


def clock() -> float:
    return 0.0


def fit(directory: Path, *, max_epochs: int, module: PlayingModule | None = None, **options: Any) -> CurvesCallback:
    curves = CurvesCallback(directory / "run", clock=clock)
    evaluation = EvaluationCallback(counting_game(), num_games=4, every_n_epochs=2, opening_plies=1)
    trainer = quiet_trainer(directory, max_epochs=max_epochs, callbacks=[SelfPlayMetrics(), evaluation, curves])
    trainer.fit(
        module or PlayingModule(),
        datamodule=SelfPlayDataModule(FakeCollector(), minibatch_size=32, num_epochs=1),
        **options,
    )
    trainer.save_checkpoint(directory / "last.ckpt")
    return curves


@pytest.mark.slow
def test_each_epoch_is_one_row_and_a_score_belongs_to_its_own_epoch(tmp_path: Path) -> None:
    rows = fit(tmp_path, max_epochs=5).history
    assert [(row["epoch"], row["global_step"], row["self_play/plies"]) for row in rows] == [
        (1.0, 1.0, 32.0),
        (2.0, 2.0, 64.0),
        (3.0, 3.0, 96.0),
        (4.0, 4.0, 128.0),
        (5.0, 5.0, 160.0),
    ]
    assert ["eval/score_vs_random" in row for row in rows] == [False, True, False, True, True]


@pytest.mark.slow
def test_a_run_leaves_its_curves_and_its_last_game(tmp_path: Path) -> None:
    curves = fit(tmp_path, max_epochs=2)
    assert [path.name for path in curves.files] == ["curves.png", "last_game.svg", "last_game.txt"]
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(PNG)
    moves = (tmp_path / "run" / "last_game.txt").read_text().split()
    assert 9 <= sum(int(move) for move in moves) <= 10  # an opening of one move at most, which adds 1 to 3


@pytest.mark.slow
def test_a_resumed_run_has_the_whole_history(tmp_path: Path) -> None:
    fit(tmp_path, max_epochs=2)
    resumed = fit(tmp_path, max_epochs=4, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert [row["epoch"] for row in resumed.history] == [1.0, 2.0, 3.0, 4.0]


def test_metrics_of_an_older_checkpoint_get_their_present_names() -> None:
    curves = CurvesCallback("unused")
    row = {"epoch": 1.0, "self_play/frames": 32.0, "self_play/frames_per_s": 8.0, "self_play/games": 2.0}
    curves.on_load_checkpoint(Trainer(logger=False), PlayingModule(), {"keisei_history": [row]})
    assert curves.history == [
        {"epoch": 1.0, "self_play/plies": 32.0, "self_play/plies_per_s": 8.0, "self_play/games": 2.0}
    ]


@pytest.mark.slow
def test_a_run_that_fails_leaves_what_it_has(tmp_path: Path) -> None:
    class FailsLater(PlayingModule):
        def training_step(self, minibatch: Any, batch_idx: int) -> Any:
            if self.current_epoch == 3:
                raise ValueError("on purpose")
            return super().training_step(minibatch, batch_idx)

    with pytest.raises(ValueError, match="on purpose"):
        fit(tmp_path, max_epochs=9, module=FailsLater())
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "curves.png",
        "last_game.svg",
        "last_game.txt",
    ]


def test_curves_that_cannot_be_written_do_not_hide_the_error_or_keep_the_workers(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    collector = FakeCollector()
    callbacks = [SelfPlayMetrics(), CurvesCallback(tmp_path / "file" / "run")]
    trainer = quiet_trainer(tmp_path, max_epochs=9, callbacks=callbacks)
    module = NotingModule(fail_at=(3, ValueError("on purpose")))
    with pytest.raises(ValueError, match="on purpose"):
        trainer.fit(module, datamodule=SelfPlayDataModule(collector, minibatch_size=32, num_epochs=1))
    assert collector.events[-1] == "shutdown"


@pytest.mark.slow
def test_a_picture_that_cannot_be_written_is_one_warning_and_the_others_are_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run" / "curves.png").mkdir(parents=True)
    (tmp_path / "run" / "last_game.txt").mkdir()
    curves = fit(tmp_path, max_epochs=2)
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"not all pictures of the training were written to {tmp_path / 'run'}: ")
    for name in ("curves.png", "last_game.txt"):
        assert f"IsADirectoryError: [Errno 21] Is a directory: '{tmp_path / 'run' / name}'" in record.message
    assert curves.files == []
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "curves.png",
        "last_game.svg",
        "last_game.txt",
    ]


@pytest.mark.slow
def test_on_a_full_disk_the_older_picture_stays_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plot_curves([], tmp_path / "curves.png")
    before = path.read_bytes()

    def full(self: Path, content: bytes) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=rf"^\[Errno 28\] No space left on device: '{path}'$"):
        plot_curves([{"epoch": 1.0, "train/entropy": 1.0}], path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


@pytest.mark.slow
def test_the_score_of_an_end_that_was_not_foreseen_is_in_its_epochs_row(tmp_path: Path) -> None:
    class Saves(Callback):  # as a final checkpoint does: the row is there before the last match is played
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.save_checkpoint(tmp_path / "first.ckpt")

    curves = CurvesCallback(tmp_path, clock=clock)
    evaluation = EvaluationCallback(counting_game(), num_games=4, every_n_epochs=0, opening_plies=1)
    evaluation.should_evaluate = lambda trainer: False  # type: ignore[method-assign]
    trainer = quiet_trainer(tmp_path, max_epochs=2, callbacks=[Saves(), SelfPlayMetrics(), evaluation, curves])
    data = SelfPlayDataModule(FakeCollector(), minibatch_size=32, num_epochs=1)
    trainer.fit(PlayingModule(), datamodule=data)
    assert ["eval/score_vs_random" in row for row in curves.history] == [False, True]
    assert [row["epoch"] for row in curves.history] == [1.0, 2.0]


@pytest.mark.slow
def test_curves_of_a_history_with_gaps_can_be_drawn(tmp_path: Path) -> None:
    history = [
        {"epoch": 1.0, "train/entropy": 1.0},
        {"epoch": 2.0, "eval/score_vs_random": 0.5, "eval/score_vs_random_low": 0.4, "eval/score_vs_random_high": 0.6},
    ]
    assert plot_curves(history, tmp_path / "some" / "c.png").read_bytes().startswith(PNG)
    assert plot_curves([], tmp_path / "empty.png").is_file()


def test_a_shogi_record_is_written_as_kif(tmp_path: Path) -> None:
    result = MatchResult(
        game="shogi",
        player="policy",
        opponent="random",
        as_first=Tally(wins=1),
        as_second=Tally(losses=1),
        last_record="7g7f",
        last_files={".kifu": "手数----指手\n", ".csa": "+7776FU"},
        last_svg="<svg/>",
    )
    assert [path.name for path in write_last_game(result, tmp_path)] == ["last_game.svg", "last_game.kifu"]
    assert (tmp_path / "last_game.kifu").read_text(encoding="utf-8") == "手数----指手\n"
