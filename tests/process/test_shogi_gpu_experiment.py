"""The experiment for a GPU machine runs on a CPU, made tiny: its settings fit together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

TINY = (
    "trainer=cpu",
    "model=tiny",
    "parallel.num_workers=1",
    "parallel.games_per_worker=8",
    "parallel.plies_per_rollout=8",
    "ppo.minibatch_size=64",
    "trainer.max_epochs=1",
    "evaluation=brief",
    "evaluation.num_games=2",
    "env.max_plies=32",
)


@pytest.mark.process
def test_it_composes_and_trains_an_iteration(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "train.py", "experiment=shogi_gpu", *TINY, f"results_dir={tmp_path}"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("shogi_gpu/*/checkpoints/*.ckpt"))
