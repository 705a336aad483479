"""A real training, which is then listed, shown, compared, drawn, resumed by the printed command, and deleted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from runs import PATIENCE_S, ROOT, TINY_GAME, StagedRun

from keisei_lightning.commands.main import main
from keisei_lightning.results_folder import summarize_runs

pytestmark = [pytest.mark.process, pytest.mark.slow]

WORDS = [*TINY_GAME, "trainer.max_epochs=2", "evaluation.num_games=2", "parallel=serial", "name=it's one"]
FOR_EVER = ["trainer.max_epochs=100000", "evaluation.every_n_epochs=0"]


def shell(line: str, folder: Path) -> str:
    """Run a line as a shell does where ``keisei`` is installed; its standard output."""
    keisei = folder / "bin" / "keisei"
    keisei.parent.mkdir(exist_ok=True)
    keisei.write_text(f'#!/bin/sh\nexec {sys.executable} -m keisei_lightning "$@"\n')
    keisei.chmod(0o755)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{keisei.parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "200",
    }
    done = subprocess.run(
        ["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_is_listed_shown_compared_drawn_resumed_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def runs(*words: str, code: int = 0) -> str:
        assert main(["runs", *words]) == code
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    shell(f'keisei train {" ".join(WORDS[:-1])} "{WORDS[-1]}"', tmp_path)
    (first,) = json.loads(runs("json=true"))
    assert (first["state"], first["epochs"], first["max_epochs"], first["problems"]) == ("finished", 2, 2, [])
    assert first["plies"] == 2 * 8 * 16
    assert first["opponent"] == "random"
    assert 0 <= first["score"] <= 1
    assert first["disk"]["checkpoints"] > 0

    resume = runs("resume", "last")
    assert "ckpt_path=" in resume
    assert shell('eval "$(keisei runs resume last)"', tmp_path)
    one, two = summarize_runs("results")
    assert (two.state, two.epochs, two.plies) == ("finished", 4, 2 * (one.plies or 0))
    assert "ckpt_path" in runs("compare", one.name, two.name)
    assert "trainer.max_epochs" in runs("compare", one.name, two.name)
    assert "newest" in runs("show", "last")

    pictures = runs("plot", one.name, two.name, "to=curves.svg", "x=minutes").split()
    of_policy = "what=[calibration,openings,errors]"
    pictures += runs("plot", two.name, of_policy, "to=p.png", "games=4").splitlines()
    assert [Path(name).stat().st_size > 1000 for name in pictures] == [True] * 4

    runs("delete", str(one.path), str(two.path), "yes=true")
    assert summarize_runs("results") == []


@pytest.mark.parametrize(
    ("signum", "state", "reason"),
    [(signal.SIGINT, "stopped", "stopped by SIGINT"), (signal.SIGKILL, "crashed", "ended without a word")],
)
def test_a_run_that_is_going_on_says_so_and_then_how_it_ended(
    tmp_path: Path, signum: int, state: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with StagedRun("step", FOR_EVER, tmp_path) as run:
        run.reach_stage()
        (going,) = summarize_runs(tmp_path / "results")
        assert (going.state, going.reason.split()[1]) == ("running", str(run.process.pid))
        assert main(["runs", "delete", str(going.path), f"folder={tmp_path / 'results'}", "yes=true"]) == 2
        assert "is going on" in capsys.readouterr().err
        assert going.path.is_dir()
        run.signal(signum)
        run.finish()
    (ended,) = summarize_runs(tmp_path / "results")
    assert ended.state == state
    assert reason in ended.reason
