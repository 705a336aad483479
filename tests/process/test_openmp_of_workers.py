"""OpenMP threads of a collector's processes sleep soon on a busy machine, whatever program starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keisei_lightning.system.openmp import SETTINGS, USER_VARIABLES

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux shows a process's environment"),
]

A_PROGRAM_OF_ONES_OWN = """
import json, os, sys, threading
from pathlib import Path
import torch
from keisei_lightning import ActorCritic, SelfPlayCollector, build_network, game_factory

def variable(pid, name):
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\\0")
    return next((word.partition(b"=")[2].decode() for word in words if word.startswith(name.encode() + b"=")), None)

def governors():
    return sum(thread.name == "keisei-spinning-governor" for thread in threading.enumerate())

mode, start_method, name = sys.argv[1:]
game = game_factory("tic_tac_toe")
policy = ActorCritic(build_network(game(1).spec, kind="mlp", num_blocks=1, channels=8))
seen = [governors()]
with SelfPlayCollector(
    game, policy, mode=mode, start_method=start_method, num_workers=2, games_per_worker=4, plies_per_rollout=4
) as collector:
    next(iter(collector))
    of_processes = [variable(process["pid"], name) for process in collector.health()]
    seen.append(governors())
seen.append(governors())
print(json.dumps({"governors": seen, "variable": [os.environ.get(name), *of_processes]}))
"""


def run_program(mode: str, start_method: str, name: str, **given: str) -> tuple[list[int], list[str | None]]:
    """Governors before, while and after a collector is at work, and a variable of the program and its processes."""
    environment = {name: value for name, value in os.environ.items() if name not in USER_VARIABLES}
    command = [sys.executable, "-c", A_PROGRAM_OF_ONES_OWN, mode, start_method, name]
    done = subprocess.run(command, env=environment | given, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    return told["governors"], told["variable"]


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_workers_have_the_variables_and_the_program_keeps_its_environment(start_method: str) -> None:
    governors, variables = run_program("workers", start_method, "KMP_BLOCKTIME")
    assert governors == [0, 1, 0]
    assert variables == [None, *[SETTINGS["KMP_BLOCKTIME"]] * 2]


def test_the_inference_process_has_them() -> None:
    _, (program, *processes) = run_program("central", "forkserver", "KMP_BLOCKTIME")
    assert program is None
    assert len(processes) == 3
    assert set(processes) == {SETTINGS["KMP_BLOCKTIME"]}


def test_a_users_own_setting_reaches_them_and_no_governor_runs() -> None:
    governors, variables = run_program("workers", "forkserver", "GOMP_SPINCOUNT", GOMP_SPINCOUNT="77")
    assert governors == [0, 0, 0]
    assert variables == ["77", "77", "77"]
