"""Sweeps whose jobs run in processes of their own, and Optuna's studies, each as a person starts it."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
from runs import PATIENCE_S, ROOT, TINY

pytestmark = [pytest.mark.process, pytest.mark.slow]

MARK = "KEISEI_TEST_SWEEP"

BROKEN = """
from lightning.pytorch.callbacks import Callback

class Unportable(Exception):
    def __init__(self, *, reason):  # pickle calls it without a keyword
        super().__init__(reason)

class Broken(Callback):
    def __init__(self, fails):
        self.fails = fails

    def on_train_start(self, trainer, pl_module):
        if self.fails:
            raise Unportable(reason="a job of this sweep is broken")
"""


def launcher(name: str, plugin: str, *words: str) -> object:
    missing = importlib.util.find_spec("hydra_plugins") is None or importlib.util.find_spec(plugin) is None
    skip = pytest.mark.skipif(missing, reason=f"{plugin.rpartition('.')[2].replace('_', '-')} is not installed")
    return pytest.param([f"hydra/launcher={name}", *words], id=name, marks=skip)


# Ray's default would take a third of the memory for its store, and start a dashboard.
RAY = ("+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false")
LAUNCHERS = [
    launcher("joblib", "hydra_plugins.hydra_joblib_launcher", "hydra.launcher.n_jobs=2"),
    launcher("submitit_local", "hydra_plugins.hydra_submitit_launcher"),
    launcher("ray", "hydra_plugins.hydra_ray_launcher", *RAY),
]


class Sweep:
    """A command that sweeps, and all processes that come of it."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        path = os.pathsep.join((str(ROOT), str(folder)))
        environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200", MARK: self.mark}
        with (folder / "out.txt").open("w") as out, (folder / "err.txt").open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "train.py"), *TINY, *words],
                cwd=folder,
                env={**os.environ, **environment},
                stdout=out,
                stderr=err,
            )

    def __enter__(self) -> Sweep:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Kill what a failed test has left."""
        for process in self.processes():
            process.kill()
        self.process.wait(PATIENCE_S)

    def finish(self) -> tuple[int, str, str]:
        """Exit code and output; fails if a process is left."""
        code = self.process.wait(PATIENCE_S)
        self.wait_until(lambda: not self.processes(), "processes were left")
        out, err = ((self.folder / name).read_text() for name in ("out.txt", "err.txt"))
        return code, out, err

    def wait_until(self, happened: Callable[[], object], otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < deadline, (
                f"{otherwise}: {self.processes()}\n{(self.folder / 'err.txt').read_text()}"
            )
            time.sleep(0.1)

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def checkpoints(self) -> list[Path]:
        return sorted(self.folder.rglob("job_*/checkpoints/last.ckpt"))


def row_of(table: str, word: str) -> str:
    """Ray prints the jobs' own lines as they come, some of them after the table."""
    (row,) = [line for line in table.splitlines() if line.startswith("│") and word in line]
    return row


@pytest.mark.parametrize("words", LAUNCHERS)
def test_a_table_tells_of_jobs_in_other_processes_done_and_failed(words: Sequence[str], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    broken = ["+callbacks.broken._target_=broken.Broken", "+callbacks.broken.fails=false,true"]
    with Sweep(tmp_path, "-m", *words, *broken, "trainer.max_epochs=1") as sweep:
        code, out, err = sweep.finish()
    assert code == 1, err
    table = out[out.index("2 jobs, best first") :]
    assert re.search(r" [01]\.\d{4} .* done .*job_0 ", row_of(table, "fails=False"))
    assert re.search(
        r" - .* failed: (Unportable: )?a job of this sweep is broken .*job_1 ", row_of(table, "fails=True")
    )
    (checkpoint,) = sweep.checkpoints()
    assert checkpoint.parents[1].name == "job_0"
    logs = out + "".join(log.read_text() for log in tmp_path.rglob("*_log.out"))  # submitit's
    (resume,) = re.findall(r"resume with +(.*?) *$", logs, re.MULTILINE)
    assert resume.startswith(f"python {ROOT / 'train.py'} experiment=smoke ")
    assert "left processes" not in err


@pytest.mark.parametrize("words", LAUNCHERS)
def test_a_bad_configuration_in_another_process_is_told_and_is_exit_code_2(
    words: Sequence[str], tmp_path: Path
) -> None:
    with Sweep(tmp_path, "-m", *words, "ppo.clip_epsilon=2,3") as sweep:
        code, out, err = sweep.finish()
    assert code == 2, err
    assert "keisei: ppo.clip_epsilon=2: must be a number, more than 0 and less than 1\n" in err
    for value in (2, 3):
        assert "bad configuration: ppo.clip_epsilon=" in row_of(out, f"│ ppo.clip_epsilon={value} ")


@pytest.mark.parametrize("words", LAUNCHERS)
def test_a_signal_to_the_command_alone_ends_its_jobs(words: Sequence[str], tmp_path: Path) -> None:
    signum = signal.SIGTERM if "hydra/launcher=joblib" in words else signal.SIGINT
    endless = ("trainer.max_epochs=100000", "checkpoint.every_n_epochs=1", "checkpoint.keep=1")
    with Sweep(tmp_path, "-m", *words, "seed=1,2", *endless) as sweep:
        sweep.wait_until(
            lambda: len(sweep.checkpoints()) == 2 or sweep.process.poll() is not None, "the jobs did not train"
        )
        sweep.process.send_signal(signum)
        code, out, err = sweep.finish()
    assert code == 128 + signum, err
    table = out[out.index("2 jobs, best first") :]
    assert "not finished" in row_of(table, "seed=1")
    assert "not finished" in row_of(table, "seed=2")


def test_a_trial_that_is_worse_than_the_study_is_pruned_and_the_study_goes_on(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna", reason="the extra 'sweep' is not installed")
    from keisei_lightning.system.studies import open_storage

    storage = str(tmp_path / "results" / "smoke" / "study.journal")
    study = optuna.create_study(study_name="smoke", storage=open_storage(storage), direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=2.0, intermediate_values={1: 2.0, 2: 2.0, 3: 2.0}))
    words = [
        *("hparams_search=optuna", "~hydra.sweeper.params", "seed=choice(5,6)", "hydra.sweeper.seed=1"),
        *("callbacks.pruning.pruner.n_startup_trials=1", "evaluation.every_n_epochs=1", "trainer.max_epochs=3"),
    ]
    with Sweep(tmp_path, *words, "trainer.devices=2", "hydra.sweeper.n_trials=2") as sweep:
        code, out, err = sweep.finish()
    assert code == 0, err
    assert "1 of 2 trials are done" in err + out
    assert re.search(r" - .* pruned: after epoch 1 \(trial 1 of the study smoke\) .*job_0 ", out)
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE", "PRUNED"]
    assert list(study.get_trials()[1].intermediate_values) == [1]
    assert sweep.checkpoints() == []  # it ended before the last epoch

    with Sweep(tmp_path, *words, "hydra.sweeper.n_trials=3", "callbacks.pruning=null") as sweep:
        code, out, err = sweep.finish()
    assert code == 0, err
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert Path(study.get_trials()[2].user_attrs["folder"], "checkpoints", "last.ckpt").is_file()
    assert re.search(r" [01]\.\d{4} .* done ", out)
