"""Folders of trainings are found and read on while they are written; nothing outside of them is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keisei_lightning.serve.run_files import CurveReader, find_runs, read_tail


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
    found = find_runs(tmp_path)
    assert [(run.name, run.game, run.changed_at) for run in found] == [
        ("new/run", "new", 1001),
        ("old/run", "old", 1000),
    ]
    assert len({run.key for run in found}) == 2
    assert find_runs(tmp_path / "missing") == []


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside = make_run(tmp_path / "outside")
    (outside / "train.log").write_text("secret")
    root = tmp_path / "results"
    run = make_run(root / "run")
    (root / "linked").symlink_to(outside)
    (run / "train.log").symlink_to(outside / "train.log")
    (run / "checkpoints").mkdir()
    (run / "checkpoints/last.ckpt").symlink_to(outside / "train.log")
    (only,) = find_runs(root)
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
    assert find_runs(tmp_path)[0].game == ""


def test_a_curve_is_read_on_from_where_it_was_left(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    reader = CurveReader()
    reader.read(None)
    file.write_text("step,loss\n1,0.5\n2,")
    reader.read(file)
    first = reader.since(0, 0)
    assert first["columns"] == {"step": [1.0], "loss": [0.5]}
    with file.open("a") as stream:
        stream.write("\n3,0.25\n")
    reader.read(file)
    more = reader.since(first["generation"], 1)
    assert more == {
        "generation": first["generation"],
        "row": 1,
        "columns": {"step": [2.0, 3.0], "loss": [None, 0.25]},
        "latest": {"step": 3.0, "loss": 0.25},
    }
    assert reader.since(first["generation"] + 5, 1)["row"] == 0


def test_a_file_that_was_written_anew_is_read_from_its_start(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    reader = CurveReader()
    file.write_text("step,loss\n1,0.5\n2,0.4\n")
    reader.read(file)
    before = reader.since(0, 0)["generation"]
    file.write_text("step,loss,score\n1,0.5,\n2,0.4,\n3,nan,0.9\n")
    reader.read(file)
    told = reader.since(before, 2)
    assert told["generation"] != before
    assert told["row"] == 0
    assert told["columns"] == {"step": [1, 2, 3], "loss": [0.5, 0.4, None], "score": [None, None, 0.9]}
    assert told["latest"] == {"step": 3, "loss": 0.4, "score": 0.9}
    file.write_text("step,loss,score\n9,1,1\n")
    reader.read(file)
    assert reader.since(0, 0)["columns"]["step"] == [9]


def test_of_a_long_curve_a_bounded_number_of_points_is_kept_and_every_new_one_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    reader = CurveReader(max_points=100)
    file.write_text("step\n")
    for start in range(0, 5000, 50):
        with file.open("a") as stream:
            stream.writelines(f"{number}\n" for number in range(start, start + 50))
        reader.read(file)
    told = reader.since(0, 0)
    steps = told["columns"]["step"]
    assert 50 <= len(steps) <= 100
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert steps[-1] >= 4900
    assert told["latest"] == {"step": 4999}


def test_the_league_is_that_of_the_latest_period(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "league.csv").write_text("period,opponent,wins\nsnapshot 1,random,3\nlearner,random,5\nlearner,tactics,2\n")
    rows = find_runs(tmp_path)[0].league()
    assert rows == [
        {"period": "learner", "opponent": "random", "wins": "5"},
        {"period": "learner", "opponent": "tactics", "wins": "2"},
    ]


def test_of_a_long_log_the_last_whole_lines_are_read(tmp_path: Path) -> None:
    file = tmp_path / "train.log"
    file.write_text("".join(f"line {number}\n" for number in range(1000)))
    assert read_tail(file, 30) == "line 997\nline 998\nline 999\n"
