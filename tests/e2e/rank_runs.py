"""Runs of several ranks: their command lines, and where they leave what."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch
from runs import ROOT, TINY, StagedRun

from keisei_lightning.training.integrity import corruption

TRAIN = (sys.executable, str(ROOT / "train.py"))
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
QUICK = (*TINY, "parallel=serial", "parallel.games_per_worker=8", "trainer.enable_progress_bar=false")
"""No worker processes, where they are not the point."""

ENVIRONMENT = {
    "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "200",
}


class RankRun(StagedRun):
    """A command that trains with several ranks, with a callback that dwells where a fault is to come.

    Args:
        folder: where it runs.
        words: of the command line.
        hook: at which to dwell; empty: nowhere.
        rank: that dwells.
        seconds: how long.
        epoch: in which epoch, from 0.
        command: the program; its own words come first.
        environment: variables to add.
    """

    def __init__(
        self,
        folder: Path,
        *words: str,
        hook: str = "",
        rank: int = 1,
        seconds: float = 600.0,
        epoch: int = 1,
        command: tuple[str, ...] = TRAIN,
        environment: dict[str, str] | None = None,
    ) -> None:
        marker = folder / f"{hook or 'none'}.marker"
        fault = {"_target_": "rank_faults.Dwells", "hook": hook, "rank": rank, "marker": marker}
        fault |= {"seconds": seconds, "epoch": epoch}
        faults = [f"+callbacks.fault.{key}={value}" for key, value in fault.items()] if hook else []
        super().__init__(
            hook or "none",
            [*QUICK, *words, *faults],
            folder,
            environment={**ENVIRONMENT, **(environment or {})},
            command=command,
        )
        self.marker = marker

    def rank_pid(self) -> int:
        """The process that dwells."""
        self.reach_stage()
        self.wait_until(lambda: bool(self.marker.read_text()))
        return int(self.marker.read_text())


def newest(folder: Path) -> dict[str, Any]:
    """The newest ``last.ckpt`` below a folder; all checkpoints there are whole."""
    files = list(folder.rglob("*.ckpt"))
    assert all(corruption(file) is None for file in files)
    last = max((file for file in files if file.name == "last.ckpt"), key=lambda file: file.stat().st_mtime_ns)
    content: dict[str, Any] = torch.load(last, weights_only=True)
    return content


def run_folders(folder: Path) -> list[Path]:
    """Folders of runs, as Hydra has made them."""
    return sorted(path.parent for path in folder.rglob(".hydra"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
