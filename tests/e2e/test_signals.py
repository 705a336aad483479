"""A run is asked to stop at every stage of its life, by real signals; and one that fails leaves nothing behind."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
import torch
from runs import PATIENCE_S, StagedRun, slurm_job
from staged_run import STEP

from keisei_lightning.training.integrity import corruption

pytestmark = pytest.mark.process

# Without the line of progress every ten seconds, which a busy machine would add to standard error.
FOR_EVER = ("trainer.max_epochs=100000", "trainer.enable_progress_bar=false")
SERIAL = ("parallel=serial",)  # quicker, where the workers are not the point


def loaded(file: Path) -> dict[str, object]:
    assert corruption(file) is None
    content: dict[str, object] = torch.load(file, weights_only=True)
    return content


def test_sigterm_ends_the_present_step_and_saves_it(tmp_path: Path) -> None:
    with StagedRun("step", FOR_EVER, tmp_path) as run:
        run.reach_stage()
        run.signal(signal.SIGTERM)
        code, out, err = run.finish()
        assert code == 143, err
        assert err.splitlines() == ["keisei: stopped by SIGTERM"]
        (checkpoint,) = run.checkpoints()
        assert loaded(checkpoint)["global_step"] == STEP
        (resume,) = (line for line in out.splitlines() if line.startswith("resume with "))
        assert f" ckpt_path={checkpoint.relative_to(tmp_path)} trainer.max_epochs=" in resume


def test_ctrl_c_in_the_middle_of_a_match_is_one_line(tmp_path: Path) -> None:
    with StagedRun("evaluating", [*FOR_EVER, *SERIAL, "evaluation.every_n_epochs=1"], tmp_path) as run:
        run.reach_stage()
        run.signal(signal.SIGINT, group=True)  # as a terminal does
        code, _, err = run.finish()
        assert code == 130, err
        assert err.splitlines() == ["keisei: stopped by SIGINT"]
        (checkpoint,) = run.checkpoints()
        epochs = loaded(checkpoint)["loops"]["fit_loop"]["epoch_progress"]["current"]  # type: ignore[index]
        assert epochs["completed"] == epochs["ready"] == 1  # the epoch is whole, but for its match


def test_sigterm_to_all_processes_while_workers_play_ends_at_once(tmp_path: Path) -> None:
    plies = ["parallel.plies_per_rollout=4000", "parallel.stagger_games=false"]  # a rollout takes a second or more
    with StagedRun("playing", [*FOR_EVER, *plies, "ppo.minibatch_size=32000", "ppo.epochs=1"], tmp_path) as run:
        run.reach_stage(120)
        run.signal(signal.SIGTERM, group=True)
        code, _, err = run.finish()
        assert code == 143, err
        assert "Traceback" not in err
        (checkpoint,) = run.checkpoints()
        content = loaded(checkpoint)
        assert content["global_step"] == 1
        assert content["SelfPlayDataModule"]["collector"]["plies"] == 8 * 4000  # type: ignore[index]


@pytest.mark.parametrize(
    ("stage", "signum", "processes"),
    [
        ("checking", signal.SIGTERM, 1),
        ("starting", signal.SIGINT, 3),
    ],
)
def test_a_run_that_has_not_trained_leaves_no_checkpoint(
    stage: str, signum: signal.Signals, processes: int, tmp_path: Path
) -> None:
    with StagedRun(stage, FOR_EVER, tmp_path) as run:
        run.reach_stage()
        run.wait_until(lambda: len(run.processes()) >= processes)  # learner, resource tracker, fork server
        time.sleep(0.1)
        run.signal(signum, group=True)
        code, _, err = run.finish()
        assert code == 128 + signum, err
        assert err.splitlines() == [f"keisei: stopped by {signum.name}"]
        assert run.checkpoints() == []


EVERY_EPOCH = ("checkpoint.every_n_epochs=1",)


def test_a_save_that_a_signal_interrupts_is_finished(tmp_path: Path) -> None:
    with StagedRun("saving", [*FOR_EVER, *SERIAL, *EVERY_EPOCH], tmp_path) as run:
        run.reach_stage()
        assert run.temporary_files(), "the signal would not find a save"
        run.signal(signal.SIGTERM)
        code, _, err = run.finish()
        assert code == 143, err
        assert run.temporary_files() == []
        assert {file.name for file in run.checkpoints()} >= {"last.ckpt"}
        assert all(corruption(file) is None for file in run.checkpoints())


def test_a_second_ctrl_c_ends_at_once_and_leaves_whole_files(tmp_path: Path) -> None:
    with StagedRun("saving for ever", [*FOR_EVER, *SERIAL, *EVERY_EPOCH], tmp_path) as run:
        run.reach_stage()
        assert run.temporary_files(), "the signal would not find a save"
        run.signal(signal.SIGINT)
        time.sleep(0.4)
        assert run.process.poll() is None, "the first one has ended it already"
        run.signal(signal.SIGINT)
        run.process.wait(timeout=PATIENCE_S)
        code, _, err = run.finish()
        assert code == 130, err
        assert err.splitlines() == ["keisei: stopped by SIGINT, at once"]
        assert run.temporary_files() == []
        assert run.checkpoints(), "the save before this one"
        assert all(corruption(file) is None for file in run.checkpoints())


def test_slurm_requeues_a_job_that_has_saved_and_it_resumes(tmp_path: Path) -> None:
    slurm = slurm_job(tmp_path)
    with StagedRun("step", FOR_EVER, tmp_path, environment=slurm) as run:
        run.reach_stage()
        run.signal(signal.SIGUSR1, group=True)  # sbatch --signal=USR1@90
        code, _, err = run.finish()
        assert code == 128 + signal.SIGUSR1, err
        assert err.splitlines()[-1] == "keisei: stopped by SIGUSR1"
        assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n"
        (first,) = run.checkpoints()
        assert loaded(first)["global_step"] == STEP
    with StagedRun("none", ["trainer.max_epochs=1", *SERIAL, "ckpt_path=last"], tmp_path, environment=slurm) as again:
        code, out, err = again.finish()
        assert code == 0, err
        assert f"resumes from  {first.relative_to(tmp_path)}" in out
        newest = max(again.checkpoints(), key=lambda file: file.stat().st_mtime_ns)
        assert loaded(newest)["global_step"] == 16  # 2 passes of 8 minibatches: the epoch was not begun anew


def test_a_job_that_crashes_leaves_no_worker_and_the_others_finish(tmp_path: Path) -> None:
    with StagedRun(
        "failing", ["hydra.mode=MULTIRUN", "parallel.num_workers=2", "trainer.max_epochs=1,2"], tmp_path
    ) as run:
        run.reach_stage()
        code, out, err = run.finish()
    assert code == 1
    assert err.count("ZeroDivisionError: on purpose") == 1
    assert "left processes" not in err  # the check between two jobs
    assert "failed: on purpose" in out
    (last,) = (file for file in run.checkpoints() if file.name == "last.ckpt")
    assert last.parent.parent.name == "job_1"
    assert loaded(last)["epoch"] == 2
