"""``tests/gpu.py`` (``make gpu``): every part runs here, with tiny sizes; one that fails or hangs stops no other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest

import keisei_lightning

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
sys.path[:0] = [str(TESTS), str(TESTS / "benchmarks")]

import gpu  # noqa: E402
from gpu_kernels import kernel_share  # noqa: E402
from gpu_program import setup  # noqa: E402
from gpu_program.figures import Figures, of_tests  # noqa: E402
from gpu_program.parts import Part, all_parts  # noqa: E402
from gpu_program.report import Report  # noqa: E402

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


def results_of(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    content = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))
    return content["head"], {part["name"]: part for part in content["parts"]}


HALVES = (
    ["environment", "smoke", "tests", "train", "match"],
    ["collect", "ppo", "learn", "forward", "transfer"],
)
"""Of the parts; most of the time of each is imports, by one core."""


def rehearse(folder: Path, parts: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "tests/gpu.py", "--device", "cpu", "--out", str(folder), "--parts", *parts],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_every_part_passes_without_a_gpu(tmp_path: Path) -> None:
    assert {name for half in HALVES for name in half} == {
        found.name for found in all_parts(on_gpu=False, resume=None, overrides=[])
    }
    folders = [tmp_path / "first", tmp_path / "second"]
    parts: dict[str, dict[str, Any]] = {}
    running = [rehearse(*words) for words in zip(folders, HALVES, strict=True)]
    outputs = [process.communicate()[0] for process in running]
    for process, output, folder, half in zip(running, outputs, folders, HALVES, strict=True):
        assert process.returncode == 0, output
        _, found = results_of(folder)
        assert list(found) == half
        parts |= found
        check_files(folder, found)
    assert [part["status"] for part in parts.values()] == ["passed"] * 10
    head, _ = results_of(folders[0])
    assert re.fullmatch("[0-9a-f]{16}", head["source_sha256"])
    assert head["package"] == str(ROOT / "keisei_lightning")
    assert "torch" in head["versions"]
    for name in ("collect", "ppo", "learn"):
        assert parts[name]["figures"]["plies_per_s"] > 0
        assert len(parts[name]["rows"]) >= 1
    assert parts["forward"]["figures"]["positions_per_s"] > 0
    assert parts["transfer"]["figures"]["publish_ms"] > 0
    assert [row["mode"] for row in parts["smoke"]["rows"]] == ["serial"]
    assert parts["tests"]["figures"]["tests"] == 2
    assert parts["train"]["figures"]["plies"] == 2 * 4 * 8
    assert {row["opponent"] for row in parts["match"]["rows"]} == {"random", "mate_in_one"}
    assert (folders[0] / "last.ckpt").stat().st_size > 10_000
    assert {file.name for file in folders[0].iterdir()} == {*FILES, "last.ckpt", "metrics.csv"}


FILES = ("gpu.json", "gpu.log", "gpu.md")


def check_files(folder: Path, parts: dict[str, dict[str, Any]]) -> None:
    """Table and log tell of each part."""
    markdown, log = ((folder / name).read_text(encoding="utf-8") for name in ("gpu.md", "gpu.log"))
    for name, part in parts.items():
        assert f"\n| {name} | passed |" in markdown
        assert f"`{part['command']}`" in markdown
        assert part["command"] in log


# ---- parts made to fail


def part(name: str, code: str, **options: Any) -> Part:
    return Part(name=name, what="a test", words=("-c", code), **{"bound_s": 60.0, **options})


def run(parts: list[Part], tmp_path: Path, *, deadline_s: float = 60.0) -> tuple[bool, list[str], Report]:
    said: list[str] = []
    (tmp_path / "scratch").mkdir()
    report = Report(tmp_path, {"command": "none"})
    went_well = gpu.run_parts(
        parts,
        report=report,
        out=tmp_path,
        scratch=tmp_path / "scratch",
        deadline=time.monotonic() + deadline_s,
        say=said.append,
    )
    return went_well, said, report


def test_a_part_that_fails_is_told_with_its_last_lines_and_the_next_one_runs(tmp_path: Path) -> None:
    broken = part("broken", "print('so far so good'); raise ValueError('broken on purpose')")
    went_well, said, report = run([broken, part("whole", "print('done')")], tmp_path)
    assert not went_well
    assert [result.status for result in report.results] == ["failed", "passed"]
    assert report.results[0].exit_status == 1
    assert "so far so good" in report.results[0].last_lines
    assert report.results[0].last_lines[-1] == "ValueError: broken on purpose"
    assert report.results[1].last_lines == []
    assert "    ValueError: broken on purpose" in said
    markdown = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| broken | failed |" in markdown
    assert "ValueError: broken on purpose" in markdown


def test_a_part_that_exceeds_its_bound_is_killed_with_its_descendants_and_told(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
alone = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("hangs now", flush=True)
open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{child.pid}} {{alone.pid}}")
time.sleep(600)
"""
    went_well, _, report = run([part("hangs", code, bound_s=5.0), part("whole", "")], tmp_path)
    assert not went_well
    assert [result.status for result in report.results] == ["timed out", "passed"]
    assert report.results[0].seconds >= 5.0
    assert report.results[0].exit_status == -9
    assert report.results[0].last_lines == ["hangs now"]
    hung = [int(pid) for pid in pids.read_text().split()]
    assert len(hung) == 3
    assert not any(psutil.pid_exists(pid) for pid in hung)


