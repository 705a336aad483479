"""The tool that publishes: a run becomes a file and a card, and every figure comes from the run or from games."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import publish
import pytest
from runs import ROOT, TINY

from keisei_lightning import load_policy
from keisei_lightning.training import read_checkpoint_header

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_a_run_is_published_with_what_its_own_records_say(tmp_path: Path) -> None:
    words = [word for word in TINY if word != "logger=none"]  # the versions of a run are in its logs
    words += ["trainer.max_epochs=2", "parallel=serial", "seed=5", f"results_dir={tmp_path / 'results'}"]
    subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, check=True, capture_output=True, timeout=600)
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    card = publish.publish(checkpoint, "small", beside="a test", folder=tmp_path, games=4)
    training, header = card["training"], read_checkpoint_header(tmp_path / "small.ckpt")
    assert training["command"].startswith("python train.py ")
    assert (training["seed"], training["epochs"], training["max_epochs"]) == (5, 2, 2)
    assert (header.is_weights_only, header.epoch) == (True, 2)
    assert card["compact"]["max_logit_difference"] < 0.1
    assert [row["games"] for row in card["strength"]["matches"]] == [4, 4, 4]
    assert (tmp_path / "small.json").is_file()
    assert (tmp_path / "small.ckpt").stat().st_size == card["bytes"] < checkpoint.stat().st_size
    assert load_policy(tmp_path / "small.ckpt").header.game == load_policy(checkpoint).header.game
    assert "The training has not ended" not in "\n".join(publish.part(card))
