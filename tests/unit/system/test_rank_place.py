"""The place of a process among the ranks, as the variables of its launcher say."""

from __future__ import annotations

from keisei_lightning.system.rank_place import RankPlace, present_place

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
}
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "4",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
}


def test_torchrun_and_srun_say_where_a_process_is() -> None:
    place = present_place(TORCHRUN)
    assert place == RankPlace(launcher="torchrun", rank=3, world_size=4, local_rank=1, local_world_size=2)
    assert (place.num_nodes, place.is_external, place.speaks) == (2, True, False)
    place = present_place(SLURM)
    assert place == RankPlace(launcher="SLURM", rank=2, world_size=4, local_rank=0, local_world_size=2)
    assert (place.num_nodes, place.is_external, place.speaks) == (2, True, True)


def test_torchrun_counts_inside_a_slurm_job_and_our_own_launcher_is_told_apart() -> None:
    place = present_place(SLURM | TORCHRUN)
    assert place is not None
    assert place.launcher == "torchrun"
    place = present_place(TORCHRUN | {"KEISEI_LAUNCHED": "1"})
    assert place is not None
    assert not place.is_external


def test_a_process_that_nobody_launched_and_the_only_task_of_a_job_have_no_place() -> None:
    assert present_place({}) is None
    assert present_place(SLURM | {"SLURM_NTASKS": "1"}) is None
    assert present_place(SLURM | {"SLURM_JOB_NAME": "interactive"}) is None
