"""What is printed, and where."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import Progress

from keisei_lightning.commands.sweep import SweepJob, SweepSummary, collected_jobs, left_processes, print_summary
from keisei_lightning.errors import ConfigError
from keisei_lightning.system.console import ConsoleHandler, bar_on_screen, print_table


def test_a_warning_says_so_and_information_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    handler = ConsoleHandler()
    handler.emit(logging.LogRecord("keisei_lightning.worker", logging.WARNING, "", 0, "[worker 3.0] slow", None, None))
    handler.emit(logging.LogRecord("keisei_lightning", logging.INFO, "", 0, "epoch %d", (1,), None))
    assert capsys.readouterr().err == "warning: [worker 3.0] slow\nepoch 1\n"


@pytest.mark.parametrize("make_handler", [ConsoleHandler, logging.StreamHandler])
def test_log_lines_go_above_a_bar_and_then_where_they_went_before(
    make_handler: Callable[[], logging.Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, terminal = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", real)
    handler = make_handler()
    logger = logging.getLogger("keisei_lightning.worker")
    logger.addHandler(handler)
    try:
        with bar_on_screen(Progress(console=Console(file=terminal, force_terminal=True))):
            logger.warning("[worker 3.0] during")
        logger.warning("[worker 3.0] after")
    finally:
        logger.removeHandler(handler)
    assert "[worker 3.0] during" in terminal.getvalue()  # rich prints it, and draws the bar anew below it
    assert real.getvalue().count("[worker 3.0]") == 1
    assert real.getvalue().endswith("[worker 3.0] after\n")
    assert sys.stderr is real


def test_a_value_is_never_broken_over_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path = "results/" + "long/" * 30 + "last.ckpt"
    print_table("done", [("checkpoint", path), ("score", None), ("[odd]", "[value]")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["done", f"checkpoint  {path}", "[odd]       [value]"]


class TestSweepSummary:
    def config(self, mode: RunMode = RunMode.MULTIRUN) -> object:
        return SimpleNamespace(
            hydra=SimpleNamespace(mode=mode, runtime=OmegaConf.create({"output_dir": "/elsewhere/job_0"}))
        )

    def ended(self, value: object, status: JobStatus = JobStatus.COMPLETED) -> JobReturn:
        return JobReturn(overrides=["a=1", "b=2"], status=status, _return_value=value)

    def test_each_job_is_noted_with_how_it_ended(self) -> None:
        callback = SweepSummary()
        with collected_jobs() as jobs:
            callback.on_job_end(self.config(), self.ended(0.75))  # type: ignore[arg-type]
            callback.on_job_end(self.config(), self.ended(ConfigError("x=1: bad"), JobStatus.FAILED))  # type: ignore[arg-type]
            callback.on_job_end(self.config(), self.ended(OSError(), JobStatus.FAILED))  # type: ignore[arg-type]
        assert [(job.overrides, job.status) for job in jobs] == [
            (("a=1", "b=2"), "done"),
            (("a=1", "b=2"), "bad configuration: x=1: bad"),
            (("a=1", "b=2"), "failed: OSError"),
        ]
        assert jobs[0].objective == 0.75

    def test_a_single_run_needs_no_summary(self) -> None:
        with collected_jobs() as jobs:
            SweepSummary().on_job_end(self.config(RunMode.RUN), self.ended(0.5))  # type: ignore[arg-type]
        assert jobs == []

    def test_the_best_job_is_first_and_failed_ones_are_last(self, capsys: pytest.CaptureFixture[str]) -> None:
        scores = {"low": 0.25, "broken": float("nan"), "high": 0.75}
        print_summary(
            [
                SweepJob(overrides=("seed=1", f"x={name}"), objective=score, folder=f"job_{name}", status="-")
                for name, score in scores.items()
            ]
        )
        out = capsys.readouterr().out
        assert "score against the first of evaluation.opponents" in " ".join(out.split()), "whoever that is"
        assert "x=low" in out
        assert "seed=1" not in out, "only what the jobs differ in is shown"
        assert out.index("job_high") < out.index("job_low") < out.index("job_broken")

    def test_a_child_process_that_is_left_is_named(self) -> None:
        import subprocess

        assert left_processes() == []
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            (left,) = left_processes()
            assert left.startswith(f"{child.pid} (")
            assert child.stdin is not None
            child.stdin.close()