def test_a_part_that_runs_for_as_long_as_it_may_is_asked_to_stop_and_its_file_is_kept(tmp_path: Path) -> None:
    code = """
import pathlib, signal, sys, time
def stop(number, frame):
    (folder / "saved.ckpt").write_text("saved in order")
    sys.exit(143)
folder = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, stop)
time.sleep(600)
"""
    trains = Part(
        name="trains",
        what="a test",
        words=("-c", code, "{work}"),
        bound_s=None,
        keeps={"last.ckpt": ("**/nothing.ckpt", "**/saved.ckpt")},
        stops_in_order=True,
    )
    after = part("after", "", reserve_s=6.0)
    went_well, _, report = run([trains, after], tmp_path, deadline_s=13.0)
    assert went_well
    assert [result.status for result in report.results] == ["passed", "passed"]
    assert report.results[0].bound_s == pytest.approx(7.0, abs=0.5)  # all but what the next one has reserved
    assert (tmp_path / "last.ckpt").read_text() == "saved in order"


def test_a_part_for_which_no_time_is_left_is_told_and_has_not_failed(tmp_path: Path) -> None:
    went_well, said, report = run([part("late", "raise SystemExit(1)")], tmp_path, deadline_s=1.0)
    assert went_well
    assert report.results[0].status == "left out"
    assert said[-1].startswith("late: left out")


def test_results_that_cannot_be_read_fail_their_part_alone(tmp_path: Path) -> None:
    def unreadable(work: Path, output: str) -> Figures:
        raise KeyError("rows")

    _, _, report = run([part("odd", "", read=unreadable), part("whole", "")], tmp_path)
    assert [result.status for result in report.results] == ["failed", "passed"]
    assert report.results[0].last_lines == ["what it left could not be read: KeyError: 'rows'"]


def test_what_was_measured_before_a_part_was_killed_is_reported(tmp_path: Path) -> None:
    code = """
import json, pathlib, sys, time
text = json.dumps({"figures": {"plies_per_s": 7}, "rows": [{"case": "a", "plies_per_s": 7}]})
pathlib.Path(sys.argv[1], "result.json").write_text(text)
time.sleep(600)
"""
    measures = Part(name="measures", what="a test", words=("-c", code, "{work}"), bound_s=5.0)
    _, _, report = run([measures], tmp_path)
    assert report.results[0].status == "timed out"
    assert report.results[0].figures == {"plies_per_s": 7}
    assert "| a | 7 |" in (tmp_path / "gpu.md").read_text(encoding="utf-8")


