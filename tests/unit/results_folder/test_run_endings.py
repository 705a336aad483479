"""How a run ended is known from a record that its process locks."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import write_run

from keisei_lightning.results_folder import how_it_ended, run_record
from keisei_lightning.results_folder.ending import open_files_below
from keisei_lightning.system.stopping import Stopped

ROOT = Path(__file__).parents[3]


def ended(folder: Path, *, is_complete: bool = False) -> tuple[str, str]:
    ending = how_it_ended(folder, is_complete=is_complete, open_files=set)
    return ending.state, ending.reason


def test_a_run_is_going_on_while_its_context_lasts_and_is_finished_after_it(tmp_path: Path) -> None:
    times = iter([100.0, 160.0])
    with run_record(tmp_path / "new", lambda: 7, clock=lambda: next(times)):
        assert ended(tmp_path / "new") == ("running", f"process {os.getpid()} on {platform.node()}")
        assert ended(tmp_path / "new")[0] == "running"  # who looks takes no lock away
    ending = how_it_ended(tmp_path / "new", is_complete=False, open_files=set)
    assert ending.state == "finished"
    assert ending.record is not None
    assert (ending.record.started_s, ending.record.ended_s, ending.record.epochs) == (100.0, 160.0, 7)


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (Stopped(signal.SIGTERM), "stopped", "stopped by SIGTERM"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
        (ValueError("no\nsuch thing"), "failed", "ValueError: no such thing"),
    ],
)
def test_what_ends_a_run_is_in_its_record_and_goes_on(
    tmp_path: Path, error: BaseException, state: str, reason: str
) -> None:
    with pytest.raises(type(error)), run_record(tmp_path, lambda: 1):
        raise error
    assert ended(tmp_path) == (state, reason)


def test_no_folder_means_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with run_record(None, lambda: 1):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with run_record(tmp_path / "file", lambda: 1):
        pass
    assert "run.json cannot be written" in caplog.text


def test_a_second_run_in_the_folder_of_one_that_is_going_on_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with run_record(tmp_path, lambda: 1):
        with run_record(tmp_path, lambda: 2):
            pass
        assert "run.json cannot be written" in caplog.text
        assert ended(tmp_path)[0] == "running"


@pytest.mark.process
def test_a_killed_process_leaves_a_crashed_run(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom keisei_lightning.results_folder import run_record\n"
        f"with run_record({str(tmp_path)!r}, lambda: 1):\n    print('there', flush=True)\n    time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        assert ended(tmp_path)[0] == "running"
        process.kill()
        process.wait()
    assert ended(tmp_path) == ("crashed", f"process {process.pid} ended without a word")


def test_a_run_of_another_machine_that_is_not_locked_is_not_called_crashed(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"state": "running", "host": "elsewhere", "pid": 7}))
    state, reason = ended(tmp_path)
    assert (state, reason.startswith("it ran on elsewhere")) == ("unknown", True)


@pytest.mark.parametrize("text", ["", "[]", '{"state": "gone"}', "{", '{"state": "finished", "pid": "x"}', "\x00"])
def test_a_broken_record_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    state, reason = ended(tmp_path)
    assert state == "unknown"
    assert reason.startswith("run.json cannot be read (")


def test_without_a_record_it_is_what_can_be_seen(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert ended(run, is_complete=True)[0] == "finished"
    assert ended(run)[0] == "unknown"
    if not Path("/proc").is_dir():
        pytest.skip("this kernel does not tell which files are open")
    with (run / "train.log").open():
        opened = open_files_below(tmp_path)
        assert opened == {str(run / "train.log")}
        assert how_it_ended(run, is_complete=True, open_files=lambda: opened).state == "running"
    assert open_files_below(tmp_path) == set()
