"""Folders of training runs, read as data: which runs there are, how they ended, what they measured, how they differ.

::

    results/NAME/DATE-TIME/
      run.json               whose process it is and how it ended; locked while it is going on    ending.py
      .hydra/config.yaml     every option                                                         options_of_run.py
      csv/metrics.csv        a row for each epoch                                                 metrics.py, curves.py
      checkpoints/*.ckpt     not read here: their sizes only                                      disk.py

Nothing in a run folder is called, and nothing there can stop a list: a file that cannot be read becomes a line of text
in :attr:`RunSummary.problems`. This room needs no torch.
"""

from __future__ import annotations

from keisei_lightning.results_folder.curves import CurveReader
from keisei_lightning.results_folder.deletion import delete_run
from keisei_lightning.results_folder.disk import DiskUse, disk_use
from keisei_lightning.results_folder.ending import Ending, RunRecord, how_it_ended, run_record
from keisei_lightning.results_folder.finding import find_runs, resolve_run
from keisei_lightning.results_folder.metrics import newest_metrics, read_history
from keisei_lightning.results_folder.options_of_run import different_options, flattened, read_options
from keisei_lightning.results_folder.summary import RunSummary, summarize_run, summarize_runs

__all__ = [
    "CurveReader",
    "DiskUse",
    "Ending",
    "RunRecord",
    "RunSummary",
    "delete_run",
    "different_options",
    "disk_use",
    "find_runs",
    "flattened",
    "how_it_ended",
    "newest_metrics",
    "read_history",
    "read_options",
    "resolve_run",
    "run_record",
    "summarize_run",
    "summarize_runs",
]
