"""The commands of the page about leagues, run with small numbers, one after the other in one folder."""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "league.md"
COMMANDS = re.findall(r"^\$ (keisei train .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
FAKE = ROOT / "tests" / "fake_usi_engine.py"
SMALL = (
    *("model=tiny", "parallel.num_workers=1", "parallel.games_per_worker=8", "parallel.plies_per_rollout=16"),
    *(
        "ppo.minibatch_size=64",
        "opponents.every_n_epochs=1",
        "trainer.max_epochs=4",
        "trainer.enable_progress_bar=false",
    ),
    *(
        "evaluation.opponents=[random]",
        "evaluation.ladder=null",
        "evaluation.num_games=2",
        "evaluation.every_n_epochs=0",
    ),
)
LIMIT_S = 300.0

pytestmark = [pytest.mark.process, pytest.mark.slow]


def run(words: list[str], folder: Path) -> Path:
    """Run a command; returns the folder of its run."""
    before = set(folder.glob("results/*/*/league.csv"))
    done = subprocess.run(
        [sys.executable, "-m", "keisei_lightning", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (table,) = set(folder.glob("results/*/*/league.csv")) - before
    return table.parent


def rows(run_folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run_folder / "league.csv").read_text().splitlines()))


def test_every_command_of_the_page_trains_against_the_members_that_it_names(tmp_path: Path) -> None:
    assert len(COMMANDS) == 5
    engine = f'usi(command="{sys.executable} {FAKE} --fault crash --at 9",nodes=1)'
    met: dict[str, set[str]] = {}
    folders: list[Path] = []
    for command in COMMANDS:
        command = command.replace("fairy_stockfish(skill=-10,nodes=1000)", engine)
        if folders:
            command = command.replace("results/connect_four/RUN", str(folders[0]))
        folders.append(run([*shlex.split(command)[1:], *SMALL], tmp_path))
        met[command] = {row["opponent"] for row in rows(folders[-1])}
        assert (folders[-1] / "league.png").stat().st_size > 10_000
    players, engines, checkpoint, main, exploiter = met.values()
    assert {"random", "tactics", "alpha_beta(depth=3)"} & players
    assert {"mate_in_one", engine} & engines
    assert {str(folders[0] / "checkpoints" / "last.ckpt"), "snapshot 2", "snapshot 3"} & checkpoint
    assert any(name.startswith("snapshot ") for name in main)
    assert exploiter
    assert all(re.fullmatch(r"main-[0-9a-f]{8} \d+", name) for name in exploiter)  # nobody else, and not itself
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "pool").iterdir())
    assert names == ["exploiter"] * 4 + ["main"] * 4


def test_a_resumed_run_continues_the_table(tmp_path: Path) -> None:
    words = ["train", "experiment=connect_four", "opponents=league", "opponents.members=[random]", *SMALL]
    first = rows(run([*words, "trainer.max_epochs=2"], tmp_path))
    table = rows(run([*words, "ckpt_path=last"], tmp_path))
    keep = ("period", "epoch", "plies", "opponent", "wins", "draws", "losses", "void")  # ratings are of all games
    assert [[row[key] for key in keep] for row in table[: len(first)]] == [[row[key] for key in keep] for row in first]
    assert {row["epoch"] for row in table} >= {"3", "4"}
