"""Several learners (ranks), as torchrun starts them: what they learn, count, play and save is that of one alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ranks_program
import torch
from ranks_program import GAMES, PLIES, STEPS_PER_ITERATION

pytestmark = [pytest.mark.process, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
TRAININGS = {
    "tic_tac_toe": {"game": "tic_tac_toe"},
    "connect_four": {"game": "connect_four", "opponents": {"share": 0.5}},
    "hex": {"game": "hex(board_size=4)"},
    "league": {"game": "connect_four", "opponents": {"share": 0.5}, "members": ["random", "alpha_beta(depth=1)"]},
}
"""Three games. In one of them the learner meets snapshots, whose plies are not learned from; then players too."""

SEARCHED = {**TRAININGS["tic_tac_toe"], "search": {"games": 4, "simulations": 8, "share": 0.2, "minibatch_size": 8}}
"""A training that learns from searches too."""

NOT_MEANS = {"train/ESS", *(f"self_play/{name}" for name in ("publish_ms", "plies_per_s", "games_per_s"))}
NOT_MEANS |= {"self_play/learner_wait_s", "self_play/worker_wait_s", "self_play/search_s"}
"""Metrics that depend on the clock; and the effective sample size, which is of each rank's part of a minibatch."""

HALVES = {"iterations": 1, "accumulate": 2}
"""Two minibatches for each step; what is saved after a step is saved again, and at last, after half of the next one."""

TWO = [
    *((name, "training", {**options, "workers": 1}) for name, options in TRAININGS.items()),
    ("evaluation", "evaluation", {"game": "connect_four"}),
    ("killed", "killed_worker", {}),
    (
        "async",
        "training",
        {**TRAININGS["connect_four"], "workers": 2, "iterations": 3, "mode": "workers", "schedule": "async"},
    ),
    (
        "saved",
        "training",
        {**TRAININGS["connect_four"], "workers": 1, "iterations": 3, "save": {STEPS_PER_ITERATION + 3: "two.ckpt"}},
    ),
    ("halves", "training", {**TRAININGS["connect_four"], **HALVES, "workers": 1, "save": {3: "halves.ckpt"}}),
    (
        "searched",
        "training",
        {**SEARCHED, "workers": 1, "iterations": 2, "save": {STEPS_PER_ITERATION + 3: "searched.ckpt"}},
    ),
    ("searched again", "training", {**SEARCHED, "workers": 1, "iterations": 2, "resume": "searched.ckpt"}),
    ("changed", "changed_weights", {}),
    ("failing", "failing_collector", {}),
]
"""What two ranks do, in one pair of processes."""

ONE = [
    *((name, "training", {**options, "workers": 2, "two_in_one": True}) for name, options in TRAININGS.items()),
    ("evaluation", "evaluation", {"game": "connect_four"}),
    ("halves", "training", {**TRAININGS["connect_four"], **HALVES, "workers": 2, "resume": "halves.ckpt"}),
    (
        "resumed",
        "training",
        {
            **TRAININGS["connect_four"],
            "workers": 2,
            "iterations": 3,
            "resume": "two.ckpt",
            "save": {2 * STEPS_PER_ITERATION + 4: "one.ckpt"},
        },
    ),
]
"""What one learner does afterwards, with as many workers."""

THREE = [
    ("three", "training", {**TRAININGS["connect_four"], "workers": 1, "iterations": 4, "resume": "one.ckpt"}),
]
"""What three ranks do after that."""


