"""Training runs in processes of their own that tests wait for, signal and clean up after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300.0
"""When a test gives up what it waits for: far beyond what a machine that is busy with other work may need."""
STAGED = [sys.executable, str(Path(__file__).with_name("staged_run.py"))]
# The smallest game and network, with a worker process.
TINY_GAME = (
    "experiment=smoke",
    "env=tic_tac_toe",
    "env.max_plies=null",
    "model=mlp",
    "model.channels=16",
    "parallel.num_workers=1",
)
# The smallest run that still has checkpoints.
TINY = (
    *TINY_GAME,
    "parallel.games_per_worker=8",
    "parallel.plies_per_rollout=16",
    "ppo.minibatch_size=16",
    "evaluation.num_games=2",
    "logger=none",
)


class StagedRun:
    """A run of the command line that tells when it has come to a stage (see ``staged_run.py``).

    Args:
        stage: where it dwells for a while.
        words: of the command line, after those of :data:`TINY`.
        folder: where it runs.
        environment: variables to add.
        command: another program, which tells of the stage by itself; it gets the words as they are.
    """

    def __init__(
        self,
        stage: str,
        words: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._marker = folder / f"{stage}.marker"
        self.process = subprocess.Popen(
            [*command, *words] if command else [*STAGED, stage, str(self._marker), *TINY, *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> StagedRun:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Kill what a failed test has left."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def reach_stage(self, timeout_s: float = PATIENCE_S) -> None:
        """Block until the stage is reached; fail if it never is."""
        self.wait_until(self._marker.exists, timeout_s)

    def wait_until(self, happened: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not happened():
            if self.process.poll() is not None or time.monotonic() > deadline:
                code, out, err = self.finish()
                raise AssertionError(f"the run ended with {code} before the test could do its work:\n{out}\n{err}")
            time.sleep(0.01)

    def signal(self, signum: int, *, group: bool = False) -> None:
        """Send a signal to the learner, or to all processes of the run as a terminal or SLURM does."""
        if group:
            os.killpg(self.process.pid, signum)
        else:
            self.process.send_signal(signum)

    def finish(self, timeout_s: float = PATIENCE_S) -> tuple[int, str, str]:
        """Exit code and output; fails if the run does not end, or leaves a process."""
        out, err = self.process.communicate(timeout=timeout_s)
        deadline = time.monotonic() + PATIENCE_S
        while left := self.processes():
            if time.monotonic() > deadline:
                os.killpg(self.process.pid, signal.SIGKILL)
                raise AssertionError(f"processes were left behind: {left}")
            time.sleep(0.02)
        return self.process.returncode, out, err

    def processes(self) -> list[int]:
        """Processes of the run that are alive."""
        return [pid for pid in psutil.pids() if _session(pid) == self.process.pid]

    def checkpoints(self) -> list[Path]:
        return sorted(self.folder.rglob("*.ckpt"))

    def temporary_files(self) -> list[Path]:
        return list(self.folder.rglob("*.tmp"))


def slurm_job(folder: Path) -> dict[str, str]:
    """The variables of a SLURM job of one task.

    Args:
        folder: gets a command ``scontrol`` of its own, which writes its words to ``scontrol.log``.
    """
    commands = folder / "bin"
    commands.mkdir()
    scontrol = commands / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {folder}/scontrol.log\n')
    scontrol.chmod(0o755)
    return {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
    }


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