def test_tests_that_were_killed_are_reported_as_far_as_they_came(tmp_path: Path) -> None:
    output = "tests/gpu/a.py::test_one[cuda:0] PASSED [ 10%]\ntests/gpu/a.py::test_two[cuda:0] FAILED [ 20%]\n"
    assert of_tests(tmp_path, output) == Figures(
        {"tests": 2, "failures": 1}, [{"test": "test_two[cuda:0]", "outcome": "failed"}]
    )


# ---- the command line


def test_the_parts_can_be_listed_and_unknown_ones_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert "parallel.worker_device=cuda:0" in out
    assert "experiment=shogi" in out
    with pytest.raises(SystemExit) as stop:
        gpu.main(["--parts", "nosuch"])
    assert stop.value.code == 2
    assert "must be of environment, smoke, tests, collect" in capsys.readouterr().err


def test_a_checkpoint_to_resume_from_and_more_words_reach_the_training(tmp_path: Path) -> None:
    (train,) = (
        found
        for found in all_parts(on_gpu=True, resume="/a/last.ckpt", overrides=["ppo.epochs=3"])
        if found.name == "train"
    )
    assert {"ckpt_path=/a/last.ckpt", "ppo.epochs=3"} <= set(train.words)


# ---- a machine where nothing of ours is installed


def test_a_checkout_that_was_never_installed_runs_with_wheels_from_a_folder(tmp_path: Path) -> None:
    """Only the path leads to what is installed there; our package and the files that lead to it are left out."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(psutil.__file__).parents[1].iterdir():
        if "keisei" not in entry.name and entry.suffix != ".pth":
            (packages / entry.name).symlink_to(entry)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "fetched_before-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("fetched_before.py", "")
        info = "fetched_before-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: fetched-before\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    done = subprocess.run(
        [
            *(os.path.realpath(sys.executable), "-S", str(ROOT / "tests" / "gpu.py"), "--device", "cpu"),
            *("--parts", "environment", "--wheels", str(wheels), "--out", str(tmp_path / "out")),
        ],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    head, parts = results_of(tmp_path / "out")
    assert head["wheels"] == f"of {wheels}"
    assert head["package"] == str(ROOT / "keisei_lightning")
    assert "keisei-lightning 0.1.0" in head["versions"]
    assert parts["environment"]["status"] == "passed"


def test_metadata_names_the_players_and_games_of_pyproject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_installed(name: str) -> None:
        raise setup.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(setup.importlib.metadata, "distribution", nothing_installed)
    assert setup.write_metadata(tmp_path)
    (found,) = setup.importlib.metadata.distributions(path=[str(tmp_path)])
    entries = {(entry.group, entry.name) for entry in found.entry_points}
    assert ("keisei_lightning.games", "shogi") in entries
    assert ("keisei_lightning.players", "mate_in_one") in entries
    assert (found.metadata["Name"], found.version) == ("keisei-lightning", keisei_lightning.__version__)


def test_a_folder_without_wheels_is_told(tmp_path: Path) -> None:
    assert setup.install_wheels(tmp_path, tmp_path / "site") == f"{tmp_path} holds no wheels"


# ---- the share of time in kernels


def event(kind: str, start: float, duration: float) -> dict[str, Any]:
    return {"ph": "X", "cat": kind, "ts": start, "dur": duration}


def test_the_share_in_kernels_counts_overlapping_ones_once_and_gaps_not() -> None:
    events = [
        event("cpu_op", 0, 1000),
        event("kernel", 100, 20),
        event("kernel", 110, 30),  # overlaps: 100 to 140
        event("gpu_memcpy", 150, 20),
        event("kernel", 190, 10),
        {"ph": "M", "name": "process_name"},
    ]
    assert kernel_share(events) == (pytest.approx(0.5), pytest.approx(0.7))


def test_a_trace_without_a_device_has_no_share() -> None:
    assert kernel_share([event("cpu_op", 0, 10)]) == (None, None)
