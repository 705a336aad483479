"""One of two learners is killed, raises or gets a signal, at every stage; and what goes on from its last checkpoint."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from rank_runs import TORCHRUN, TRAIN, RankRun, newest, run_folders
from runs import slurm_job

pytestmark = [pytest.mark.process, pytest.mark.slow]

STEPS = 16  # of an epoch: 2 passes of 8 minibatches on each rank
TWO = ("trainer.devices=2", "trainer.max_epochs=4", "checkpoint.every_n_epochs=1")
FOR_EVER = ("trainer.devices=2", "trainer.max_epochs=100000")
IN_STEP = "on_after_backward"  # the gradients have met, so that all ranks have begun the step


def pid_of_rank(run: RankRun, rank: int) -> int:
    """A rank's own process: its workers have its variables too."""
    children = [child for child in psutil.Process(run.process.pid).children() if "spawn_main" in child.cmdline()[-2]]
    (pid,) = (child.pid for child in children if child.environ().get("RANK") == str(rank))
    return pid


@pytest.mark.parametrize(
    ("hook", "dwelling", "killed", "words", "phase"),
    [
        ("on_train_epoch_start", 1, 1, ["parallel=workers"], "collecting a rollout"),
        ("on_before_backward", 1, 1, [], "in a backward pass, where gradients are averaged over the ranks"),
        ("on_save_checkpoint", 0, 0, [], "saving a checkpoint"),
    ],
)
def test_a_killed_rank_ends_all_and_is_named_and_its_last_checkpoint_is_whole(
    hook: str, dwelling: int, killed: int, words: list[str], phase: str, tmp_path: Path
) -> None:
    with RankRun(tmp_path, *TWO, *words, hook=hook, rank=dwelling) as run:
        pid = run.rank_pid()
        assert pid == pid_of_rank(run, killed)
        os.kill(pid, signal.SIGKILL)
        code, out, err = run.finish()  # fails if a process is left, a worker's too
    assert code == 1, err
    assert f"training failed: rank {killed} was killed by SIGKILL while {phase}" in err
    assert "Traceback" not in err
    assert "done" not in out
    assert newest(tmp_path)["global_step"] == STEPS


def test_a_rank_that_is_killed_in_the_reduction_of_gradients_is_named_and_one_rank_goes_on(tmp_path: Path) -> None:
    with RankRun(tmp_path, *TWO, hook="on_before_backward", rank=0, seconds=4.0) as run:
        run.reach_stage()
        time.sleep(1.0)  # rank 1 waits in the reduction for rank 0, which dwells before it
        os.kill(pid_of_rank(run, 1), signal.SIGKILL)
        code, _, err = run.finish()
    assert code == 1, err
    assert "rank 1 was killed by SIGKILL while in a backward pass" in err
    assert "Traceback" not in err
    assert newest(tmp_path)["global_step"] == STEPS
    with RankRun(tmp_path, "trainer.max_epochs=2", "ckpt_path=auto") as again:  # one device
        code, out, err = again.finish()
    assert code == 0, err
    assert "resumes from" in out
    assert newest(tmp_path)["epoch"] == 2


def test_a_rank_that_hangs_ends_all_and_what_each_was_doing_is_told(tmp_path: Path) -> None:
    with RankRun(tmp_path, *TWO, "trainer.rank_timeout_s=30", hook="on_before_backward") as run:
        os.kill(run.rank_pid(), signal.SIGSTOP)
        code, _, err = run.finish()
    assert code == 1, err
    doing = "in a backward pass, where gradients are averaged over the ranks"
    assert f"failed: rank 0 got no answer from the other ranks while {doing}: rank 1 was still {doing}\n" in err
    assert newest(tmp_path)["global_step"] == STEPS


def test_the_traceback_of_a_rank_that_raises_is_shown_once(tmp_path: Path) -> None:
    fault = ("+callbacks.fault._target_=rank_faults.Raises", "+callbacks.fault.rank=1")
    with RankRun(tmp_path, *TWO, *fault) as run:
        code, _, err = run.finish()
    assert code == 1, err
    assert "training failed: rank 1: ZeroDivisionError: on purpose" in err
    assert err.count("Traceback") == err.count('raise ZeroDivisionError("on purpose")') == 1
    assert newest(tmp_path)["global_step"] == STEPS


@pytest.mark.parametrize("addressee", ["rank 0", "rank 1", "the group"])
def test_a_signal_to_any_rank_ends_all_after_the_same_step_with_one_checkpoint(addressee: str, tmp_path: Path) -> None:
    dwelling = 0 if addressee == "rank 0" else 1
    with RankRun(tmp_path, *FOR_EVER, hook=IN_STEP, rank=dwelling) as run:
        pid = run.rank_pid()
        if addressee == "the group":  # as a terminal does
            run.signal(signal.SIGINT, group=True)
        else:
            os.kill(pid, signal.SIGINT)
        code, out, err = run.finish()
    assert code == 130, err
    assert [line for line in err.splitlines() if "epoch" not in line] == ["keisei: stopped by SIGINT"]
    assert out.count("resume with") == 1
    assert [file.name for file in run.checkpoints()] == ["last.ckpt"]
    assert (
        newest(tmp_path)["global_step"] == STEPS + 2
    )  # the step that it came in, and the one in which all heard of it


def test_slurm_requeues_a_job_of_several_ranks_once(tmp_path: Path) -> None:
    slurm = slurm_job(tmp_path)
    with RankRun(tmp_path, *FOR_EVER, hook=IN_STEP, environment=slurm) as run:
        run.reach_stage()
        run.signal(signal.SIGUSR1)  # sbatch --signal=B:USR1@90
        code, _, err = run.finish()
    assert code == 128 + signal.SIGUSR1, err
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n"
    assert newest(tmp_path)["global_step"] == STEPS + 2


def test_an_elastic_launcher_restarts_all_from_the_newest_checkpoint(tmp_path: Path) -> None:
    command = (*TORCHRUN, "--standalone", "--nproc-per-node", "2", "--max-restarts", "1", TRAIN[1])
    words = ("trainer.max_epochs=3", "checkpoint.every_n_epochs=1", "ckpt_path=auto")
    with RankRun(tmp_path, *words, hook="on_train_epoch_start", rank=1, command=command) as run:
        os.kill(run.rank_pid(), signal.SIGKILL)
        code, out, err = run.finish()
    assert code == 0, err
    first, second = run_folders(tmp_path)
    assert newest(first)["global_step"] == STEPS
    assert newest(second)["global_step"] == 3 * STEPS
    assert f"resumes from  {first.relative_to(tmp_path)}/checkpoints/last.ckpt" in out
