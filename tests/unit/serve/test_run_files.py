"""What clients may see of the folders of trainings; nothing outside of them."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keisei_lightning.results_folder import run_record
from keisei_lightning.serve.run_files import RunFolder, read_tail, run_folders
from keisei_lightning.training.live_file import LiveBoard, LiveState, LiveWorker


def make_run(folder: Path, *, game: str = "shogi", rows: str = "step,a\n1,2\n") -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/config.yaml").write_text(f"env:\n  game: {game}\n")
    (folder / "csv").mkdir()
    (folder / "csv/metrics.csv").write_text(rows)
    return folder


def test_runs_are_found_the_newest_first_with_their_games(tmp_path: Path) -> None:
    for number, name in enumerate(("old/run", "new/run")):
        run = make_run(tmp_path / name, game=name[:3])
        for file in run.rglob("*.*"):
            os.utime(file, (1000 + number, 1000 + number))
    found = run_folders(tmp_path)
    assert [(run.name, run.game, run.changed_at) for run in found] == [
        ("new/run", "new", 1001),
        ("old/run", "old", 1000),
    ]
    assert len({run.key for run in found}) == 2
    assert run_folders(tmp_path / "missing") == []


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside = make_run(tmp_path / "outside")
    (outside / "train.log").write_text("secret")
    root = tmp_path / "results"
    run = make_run(root / "run")
    (root / "linked").symlink_to(outside)
    (run / "train.log").symlink_to(outside / "train.log")
    (run / "checkpoints").mkdir()
    (run / "checkpoints/last.ckpt").symlink_to(outside / "train.log")
    (only,) = run_folders(root)
    assert only.name == "run"
    assert only.file("train.log") is None
    assert only.file("../../outside/train.log") is None
    assert only.checkpoints() == []
    assert read_tail(only.file("train.log"), 100) == ""


@pytest.mark.parametrize(
    "text", ["env: [", "- 1", "env: 3", "a: &a [*a]", "env: {game: 7}", "!!python/object:os.system {}"]
)
def test_a_configuration_that_cannot_be_read_has_no_game(tmp_path: Path, text: str) -> None:
    run = make_run(tmp_path / "run")
    (run / ".hydra/config.yaml").write_text(text)
    assert run_folders(tmp_path)[0].game == ""


def test_the_league_is_that_of_the_latest_period(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "league.csv").write_text("period,opponent,wins\nsnapshot 1,random,3\nlearner,random,5\nlearner,tactics,2\n")
    rows = run_folders(tmp_path)[0].league()
    assert rows == [
        {"period": "learner", "opponent": "random", "wins": "5"},
        {"period": "learner", "opponent": "tactics", "wins": "2"},
    ]


def test_a_league_with_a_cell_that_is_too_long_is_none(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "league.csv").write_text(f"period,opponent,wins\nlearner,{'x' * 200_000},5\n")
    assert run_folders(tmp_path)[0].league() == []


def test_of_a_long_log_the_last_whole_lines_are_read(tmp_path: Path) -> None:
    file = tmp_path / "train.log"
    file.write_text("".join(f"line {number}\n" for number in range(1000)))
    assert read_tail(file, 30) == "line 997\nline 998\nline 999\n"


def live_text(**changes: Any) -> str:
    board = LiveBoard(worker=1, board=0, ply=12, mover=0, svg="<svg/>")
    worker = LiveWorker(name="worker 0", state="running", restarts=1)
    return replace(LiveState(time_s=1e9, epoch=1, plies=64, workers=(worker,), boards=(board,)), **changes).to_json()


def test_the_state_of_a_training_that_cannot_be_seen_to_be_alive_is_told_while_it_is_new(tmp_path: Path) -> None:
    run = RunFolder(make_run(tmp_path / "run"), tmp_path)
    file = run.path / "live.json"
    assert run.live() is None
    file.write_text(live_text())
    found = run.live()
    assert found is not None
    assert found[0] == LiveState.parse(live_text())
    then = file.stat().st_mtime - 100
    os.utime(file, (then, then))
    assert run.live() is None
    assert run.changed_at > then


@pytest.mark.parametrize(
    ("state", "is_told"),
    [("running", False), ("finished", False), ("stopped", False), ("failed", False), ("nonsense", True)],
)
def test_a_training_that_has_ended_has_no_state(tmp_path: Path, state: str, is_told: bool) -> None:
    run = RunFolder(make_run(tmp_path / "run"), tmp_path)
    (run.path / "live.json").write_text(live_text())
    record = {"state": state, "host": platform.node(), "pid": 1}  # nobody holds its lock: it was killed
    (run.path / "run.json").write_text(json.dumps(record))
    assert (run.live() is not None) == is_told


def test_a_training_that_goes_on_has_a_state_however_old_it_is(tmp_path: Path) -> None:
    run = RunFolder(make_run(tmp_path / "run"), tmp_path)
    with run_record(run.path, lambda: 0):
        (run.path / "live.json").write_text(live_text())
        os.utime(run.path / "live.json", (1000, 1000))
        found = run.live()
        assert found is not None
        assert found[1] > 1e6
    assert run.live() is None


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff\xfe", b"[" * 100_000, live_text(epoch=-1).encode(), b" " * 5_000_000]
)
def test_a_state_that_is_none_is_not_told(tmp_path: Path, content: bytes) -> None:
    run = RunFolder(make_run(tmp_path / "run"), tmp_path)
    (run.path / "live.json").write_bytes(content)
    assert run.live() is None


def test_a_state_that_is_a_link_a_folder_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    root = tmp_path / "results"
    run = RunFolder(make_run(root / "run"), root)
    (tmp_path / "secret").write_text(live_text())
    (run.path / "live.json").symlink_to(tmp_path / "secret")
    assert run.live() is None
    (run.path / "live.json").unlink()
    (run.path / "live.json").mkdir()
    assert run.live() is None
    (run.path / "live.json").rmdir()
    os.mkfifo(run.path / "live.json")
    assert run.live() is None
