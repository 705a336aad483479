"""Two learners by one command: alone, in a sweep, under torchrun and with the variables of srun; what is refused."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from rank_runs import ENVIRONMENT, QUICK, TORCHRUN, TRAIN, RankRun, free_port, newest, run_folders
from runs import PATIENCE_S, ROOT

pytestmark = [pytest.mark.process, pytest.mark.slow]

STEPS = 16  # of an epoch: 2 passes of 8 minibatches on each rank


def test_one_command_trains_on_two_devices_with_one_table_one_folder_and_one_checkpoint(tmp_path: Path) -> None:
    with RankRun(tmp_path, "trainer.devices=2", "trainer.max_epochs=2", "parallel=workers") as run:
        code, out, err = run.finish()
    assert code == 0, err
    assert [line for line in err.splitlines() if not line.startswith("epoch 1: policy scores")] == []
    assert re.search(r"^ranks +2 *$", out, re.MULTILINE)
    assert out.count("keisei-lightning: smoke") == out.count("done") == out.count("resume with") == 1
    (folder,) = run_folders(tmp_path)
    checkpoint = newest(tmp_path)
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (2, 2 * STEPS)
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert log.count("epoch 1: policy scores") == 1


def test_a_sweep_trains_each_job_on_two_devices_in_a_folder_of_its_own(tmp_path: Path) -> None:
    words = ("-m", "trainer.devices=2", "trainer.strategy=ddp", "seed=1,2", "trainer.max_epochs=1")
    with RankRun(tmp_path, *words) as run:
        code, out, err = run.finish()  # fails if a process is left
    assert code == 0, err
    assert "left processes" not in err
    assert [folder.name for folder in run_folders(tmp_path)] == ["job_0", "job_1"]
    for folder in run_folders(tmp_path):
        assert newest(folder)["global_step"] == STEPS
    rows = re.findall(r"seed=(\d) *[│┃|] *([\d.]+) *[│┃|] *done", out)
    assert sorted(seed for seed, _ in rows) == ["1", "2"]
    assert all(math.isfinite(float(score)) for _, score in rows)


def test_torchrun_starts_the_ranks_and_the_first_one_writes(tmp_path: Path) -> None:
    command = (*TORCHRUN, "--standalone", "--nproc-per-node", "2", TRAIN[1])
    with RankRun(tmp_path, "trainer.max_epochs=1", command=command) as run:
        code, out, err = run.finish()
    assert code == 0, err
    assert re.search(r"^ranks +2 *$", out, re.MULTILINE)
    assert out.count("keisei-lightning: smoke") == out.count("resume with") == 1
    assert len(run_folders(tmp_path)) == 1
    assert newest(tmp_path)["global_step"] == STEPS


def test_the_tasks_of_srun_are_the_ranks(tmp_path: Path) -> None:
    port = free_port()

    def task(rank: int) -> dict[str, str]:
        return {
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NAME": "train",
            "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_NNODES": "1",
            "SLURM_NODELIST": "127.0.0.1",
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),
            "SLURM_NODEID": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }

    with ExitStack() as stack:
        tasks = [
            stack.enter_context(RankRun(tmp_path, "trainer.max_epochs=1", environment=task(rank))) for rank in range(2)
        ]
        ended = [each.finish() for each in tasks]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert ended[1][1:] == ("", "")  # one rank speaks
    assert len(run_folders(tmp_path)) == 1
    assert newest(tmp_path)["global_step"] == STEPS


def test_a_hydra_program_of_ones_own_trains_on_two_devices_and_goes_on_alone(tmp_path: Path) -> None:
    tiny = (
        "env@self_play.env=tic_tac_toe",
        "model@self_play.model=mlp",
        "parallel@self_play.parallel=serial",
        "self_play.parallel.games_per_worker=8",
        "self_play.ppo.minibatch_size=16",
        "self_play.trainer.max_epochs=1",
        "self_play.evaluation.num_games=2",
        "final_match.opponent=random",
        "final_match.games=2",
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "own_hydra_app" / "app.py"), *tiny, "self_play.trainer.devices=2"],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ranks +2 *$", done.stdout, re.MULTILINE)
    assert done.stdout.count("A first study: ") == 1
    assert " self_play.trainer.max_epochs=2" in done.stdout  # how to resume, in the keys of that program
    assert newest(tmp_path)["epoch"] == 1


@pytest.mark.parametrize(
    ("command", "words", "line"),
    [
        (TRAIN, "trainer.num_nodes=2", "trainer.num_nodes=2: must be 1 without a launcher on each machine"),
        (TRAIN, "trainer.devices=2 ppo.gamma=2", "ppo.gamma=2: must be a number, from 0 to 1"),
        (
            (*TORCHRUN, "--standalone", "--nproc-per-node", "2", TRAIN[1]),
            "trainer.devices=3",
            "trainer.devices=3: must be left out, or be 2 (torchrun has started 2 processes, 2 on this machine)",
        ),
        (
            (*TORCHRUN, "--standalone", "--nproc-per-node", "2", TRAIN[1]),
            "-m seed=1,2",
            "-m, hparams_search: must not be given under torchrun; a sweep starts the ranks of each of its jobs itself",
        ),
        (
            (*TORCHRUN, "--standalone", "--nproc-per-node", "2", TRAIN[1]),
            "hparams_search=grid",
            "-m, hparams_search: must not be given under torchrun; a sweep starts the ranks of each of its jobs itself",
        ),
    ],
)
def test_what_cannot_be_is_told_once_before_any_rank_trains(
    command: tuple[str, ...], words: str, line: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*command, *QUICK, *words.split()],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PATH": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode != 0
    told = [text for text in done.stderr.splitlines() if text.startswith("keisei: ")]
    assert len(told) == 1, done.stderr
    assert told[0].startswith(f"keisei: {line}")
    assert run_folders(tmp_path) == []