def run_ranks(folder: Path, scenarios: list[tuple[str, str, dict[str, Any]]], *, number: int) -> None:
    """Start so many ranks and wait for all of them; one that fails is told of with its output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number), "TORCHELASTIC_RUN_ID": "test"}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "tests/process/ranks_program.py"), str(folder), json.dumps(scenarios)]
    ranks = [
        subprocess.Popen(
            command,
            env=os.environ | world | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(number)
    ]
    try:
        outputs = [rank.communicate(timeout=600)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [rank.returncode for rank in ranks] == number * [0], "\n".join(outputs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks, then one, then three have left what they have seen."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(folder, TWO, number=2)
    alone = folder / "alone"
    alone.mkdir()
    for name in ("two.ckpt", "halves.ckpt"):
        (alone / name).symlink_to(folder / name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ranks_program.run(alone, ONE)
    finally:
        torch.set_num_threads(threads)
    (folder / "one.ckpt").symlink_to(alone / "one.ckpt")
    run_ranks(folder, THREE, number=3)
    return folder


def seen(runs: Path, name: str, rank: int = 0) -> Any:
    return torch.load(runs / f"{name}.{rank}.pt", weights_only=False)


def alone(runs: Path, name: str) -> Any:
    return seen(runs / "alone", name)


def means(metrics: dict[str, float]) -> dict[str, float]:
    """What does not depend on the clock."""
    return {name: value for name, value in metrics.items() if name not in NOT_MEANS}


@pytest.mark.parametrize("game", TRAININGS)
def test_two_ranks_learn_what_one_learns_from_twice_the_batch(game: str, runs: Path) -> None:
    one, two = alone(runs, game), seen(runs, game)
    assert len(two["gradients"]) == 50
    torch.testing.assert_close(two["gradients"], one["gradients"], rtol=0, atol=1e-6)
    torch.testing.assert_close(two["weights"][50], one["weights"][50], rtol=0, atol=1e-6)
    assert float((one["weights"][50] - one["weights"][1]).abs().max()) > 1e-3  # something has been learned


@pytest.mark.parametrize("game", TRAININGS)
def test_their_weights_and_metrics_are_the_same_on_both(game: str, runs: Path) -> None:
    first, second = seen(runs, game, 0), seen(runs, game, 1)
    assert all(torch.equal(first["weights"][step], second["weights"][step]) for step in range(1, 51))
    assert first["metrics"] == second["metrics"]


@pytest.mark.parametrize("game", TRAININGS)
def test_counts_are_sums_and_means_are_over_the_plies_of_both(game: str, runs: Path) -> None:
    one, two = alone(runs, game)["metrics"][50], seen(runs, game)["metrics"][50]
    assert two["self_play/plies"] == 5 * 2 * GAMES * PLIES
    assert means(two) == pytest.approx(means(one), rel=1e-5, abs=1e-5)


def test_the_pools_hold_the_same_snapshots_with_the_results_of_both(runs: Path) -> None:
    first, second = seen(runs, "connect_four", 0)["standings"], seen(runs, "connect_four", 1)["standings"]
    assert first == second == alone(runs, "connect_four")["standings"]
    assert len(first) == 5
    assert sum(games for _, games, _ in first) > 0


def test_the_table_of_a_league_has_the_games_of_both(runs: Path) -> None:
    first, second, one = seen(runs, "league", 0), seen(runs, "league", 1), alone(runs, "league")
    assert first["league"] == second["league"] == one["league"]
    (table,) = first["league"]
    assert {"random", "alpha_beta(depth=1)"} < set(table["before"])
    assert (runs / "league.0/league.csv").read_text() == (runs / "alone/league.0/league.csv").read_text()
    assert not (runs / "league.1").exists()


def test_a_match_that_is_shared_out_is_the_match_of_one(runs: Path) -> None:
    first, second, one = seen(runs, "evaluation", 0), seen(runs, "evaluation", 1), alone(runs, "evaluation")
    assert first["deterministic"] == second["deterministic"] == one["deterministic"]
    assert first["random"] == second["random"]
    assert (first["random games"], one["random games"]) == (34, 34)


def test_a_killed_worker_of_one_rank_is_replaced_and_neither_rank_stops(runs: Path) -> None:
    first, second = seen(runs, "killed", 0), seen(runs, "killed", 1)
    last = max(first["metrics"])
    assert last == 3 * STEPS_PER_ITERATION
    assert first["metrics"][last]["self_play/restarts"] == 1
    assert first["metrics"][last]["self_play/healthy_workers"] == 2
    assert first["metrics"][last]["self_play/plies"] == 3 * 2 * GAMES * PLIES
    assert torch.equal(first["weights"][last], second["weights"][last])


def test_ranks_whose_workers_play_on_meanwhile_keep_the_same_weights_and_snapshots(runs: Path) -> None:
    first, second = seen(runs, "async", 0), seen(runs, "async", 1)
    assert max(first["weights"]) == 3 * STEPS_PER_ITERATION
    assert all(torch.equal(first["weights"][step], second["weights"][step]) for step in first["weights"])
    assert first["standings"] == second["standings"]
    assert [version for version, _, _ in first["standings"]] == [1, 2, 3]


def test_one_learner_resumes_in_the_middle_of_an_iteration_of_two(runs: Path) -> None:
    two, one = seen(runs, "saved"), alone(runs, "resumed")
    end = 2 * STEPS_PER_ITERATION
    assert min(one["weights"]) == STEPS_PER_ITERATION + 4
    for step in range(STEPS_PER_ITERATION + 4, end + 1):  # the minibatches of both, and nothing else
        torch.testing.assert_close(one["weights"][step], two["weights"][step], rtol=0, atol=1e-6)
    learned = [{n: v for n, v in means(run["metrics"][end]).items() if n.startswith("train/")} for run in (one, two)]
    assert learned[0] == pytest.approx(learned[1], rel=1e-5, abs=1e-5)  # the first part was learned by the two


def test_half_a_step_of_two_ranks_becomes_a_whole_one_of_one(runs: Path) -> None:
    two, one = seen(runs, "halves")["weights"], alone(runs, "halves")["weights"]
    assert (list(two), list(one)) == ([0, 1, 2, 3, 4, 5], [4, 5])
    for step in one:
        torch.testing.assert_close(one[step], two[step], rtol=0, atol=1e-6)


def test_with_as_many_workers_it_plays_the_games_that_the_two_would_have_played(runs: Path) -> None:
    two, one = seen(runs, "saved")["metrics"], alone(runs, "resumed")["metrics"]
    end = 3 * STEPS_PER_ITERATION
    assert one[end]["self_play/games"] == two[end]["self_play/games"] > one[2 * STEPS_PER_ITERATION]["self_play/games"]
    assert one[end]["self_play/plies"] == 3 * 2 * GAMES * PLIES


def test_three_ranks_resume_from_one_and_share_what_is_left_of_its_iteration(runs: Path) -> None:
    one, three = alone(runs, "resumed"), seen(runs, "three")
    end = 3 * STEPS_PER_ITERATION
    assert min(three["weights"]) == 2 * STEPS_PER_ITERATION + 5
    torch.testing.assert_close(three["weights"][end], one["weights"][end], rtol=0, atol=1e-6)
    assert all(seen(runs, "three", rank)["metrics"] == three["metrics"] for rank in (1, 2))
    assert three["metrics"][end]["self_play/plies"] == 3 * 2 * GAMES * PLIES
    assert three["metrics"][end]["self_play/games"] == one["metrics"][end]["self_play/games"]
    last = end + STEPS_PER_ITERATION
    assert three["metrics"][last]["self_play/plies"] == (3 * 2 + 3) * GAMES * PLIES
    assert three["metrics"][last]["train/first_ratio"] == pytest.approx(1.0, abs=1e-4)
    assert three["metrics"][last]["self_play/policy_lag_max"] == 0


def test_each_rank_searches_games_of_its_own_and_both_learn_from_all(runs: Path) -> None:
    first, second = (seen(runs, "searched", rank) for rank in (0, 1))
    assert torch.equal(first["gradients"], second["gradients"])
    windows = [each["searched"]["window"] for each in (first, second)]
    assert not torch.equal(windows[0]["observation"], windows[1]["observation"])
    metrics = [means(each["metrics"][2 * STEPS_PER_ITERATION]) for each in (first, second)]
    assert metrics[0] == metrics[1]
    assert metrics[0]["train/search_policy_loss"] > 0.0
    assert metrics[0]["self_play/searched_positions"] == 16.0


def test_ranks_that_resume_in_the_middle_of_an_iteration_search_on_where_they_were(runs: Path) -> None:
    for rank in (0, 1):
        whole, resumed = seen(runs, "searched", rank), seen(runs, "searched again", rank)
        left = STEPS_PER_ITERATION - 3
        torch.testing.assert_close(resumed["gradients"], whole["gradients"][-left:])
        assert resumed["searched"]["histories"] == whole["searched"]["histories"]
        for key, column in whole["searched"]["window"].items():
            assert torch.equal(resumed["searched"]["window"][key], column), key


def test_what_one_ranks_collector_raises_both_hear_of(runs: Path) -> None:
    assert seen(runs, "failing", 1)["error"] == "ValueError: on purpose"
    assert seen(runs, "failing", 0)["error"] == "RankError: rank 1: collecting a batch failed (ValueError: on purpose)"


def test_weights_that_have_become_different_are_noticed_and_the_rank_is_named(runs: Path) -> None:
    for rank in (0, 1):
        assert seen(runs, "changed", rank)["error"].startswith("RankError: rank 1: its weights differ from those of ")
