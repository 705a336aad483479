"""Jobs of a sweep in other processes: what they send home, and what must survive the way."""

from __future__ import annotations

import contextlib
import contextvars
import multiprocessing
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from keisei_lightning.commands import train
from keisei_lightning.commands.sweep import SweepJob, SweepSummary, collected_jobs
from keisei_lightning.errors import ConfigError, IllegalActionError
from keisei_lightning.system.start_method import START_METHODS, use_known_start_method
from keisei_lightning.system.stopping import Stopped


def config(folder: Path, number: int = 0, launcher: str = "hydra_plugins.hydra_joblib_launcher.X") -> DictConfig:
    return OmegaConf.create(
        {
            "hydra": {
                "mode": RunMode.MULTIRUN,
                "job": {"num": number},
                "launcher": {"_target_": launcher},
                "overrides": {"task": [f"seed={number}"]},
                "runtime": {"output_dir": f"/elsewhere/job_{number}"},
                "sweep": {"dir": str(folder)},
            }
        }
    )


def ended(number: int, value: object, status: JobStatus = JobStatus.COMPLETED) -> JobReturn:
    return JobReturn(overrides=[f"seed={number}"], status=status, _return_value=value)


def elsewhere(hook: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Call a hook as a launcher's process does: with a copy of the callback, and nothing that is known here."""
    callback = pickle.loads(pickle.dumps(hook.__self__))  # type: ignore[attr-defined]
    contextvars.Context().run(getattr(callback, hook.__name__), *args, **kwargs)


@pytest.fixture
def _same_arguments() -> Iterator[None]:
    before = sys.argv
    yield
    sys.argv = before


@pytest.mark.usefixtures("_same_arguments")
class TestOtherProcesses:
    def test_jobs_of_other_processes_are_in_the_list_when_the_sweep_has_ended(self, tmp_path: Path) -> None:
        callback = SweepSummary()
        with collected_jobs() as jobs:
            callback.on_multirun_start(config(tmp_path))
            for number, value in ((10, 0.75), (2, ConfigError("x=1: bad"))):
                elsewhere(callback.on_job_start, config(tmp_path, number))
                status = JobStatus.COMPLETED if isinstance(value, float) else JobStatus.FAILED
                elsewhere(callback.on_job_end, config(tmp_path, number), ended(number, value, status))
            assert jobs == []
        assert [(job.overrides, job.folder, job.status) for job in jobs] == [
            (("seed=2",), "/elsewhere/job_2", "bad configuration: x=1: bad"),
            (("seed=10",), "/elsewhere/job_10", "done"),
        ]
        assert jobs[1].objective == 0.75

    def test_a_job_that_was_killed_is_not_finished(self, tmp_path: Path) -> None:
        callback = SweepSummary()
        with collected_jobs() as jobs:
            callback.on_multirun_start(config(tmp_path))
            elsewhere(callback.on_job_start, config(tmp_path))
        assert [(job.overrides, job.status) for job in jobs] == [(("seed=0",), "not finished")]

    def test_an_earlier_sweep_into_the_same_folder_is_forgotten(self, tmp_path: Path) -> None:
        for number in (0, 1):
            callback = SweepSummary()
            with collected_jobs() as jobs:
                callback.on_multirun_start(config(tmp_path))
                elsewhere(callback.on_job_end, config(tmp_path, number), ended(number, 0.5))
        assert [job.overrides for job in jobs] == [("seed=1",)]

    def test_a_job_of_this_process_is_in_the_list_at_once_and_in_no_file(self, tmp_path: Path) -> None:
        callback = SweepSummary()
        with collected_jobs() as jobs:
            callback.on_multirun_start(config(tmp_path))
            callback.on_job_start(config(tmp_path))
            callback.on_job_end(config(tmp_path), ended(0, 0.5))
            assert [job.status for job in jobs] == ["done"]
        assert len(jobs) == 1
        assert list(tmp_path.iterdir()) == []

    def test_a_job_has_the_arguments_of_the_command(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        callback = SweepSummary()
        monkeypatch.setattr(sys, "argv", ["train.py", "-m"])
        callback.on_multirun_start(config(tmp_path))
        monkeypatch.setattr(sys, "argv", ["launcher.py"])
        elsewhere(callback.on_job_start, config(tmp_path))
        assert sys.argv == ["train.py", "-m"]

    @pytest.mark.process
    def test_a_stop_reaches_a_job_that_its_launcher_leaves_to_itself(self, tmp_path: Path) -> None:
        program = (
            "import contextvars, pickle, signal, sys\n"
            "callback, config = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
            "contextvars.Context().run(callback.on_job_start, config)\n"
            "print('begun', flush=True)\n"
            "signal.pause()"
        )
        callback = SweepSummary()

        def stopped_sweep() -> tuple[list[SweepJob], subprocess.Popen[bytes]]:
            with contextlib.suppress(Stopped), collected_jobs() as jobs:
                callback.on_multirun_start(config(tmp_path))
                argument = pickle.dumps((callback, config(tmp_path))).hex()
                child = subprocess.Popen([sys.executable, "-c", program, argument], stdout=subprocess.PIPE)
                assert child.stdout is not None
                with child.stdout:
                    assert child.stdout.readline() == b"begun\n"
                raise Stopped(signal.SIGINT)
            return jobs, child

        jobs, child = stopped_sweep()
        assert child.wait(300) == -signal.SIGTERM
        assert [job.status for job in jobs] == ["not finished"]

    def test_a_ray_launcher_gets_the_one_exception_that_its_waits_let_through(self, tmp_path: Path) -> None:
        def interrupted_sweep() -> None:
            with collected_jobs():
                ray = "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher"
                SweepSummary().on_multirun_start(config(tmp_path, launcher=ray))
                assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
                signal.raise_signal(signal.SIGINT)

        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            with pytest.raises(Stopped, match="SIGINT"):
                interrupted_sweep()
        finally:
            signal.signal(signal.SIGINT, before)


def test_a_pruned_trial_has_its_own_word(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna", reason="the extra 'sweep' is not installed")
    pruned = ended(0, optuna.TrialPruned("after epoch 1"), JobStatus.FAILED)
    with collected_jobs() as jobs:
        SweepSummary().on_job_end(config(tmp_path), pruned)
    assert [job.status for job in jobs] == ["pruned: after epoch 1"]


def test_a_stop_survives_the_way_to_another_process() -> None:
    stop = pickle.loads(pickle.dumps(Stopped(signal.SIGTERM)))
    assert (type(stop), stop.signum, str(stop)) == (Stopped, signal.SIGTERM, "stopped by SIGTERM")


def test_an_error_that_cannot_be_pickled_says_the_same_as_one_that_can() -> None:
    error = IllegalActionError(game="shogi", ply=3, position="sfen", move="7g7f")  # its arguments have keywords
    assert str(train._portable(error)) == f"IllegalActionError: {error}"
    same = ConfigError(["x=1: bad", "y=2: bad"])
    assert train._portable(same) is same


def test_a_start_method_that_others_do_not_know_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(multiprocessing, "set_start_method", lambda method, force: chosen.append(method))
    for method in (None, *multiprocessing.get_all_start_methods(), "loky"):
        monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none, method=method: method)
        use_known_start_method()
    assert chosen == [START_METHODS[0]]
