"""Processes that a collector starts do not spin for long, whoever starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keisei_lightning.openmp import SETTINGS, USER_VARIABLES

pytestmark = pytest.mark.process

A_PROGRAM_OF_ONES_OWN = """
import json, os, sys
from pathlib import Path
import torch
from keisei_lightning import ActorCritic, SelfPlayCollector, build_network, game_factory

def variable(pid):
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\\0")
    return next((word.partition(b"=")[2].decode() for word in words if word.startswith(b"GOMP_SPINCOUNT=")), None)

game = game_factory("tic_tac_toe")
policy = ActorCritic(build_network(game(1).spec, kind="mlp", num_blocks=1, channels=8))
with SelfPlayCollector(
    game, policy, mode=sys.argv[1], start_method=sys.argv[2], num_workers=2, games_per_worker=4, plies_per_rollout=4
) as collector:
    next(iter(collector))
    of_processes = [variable(process["pid"]) for process in collector.health()]
print(json.dumps([os.environ.get("GOMP_SPINCOUNT"), *of_processes]))
"""


def variables_of(mode: str, start_method: str, **given: str) -> list[str | None]:
    """``GOMP_SPINCOUNT`` of a program that imports torch first, and of the processes that its collector starts."""
    environment = {name: value for name, value in os.environ.items() if name not in USER_VARIABLES}
    command = [sys.executable, "-c", A_PROGRAM_OF_ONES_OWN, mode, start_method]
    done = subprocess.run(command, env=environment | given, capture_output=True, text=True, check=True)
    variables: list[str | None] = json.loads(done.stdout.splitlines()[-1])
    return variables


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux shows a process's environment")
class TestProcessesOfACollector:
    @pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
    def test_they_have_the_limit_and_the_program_keeps_its_environment(self, start_method: str) -> None:
        assert variables_of("workers", start_method) == [None, *[SETTINGS["GOMP_SPINCOUNT"]] * 2]

    def test_the_inference_process_has_it(self) -> None:
        program, *processes = variables_of("central", "forkserver")
        assert program is None
        assert len(processes) >= 2
        assert set(processes) == {SETTINGS["GOMP_SPINCOUNT"]}

    def test_a_users_own_choice_reaches_them(self) -> None:
        assert variables_of("workers", "forkserver", GOMP_SPINCOUNT="77") == ["77", "77", "77"]
