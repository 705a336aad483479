"""Curves are read on while they are written."""

from __future__ import annotations

from pathlib import Path

from keisei_lightning.results_folder import CurveReader


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


def test_a_cell_that_is_too_long_costs_its_row_alone(tmp_path: Path) -> None:
    file, long = tmp_path / "metrics.csv", "1" * 200_000
    reader = CurveReader()
    file.write_text(f"step,loss\n1,0.5\n2,{long}\n3,0.25\n")
    reader.read(file)
    assert reader.since(0, 0)["columns"] == {"step": [1, 3], "loss": [0.5, 0.25]}
    file.write_text(f"step,{long}\n1,0.5\n")
    reader.read(file)
    assert reader.since(0, 0)["columns"] == {}
