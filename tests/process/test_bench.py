"""The benchmarks run, and the figures that they print add up. No test asserts how fast they were."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from keisei_lightning.commands.bench import main
from keisei_lightning.commands.bench.scale_model import Rates
from keisei_lightning.commands.bench.scale_rates import Point, calibration
from keisei_lightning.commands.bench.stages import STAGES
from keisei_lightning.commands.bench.tune import choices
from keisei_lightning.games.shogi.kernel import why_no_kernel
from keisei_lightning.system.machine import available_cpus

pytestmark = pytest.mark.process


def test_the_collection_bench_prints_rates_their_ratio_and_bytes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = "collect json=true model=tiny games=4 plies=4 rounds=1 opening_plies=2"
    assert main(words.split()) == 0
    report = json.loads(capsys.readouterr().out)
    (row,) = report["rows"]
    assert report["machine"]["versions"]["torch"]
    assert row["collected_plies_per_s"] > 0
    assert row["rules_only_plies_per_s"] > 0
    ratio = row["collected_plies_per_s"] / row["forward_only_positions_per_s"]
    assert row["collected_over_forward"] == pytest.approx(ratio, rel=0.01)
    assert row["bytes_per_ply"] == 426


def test_the_rules_bench_plays_legal_moves_on_all_boards(capsys: pytest.CaptureFixture[str]) -> None:
    words = "rules json=true games=[2,3] plies=40 rounds=2 opening_plies=4"
    assert main(words.split()) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["boards"] for row in rows] == [2, 3]
    for row in rows:
        assert 0 < row["slowest_round"] <= row["rules_observation_mask_plies_per_s"] <= row["quickest_round"]
        assert row["rules_plies_per_s"] > 1e6 / row["us_per_ply"] - 1
        assert 5 < row["legal_moves"] < 593  # the most that a position can have


def test_shogi_is_measured_by_rsshogi_alone_on_demand_and_the_report_says_who_made_the_moves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = "rules games=2 plies=20 rounds=1 opening_plies=4"
    assert main([*words.split(), "kernel=false"]) == 0
    assert "moves by rsshogi (kernel=false)" in capsys.readouterr().out
    if not why_no_kernel():
        assert main(words.split()) == 0
        assert "moves by the compiled kernel" in capsys.readouterr().out


def test_the_weights_bench_shows_that_every_worker_has_what_was_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "workers=2", "rounds=2", "replica_rounds=1"]) == 0  # it asserts the values itself
    assert "publish and adopt ms" in capsys.readouterr().out


def test_an_unknown_bench_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nosuch"]) == main([]) == 2
    assert capsys.readouterr().err.count("must be one of collect, learn, profile, rules, scale, tune, weights\n") == 2


def test_the_learning_bench_compares_with_a_loop_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    words = "learn json=true game=tic_tac_toe model=tiny games=8 plies=8 rounds=2 minibatch=16 threads=1"
    assert main([*words.split(), "opening_plies=0"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["ours_plies_per_s"] > 0
    assert row["by_hand_plies_per_s"] > 0


def test_the_profile_accounts_for_all_of_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = "experiment=smoke env=tic_tac_toe env.max_plies=null parallel=serial ppo.minibatch_size=64"
    assert main(["profile", "json=true", "iterations=2", *overrides.split()]) == 0
    *stages, everything = json.loads(capsys.readouterr().out)["rows"]
    assert [row["stage"].split(":")[0] for row in stages] == list(STAGES)
    assert all(row["us_per_ply"] > 0 for row in stages)
    assert sum(row["share_percent"] for row in stages) == pytest.approx(100, abs=0.5)
    assert sum(row["us_per_ply"] for row in stages) == pytest.approx(everything["us_per_ply"], abs=0.5)


@pytest.mark.slow
def test_the_model_of_scale_measures_its_rates_and_is_checked_on_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures of the report agree with each other; how large the model's error is, is told and not tested."""
    file = tmp_path / "scale.json"
    training = "experiment=smoke env=tic_tac_toe env.max_plies=null ppo.minibatch_size=64"
    own = f"iterations=2 nodes=[1,100] ranks=1 check=true check_workers=1 write={file}"
    assert main(["scale", "json=true", *own.split(), *training.split()]) == 0
    report = json.loads(capsys.readouterr().out)
    assert json.loads(file.read_text()) == report
    assert file.with_suffix(".svg").read_text().startswith("<?xml")
    rates = report["rates"]
    assert all(rates[name] > 0 for name in rates if name != "node_variation")
    assert rates["bytes_per_ply"] < 600
    checks = {row["training"]: row for row in report["checks"]}
    assert len(checks) == len({*calibration(available_cpus()), Point(1), Point(1, "async")})
    alone = checks["sync, 1 worker (calibrates)"]
    assert alone["predicted_played"] == pytest.approx(rates["worker_plies_per_s"], abs=1)
    assert alone["played_error_percent"] == pytest.approx(0, abs=0.1)
    assert alone["policy_lag"] == alone["predicted_lag"] == 0
    assert checks["async, 1 worker"]["played_plies_per_s"] == ""
    capsys.readouterr()
    assert main(["scale", "json=true", f"rates={file}", "nodes=100", "ranks=1", *training.split()]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["rates"] == rates
    assert again["rows"] == [row for row in report["rows"] if row["nodes"] == 100]
    assert again["checks"] == []


def _report_of(words: str) -> Any:
    """JSON of a bench that ran as a command of its own: Ray leaves threads in the process that used it."""
    command = [sys.executable, "-m", "keisei_lightning", "bench", *words.split(), "json=true"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra 'ray' is not installed")
class TestWithRay:
    """No process is left: ``tests/conftest.py`` looks."""

    def test_the_collection_bench_compares_modes(self) -> None:
        words = "game=tic_tac_toe model=tiny games=4 plies=4 rounds=1 opening_plies=0 mode=[workers,ray]"
        workers, ray = _report_of(f"collect {words}")["rows"]
        assert [row["model"].split(", ")[1] for row in (workers, ray)] == ["workers x 1", "ray x 1"]
        assert ray["collected_plies_per_s"] > 0
        assert ray["bytes_per_ply"] == workers["bytes_per_ply"]

    def test_node_agents_are_measured_beside_the_model_and_profiled(self, tmp_path: Path) -> None:
        rates = Rates(
            worker_plies_per_s=1e4,
            node_efficiency=1.0,
            learner_plies_per_s=1e4,
            overhead_s=0.01,
            node_variation=0.0,
            bytes_per_ply=200,
            weight_bytes=1e5,
        )
        file = tmp_path / "rates.json"
        file.write_text(json.dumps({"rates": asdict(rates)}))
        training = "experiment=smoke env=tic_tac_toe env.max_plies=null ppo.minibatch_size=64 iterations=1"
        report = _report_of(f"scale {training} rates={file} nodes=1 ranks=1 check=true check_workers=1 check_agents=1")
        (agent,) = (row for row in report["checks"] if row["training"] == "sync, 1 node agent")
        assert agent["played_plies_per_s"] > 0
        assert agent["policy_lag"] == 0
        *_, everything = _report_of(f"profile {training} parallel=ray parallel.num_workers=1")["rows"]
        assert everything["share_percent"] == 100


def test_tuning_tries_every_combination_and_names_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    words = "tune json=true game=tic_tac_toe model=tiny games=[2,4] plies=4 seconds=0.05 opening_plies=0"
    assert main(words.split()) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["rows"]) == len(list(choices(available_cpus(), [2, 4])))
    (note,) = report["notes"]
    assert "parallel.num_workers=" in note
    assert "parallel.games_per_worker=" in note


def test_the_combinations_use_all_cpus() -> None:
    assert list(choices(6, [8])) == [(1, 8, 6), (2, 8, 3), (4, 8, 1), (6, 8, 1)]
    assert list(choices(1, [8, 9])) == [(1, 8, 1), (1, 9, 1)]
