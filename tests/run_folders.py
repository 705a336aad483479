"""Folders of training runs, written by hand as a training writes them."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

__all__ = ["METRICS", "write_run"]

METRICS = (
    "epoch,eval/score_vs_random,eval/score_vs_random_high,eval/score_vs_random_low,self_play/plies,"
    "self_play/plies_per_s,step,train/loss_critic"
)


def write_run(
    folder: Path,
    *,
    rows: Sequence[str] = ("0,,,,1024,100,7,0.5", "1,0.75,0.9,0.6,2048,200,15,0.25"),
    options: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = ("experiment=smoke",),
    record: Mapping[str, Any] | None = None,
    began_s: float = 1_700_000_000.0,
    checkpoint: bool = True,
) -> Path:
    """Write a run.

    Args:
        folder: of the run.
        rows: of its metrics, under :data:`METRICS`.
        options: that are added to its configuration.
        overrides: words that began it.
        record: how it ended; None: it has no record.
        began_s: when, in seconds since 1970.
        checkpoint: whether it has one (a whole archive, without weights).

    Returns:
        The folder.
    """
    for name in (".hydra", "csv", "checkpoints"):
        (folder / name).mkdir(parents=True)
    configuration = {
        "env": {"game": "tic_tac_toe"},
        "evaluation": {"opponents": ["random"]},
        "model": {"kind": "mlp"},
        "ppo": {"learning_rate": 0.001},
        "trainer": {"max_epochs": 2},
        **(options or {}),
    }
    (folder / ".hydra/config.yaml").write_text(yaml.safe_dump(configuration))
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    (folder / "csv/metrics.csv").write_text("".join(f"{line}\n" for line in (METRICS, *rows)))
    (folder / "train.log").write_text("")
    if checkpoint:
        with zipfile.ZipFile(folder / "checkpoints/last.ckpt", "w") as archive:
            archive.writestr("data", b"0123456789")
    if record is not None:
        (folder / "run.json").write_text(json.dumps({"started_s": began_s, "ended_s": began_s + 120, **record}))
    for path in folder.rglob("*"):
        os.utime(path, (began_s, began_s))
    return folder
