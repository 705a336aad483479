"""Runs are found, named and read as data; what is broken is told and stops nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import METRICS, write_run

from keisei_lightning.errors import ConfigError
from keisei_lightning.results_folder import (
    DiskUse,
    delete_run,
    different_options,
    disk_use,
    find_runs,
    newest_metrics,
    read_history,
    read_options,
    resolve_run,
    summarize_run,
    summarize_runs,
)
from keisei_lightning.results_folder.options_of_run import read_sections

DONE = {"state": "finished", "epochs": 2}


def test_a_summary_has_what_the_folder_tells(tmp_path: Path) -> None:
    run = write_run(tmp_path / "smoke" / "a", record=DONE)
    summary = summarize_run(run, tmp_path)
    assert (summary.name, summary.state, summary.game) == ("smoke/a", "finished", "tic_tac_toe")
    assert (summary.epochs, summary.max_epochs, summary.plies, summary.plies_per_s) == (2, 2, 2048, 200.0)
    assert (summary.opponent, summary.score, summary.rating) == ("random", 0.75, None)
    assert (summary.started_s, summary.minutes, summary.problems) == (1_700_000_000.0, 2.0, ())


def test_runs_are_found_at_any_depth_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    late = write_run(tmp_path / "smoke" / "late", began_s=2e9)
    early = write_run(tmp_path / "smoke" / "sweep_1" / "job_0", began_s=1e9)
    (tmp_path / "eval" / "2026").mkdir(parents=True)  # what `keisei eval` writes is no run
    (tmp_path / "linked").symlink_to(late)
    assert find_runs(tmp_path) == [late, early]
    assert [run.path for run in summarize_runs(tmp_path)] == [early, late]
    assert find_runs(late) == [late]
    assert find_runs(tmp_path / "nosuch") == []


def test_a_run_is_named_by_its_path_by_a_part_of_its_name_or_as_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_run(tmp_path / "shogi" / "2026-01-01", began_s=1e9)
    second = write_run(tmp_path / "shogi" / "2026-01-02", began_s=2e9)
    monkeypatch.chdir(tmp_path)
    assert resolve_run("01-01", tmp_path) == first
    assert resolve_run("shogi/2026-01-02", tmp_path).resolve() == second
    assert resolve_run("last", tmp_path) == second
    assert resolve_run(str(first), tmp_path / "nosuch") == first
    with pytest.raises(ConfigError, match=r"^shogi: may be any of shogi/2026-01-01, shogi/2026-01-02; give more"):
        resolve_run("shogi", tmp_path)
    with pytest.raises(ConfigError, match=r"^01-09: no run in .* has this in its name"):
        resolve_run("01-09", tmp_path)
    with pytest.raises(ConfigError, match="there are no runs in"):
        resolve_run("last", tmp_path / "nosuch")


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        (".hydra/config.yaml", b"a: [", "config.yaml is no YAML"),
        (".hydra/config.yaml", b"- 1", "is no configuration"),
        (".hydra/config.yaml", b"!!python/object/apply:os.system ['touch called']", "config.yaml is no YAML"),
        (".hydra/config.yaml", b"x" * 2_000_000, "larger than a configuration"),
        ("csv/metrics.csv", b"\xff\x00\n1,2\n", "metrics.csv has no header"),
        ("csv/metrics.csv", b"", "metrics.csv has no header"),
        ("run.json", b"{", ""),
    ],
)
def test_a_broken_file_is_a_line_and_the_list_still_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: bytes, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    broken, whole = write_run(tmp_path / "r" / "broken", record=DONE), write_run(tmp_path / "r" / "whole", record=DONE)
    (broken / file).write_bytes(content)
    by_path = {run.path: run for run in summarize_runs(tmp_path / "r")}
    assert by_path[whole].problems == ()
    assert problem in "".join([*by_path[broken].problems, by_path[broken].reason])
    assert all("\n" not in line for line in by_path[broken].problems)
    assert not (tmp_path / "called").exists()


def test_sections_alone_are_what_the_whole_file_says_of_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", options={"evaluation": {"opponents": ["a", "b(c=1)"], "ladder": None}, "seed": 1})
    whole = read_options(run)
    assert read_sections(run, ["trainer", "evaluation"]) == {name: whole[name] for name in ("trainer", "evaluation")}
    assert read_sections(run, ["trainer", "nosuch"]) == whole
    (run / ".hydra/config.yaml").write_text("env: {a: 1}\ntrainer:\n- 1\n# note\n\n- 2\nother: [")
    assert read_sections(run, ["env", "trainer"]) == {"env": {"a": 1}, "trainer": [1, 2]}


def test_a_yaml_file_that_repeats_itself_without_end_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{n}: &a{n} {{l: *a{n - 1}, r: *a{n - 1}}}" for n in range(1, 40)]
    (run / ".hydra/config.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="more than 20000 options"):
        different_options([read_options(run), {}])


def test_the_newest_value_of_each_metric_is_found_however_long_ago_it_was(tmp_path: Path) -> None:
    rows = ["0,0.5,0.6,0.4,10,1,0,1", *(f"{n},,,,{n * 10},1,{n},1" for n in range(1, 9000)), "9000,,,", "x,y"]
    file = tmp_path / "metrics.csv"
    file.write_text("\n".join([METRICS, *rows]))
    found = newest_metrics(file, until=lambda seen: "eval/score_vs_random" in seen and "epoch" in seen)
    assert (found["epoch"], found["self_play/plies"], found["eval/score_vs_random"]) == (8999.0, 89_990.0, 0.5)
    newest = newest_metrics(file, until=lambda seen: "epoch" in seen)
    assert "eval/score_vs_random" not in newest  # enough was found before


def test_a_history_has_a_row_for_each_epoch_without_what_is_no_number(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,step,a,b\n0,1,1.5,\n0,2,,2\n1,3,nan,inf\n1,4,word,3\n2,5\n")
    assert read_history(file) == [
        {"epoch": 0.0, "step": 2.0, "a": 1.5, "b": 2.0},
        {"epoch": 1.0, "step": 4.0, "b": 3.0},
    ]


def test_options_differ_by_their_whole_names(tmp_path: Path) -> None:
    one = {"ppo": {"gamma": 1, "lmbda": 2}, "callbacks": {}, "evaluation": {"opponents": ["random"]}}
    two = {"ppo": {"gamma": 3, "lmbda": 2}, "callbacks": {}, "evaluation": {"opponents": ["random"]}, "seed": 1}
    assert different_options([one, two]) == {"ppo.gamma": [1, 3], "seed": [None, 1]}


def test_disk_use_follows_no_link(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "csv").mkdir(parents=True)
    (run / "a.ckpt").write_bytes(b"1" * 100)
    (run / "csv" / "metrics.csv").write_bytes(b"1" * 10)
    (run / "note").write_bytes(b"1")
    (tmp_path / "large").write_bytes(b"1" * 10_000)
    before = disk_use(run)
    assert before == DiskUse(checkpoints=100, logs=10, rest=1)
    (run / "link").symlink_to(tmp_path / "large")
    assert before.total < disk_use(run).total < 10_000


def test_deleting_a_run_deletes_its_folder_alone_and_no_linked_file(tmp_path: Path) -> None:
    results, outside = tmp_path / "results", tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    run, other = write_run(results / "n" / "a", record=DONE), write_run(results / "n" / "b", record=DONE)
    (run / "link").symlink_to(outside)
    delete_run(run, results)
    assert (run.exists(), other.exists(), (outside / "kept").read_text()) == (False, True, "kept")


def test_nothing_is_deleted_outside_of_the_results_or_through_a_link(tmp_path: Path) -> None:
    results = tmp_path / "results"
    outside, inside = write_run(tmp_path / "elsewhere"), write_run(results / "n" / "a")
    (results / "to_outside").symlink_to(outside)
    (results / "to_inside").symlink_to(results / "n")
    for path, reason in (
        (outside, "must lie inside of"),
        (results / "to_outside", "must lie inside of"),
        (results / "to_inside" / "a", "is a link"),
        (results, "must lie inside of"),
        (results / "n", "is no run's folder"),
        (results / "n" / ".." / ".." / "elsewhere", "must lie inside of"),
    ):
        with pytest.raises(ConfigError, match=reason):
            delete_run(path, results)
    assert outside.is_dir()
    assert inside.is_dir()


def test_results_behind_a_link_are_still_results(tmp_path: Path) -> None:
    run = write_run(tmp_path / "disk" / "a")
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    delete_run(tmp_path / "results" / "a", tmp_path / "results")
    assert not run.exists()


def test_a_run_that_is_going_on_is_not_deleted(tmp_path: Path) -> None:
    from keisei_lightning.results_folder import run_record

    run = write_run(tmp_path / "results" / "a")
    with run_record(run, lambda: 1), pytest.raises(ConfigError, match="is going on"):
        delete_run(run, tmp_path / "results")
    assert run.is_dir()


@pytest.mark.slow
def test_the_reader_needs_no_torch() -> None:
    code = (
        "import sys, keisei_lightning.results_folder\n"
        "sys.exit(bool({'torch', 'lightning', 'hydra', 'matplotlib'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_no_more_folders_are_looked_at_than_is_wanted(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"run_{number}" / "csv").mkdir(parents=True)
        (tmp_path / f"run_{number}" / "csv" / "metrics.csv").write_text("epoch\n")
    assert len(find_runs(tmp_path)) == 20
    assert len(find_runs(tmp_path, max_folders=6)) == 5  # the first look is at the folder itself
