"""``keisei runs``: what it prints of runs that were written by hand, and what it refuses."""

from __future__ import annotations

import io
import json
import shlex
import sys
from pathlib import Path

import pytest
from run_folders import write_run

from keisei_lightning.commands.main import main
from keisei_lightning.commands.runs.options import VERBS
from keisei_lightning.commands.runs.text import size

DONE = {"state": "finished", "epochs": 2}
STOPPED = {"state": "stopped", "reason": "stopped by SIGINT", "epochs": 1}


@pytest.fixture
def two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.chdir(tmp_path)
    first = write_run(tmp_path / "results" / "smoke" / "2026-01-01", record=DONE, began_s=1e9)
    second = write_run(
        tmp_path / "results" / "smoke" / "2026-01-02",
        record=STOPPED,
        began_s=2e9,
        rows=["0,0.5,0.6,0.4,1024,50,7,1"],
        options={"ppo": {"learning_rate": 0.01}},
        overrides=["experiment=smoke", 'env.game="hex(board_size=5)"', "ppo.learning_rate=0.01"],
    )
    return first, second


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["runs", *words]) == code
    out, err = capsys.readouterr()
    if code:
        assert out == ""
        return err
    assert err == ""
    return out


def test_the_list_has_a_line_for_each_run_and_one_for_each_that_did_not_finish(
    two_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    heading, first, second, note = printed(capsys).splitlines()
    assert heading.split()[:3] == ["began", "state", "epochs"]
    assert first.split()[2:9] == ["finished", "2/2", "2,048", "75.0%", "random", "-", "2.0"]
    assert second.split()[2:9] == ["stopped", "1/2", "1,024", "50.0%", "random", "-", "2.0"]
    assert first.endswith("smoke/2026-01-01")
    assert note == "smoke/2026-01-02: stopped: stopped by SIGINT"


def test_the_list_is_json_for_machines(two_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    runs = json.loads(printed(capsys, "list", "json=true"))
    assert [run["name"] for run in runs] == ["smoke/2026-01-01", "smoke/2026-01-02"]
    assert runs[0]["path"] == "results/smoke/2026-01-01"
    assert (runs[0]["score"], runs[0]["disk"]["checkpoints"] > 0) == (0.75, True)


def test_control_characters_in_a_folders_name_do_not_reach_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "results" / "a\x1b[2J\nb", record=DONE)
    out = printed(capsys)
    assert "\x1b" not in out
    assert "a\\x1b[2J\\nb" in out


def test_show_tells_state_scores_and_the_command_that_resumes(
    two_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(capsys, "show", "last")
    assert "stopped: stopped by SIGINT" in out
    assert "newest 50.0%, best 50.0% after 1 epochs" in out
    assert "keisei train experiment=smoke" in out
    content = json.loads(printed(capsys, "show", "01-01", "json=true"))
    assert content["scores"] == {
        "score against random": {"newest": 0.75, "best": 0.75, "best_epoch": 2, "is_rating": False}
    }


def test_compare_shows_the_options_that_differ_scores_and_speed(
    two_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line.split() for line in printed(capsys, "compare", "01-01", "01-02").splitlines()]
    assert ["A", "smoke/2026-01-01"] in lines
    assert ["ppo.learning_rate", "0.001", "0.01"] in lines
    assert ["score", "against", "random,", "best", "75.0%", "50.0%"] in lines
    assert ["plies/s,", "median", "epoch", "150", "50"] in lines
    content = json.loads(printed(capsys, "compare", "01-01", "01-02", "json=true"))
    assert content["different_options"] == {"ppo.learning_rate": [0.001, 0.01]}
    assert [run["median_plies_per_s"] for run in content["runs"]] == [150.0, 50.0]


def test_resume_prints_a_command_that_a_shell_takes_apart_as_it_was_typed(
    two_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert shlex.split(printed(capsys, "resume", "last")) == [
        *("keisei", "train", "experiment=smoke", 'env.game="hex(board_size=5)"', "ppo.learning_rate=0.01"),
        "ckpt_path=results/smoke/2026-01-02/checkpoints/last.ckpt",
    ]
    assert printed(capsys, "resume", "01-01").split()[-1] == "trainer.max_epochs=4"  # it is done: twice as many
    assert printed(capsys, "resume", "01-01", "epochs=9").split()[-1] == "trainer.max_epochs=9"


def test_resume_goes_to_the_folder_where_the_run_was_begun(
    two_runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (two_runs[1] / ".hydra/hydra.yaml").write_text(f"hydra: {{runtime: {{cwd: {str(tmp_path)!r}}}}}")
    (tmp_path / "other place").mkdir()
    monkeypatch.chdir(tmp_path / "other place")
    words = shlex.split(printed(capsys, "resume", "last", "folder=../results"))
    assert words[:4] == ["cd", str(tmp_path), "&&", "keisei"]
    assert words[-1] == "ckpt_path=results/smoke/2026-01-02/checkpoints/last.ckpt"


def test_resume_takes_the_newest_whole_checkpoint_or_says_that_there_is_none(
    two_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    last = two_runs[1] / "checkpoints/last.ckpt"
    earlier = last.with_name("epoch_00000.ckpt")
    earlier.write_bytes(last.read_bytes())
    last.write_bytes(last.read_bytes()[:-30])
    assert printed(capsys, "resume", "last").split()[-1].endswith("checkpoints/epoch_00000.ckpt")
    earlier.unlink()
    assert "its checkpoints are corrupt" in printed(capsys, "resume", "last", code=2)
    last.unlink()
    assert "it has no checkpoint" in printed(capsys, "resume", "last", code=2)


def test_delete_asks_and_without_anybody_to_ask_it_refuses(
    two_runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "yes=true deletes at once" in printed(capsys, "delete", "last", code=2)
    for answer, is_left in (("n\n", True), ("", True), ("y\n", False)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        out = printed(capsys, "delete", "01-02")
        assert ("kept" in out, two_runs[1].exists()) == (is_left, is_left)
    assert "deleted" in printed(capsys, "delete", "01-01", "yes=true")
    assert not two_runs[0].exists()


def test_where_one_run_may_not_be_deleted_none_is(
    two_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = write_run(tmp_path / "elsewhere")
    assert "must lie inside of results" in printed(capsys, "delete", "last", str(elsewhere), "yes=true", code=2)
    assert two_runs[1].is_dir()


def test_disk_adds_up(two_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(printed(capsys, "disk", "json=true"))
    assert len(content["runs"]) == 2
    assert all(run["total"] == run["checkpoints"] + run["logs"] + run["rest"] for run in content["runs"])
    total = sum(run["total"] for run in content["runs"])
    assert printed(capsys, "disk").splitlines()[-1].startswith(f"2 runs in results: {size(total)}; free on its disk: ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["shwo"], "runs shwo: there is no such word (did you mean show?); must be one of list, show, compare"),
        (["show"], "runs show: takes one RUN, got 0; write keisei runs show RUN"),
        (["compare", "last"], "runs compare: takes two RUNs or more, got 1"),
        (["list", "last"], "runs list: takes no RUN, got 1"),
        (["folder=nosuch"], "folder=nosuch: there is no such folder"),
        (["show", "nosuch"], "nosuch: no run in results has this in its name"),
        (["--all"], "--all: no such flag"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    two_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    err = printed(capsys, *words, code=2)
    assert err.startswith(f"keisei: {line}")
    assert err.count("\n") == 1


def test_help_names_every_word_and_each_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "--help")
    for name, verb in VERBS.items():
        assert f"  {name:<8} {verb.help}\n" in out
        own = printed(capsys, name, "--help")
        assert f"usage: keisei runs {name} " in own
        assert f"examples:\n  keisei runs {name}" in own


@pytest.mark.parametrize(("num_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456, "123 kB")])
def test_sizes_are_for_people(num_bytes: int, text: str) -> None:
    assert size(num_bytes) == text
    assert size(12_300_000_000) == "12.3 GB"
