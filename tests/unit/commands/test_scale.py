"""``keisei bench scale`` with rates that are given: its table, its file, its picture; and rates from what was timed."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from keisei_lightning.commands.bench import main
from keisei_lightning.commands.bench.options import ScaleOptions
from keisei_lightning.commands.bench.scale import CHANGES
from keisei_lightning.commands.bench.scale_model import STAGES, Network, ScaleModel, Training
from keisei_lightning.commands.bench.scale_rates import Point, check_points, check_rows, rates_of
from keisei_lightning.commands.bench.stages import STAGES as TIMED
from keisei_lightning.commands.bench.stages import StageTimes

RATES = {
    "worker_plies_per_s": 1000.0,
    "node_efficiency": 0.9,
    "learner_plies_per_s": 500.0,
    "overhead_s": 0.01,
    "node_variation": 0.02,
    "bytes_per_ply": 426.0,
    "weight_bytes": 1e6,
}
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "scale_out.md"
SMOKE = ["experiment=smoke", "parallel.games_per_worker=8", "parallel.plies_per_rollout=16", "ppo.minibatch_size=64"]


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    file = tmp_path / "rates.json"
    file.write_text(json.dumps({"rates": RATES, "rows": []}))
    return file


def report_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    assert main(["scale", "json=true", *SMOKE, *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_row_for_each_schedule_ranks_and_nodes_in_their_order(
    rates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = report_of([f"rates={rates}", "nodes=[1,50]", "ranks=[1,4]"], capsys)
    assert [(row["schedule"], row["ranks"], row["nodes"]) for row in report["rows"]] == [
        (schedule, ranks, nodes) for schedule in ("sync", "async") for ranks in (1, 4) for nodes in (1, 50)
    ]
    assert report["rates"] == RATES
    assert report["training"] == {
        "plies_per_rollout": 128,
        "num_epochs": 2,
        "minibatch_size": 64,
        "slots_per_worker": 2,
    }
    slow = report["rows"][4]  # async, one rank, one node: the learner's 500 plies/s less what each iteration takes
    assert slow["slowest"] == "learn"
    assert slow["policy_lag"] == pytest.approx(1, abs=0.01)
    assert slow["steps_behind"] == 32  # 8 workers x 128 plies x 2 passes in minibatches of 64
    assert slow["in_mb_per_s"] == pytest.approx(slow["plies_per_s"] * 426 / 1e6, abs=0.01)


def test_it_says_where_it_stops_and_what_to_change_then(rates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert CHANGES.keys() == STAGES.keys()
    learner, wide = (
        report_of([f"rates={rates}", "schedule=async", "ranks=1", *further], capsys)["stops"][0]
        for further in ([], ["learner_plies_per_s=1e9", "bandwidth_gbit_per_s=0.1", "rollout_ms=0"])
    )
    assert learner["slowest_beyond"] == "learn"
    assert "more learner ranks" in learner["change"]
    assert learner["90_percent_with_nodes"] == 1
    # 7,200 plies/s a node, 1 MB of weights for its 1,024 plies: 12.5 MB/s are 12,800 plies/s
    assert wide["slowest_beyond"] == "broadcast"
    assert wide["90_percent_with_nodes"] == 2
    assert wide["plies_per_s_then"] == 12_800
    (limits,) = report_of([f"rates={rates}", "nodes=[1,10]", "ranks=1"], capsys)["limits"]
    assert (limits["nodes"], limits["play"]) == (10, 72_000)
    assert limits["deliver"] == round(1.25e9 / 426)
    assert limits["broadcast"] == 1_280_000  # 1,024 plies a node for its 1 MB
    # 2 slots x 1,024 plies x 426 B a node, in 32 GB
    assert wide["nodes_that_fit_memory"] == int(32e9 // (2 * 1024 * 426))


def test_rates_that_are_given_count_more_than_those_of_a_file_and_are_told_apart(
    rates: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    words = [f"rates={rates}", "nodes=3", "ranks=1", "learner_plies_per_s=9000"]
    assert main(["scale", *SMOKE, *words]) == 0
    out = capsys.readouterr().out
    assert "given: a rank learns 9,000 plies/s" in out
    assert f"from {rates}: a worker plays 1,000 plies/s" in out
    assert "assumed: 8 workers on the 8 CPUs of a node; cards of 10 Gbit/s and 0.2 ms" in out
    assert "where it stops" in out
    assert "what to change where the learner learns (learn): more learner ranks" in out
    assert "measured here, beside the model" not in out


@pytest.mark.slow
def test_the_picture_is_beside_the_report_without_a_background_and_the_same_each_time(
    rates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = []
    for name in ("a", "b"):
        report_of([f"rates={rates}", "nodes=[1,1000]", "ranks=[1,2]", f"write={tmp_path}/{name}.json"], capsys)
        pictures.append((tmp_path / f"{name}.svg").read_text())
    assert pictures[0] == pictures[1]
    picture = ElementTree.fromstring(pictures[0])
    colours = set(re.findall(r"(?:fill|stroke): (#\w{6})", pictures[0]))
    assert {"#3b8fd4", "#d9730d", "#808080"} <= colours
    assert not {"#ffffff", "#000000"} & colours  # white would vanish on a light page, black on a dark one
    assert picture.tag.endswith("svg")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "must be a file that can be read (No such file or directory)"),
        ("{", "must be what `keisei bench scale write=FILE` wrote"),
        ("[1]", "must be what `keisei bench scale write=FILE` wrote"),
        ('{"rates": {"worker_plies_per_s": 3}}', "must be what `keisei bench scale write=FILE` wrote"),
        (json.dumps({"rates": RATES | {"overhead_s": -1}}), "overhead_s=-1: must be a number, 0 or more"),
        (json.dumps({"rates": RATES | {"bytes_per_ply": "x"}}), "bytes_per_ply=x: must be a number, more than 0"),
    ],
)
def test_a_file_without_rates_is_one_line(
    text: str | None, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rates.json"
    if text is not None:
        file.write_text(text)
    assert main(["scale", f"rates={file}"]) == 2
    assert capsys.readouterr().err == f"keisei: rates={file}: {reason}\n"


def test_the_report_and_its_picture_are_two_files(
    rates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["scale", f"rates={rates}", "write=scale.svg"]) == 2
    assert capsys.readouterr().err == (
        "keisei: write=scale.svg: must have another ending than .svg, which the picture beside it has\n"
    )


def test_a_mistyped_override_of_the_training_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", "ppo.epoch=3"]) == 2
    assert capsys.readouterr().err.startswith("keisei: ppo.epoch=3: no such key (did you mean ppo.epochs?)")


def test_80_columns_are_enough(
    rates: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    quick = ["learner_plies_per_s=1e9", "worker_plies_per_s=20000", "rollout_ms=0", "bandwidth_gbit_per_s=0.1"]
    assert main(["scale", *SMOKE, f"rates={rates}", *quick]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    row = next(line for line in out.splitlines() if line.startswith("│ sync") and " 1,000 " in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][:3] == ["sync", "1", "1,000"]
    assert "what to change where weights leave through the learner's network card (broadcast): broadcast=tree" in (
        " ".join(out.split())
    )


def test_cpus_that_play_more_together_than_alone_are_called_a_measurement_that_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rates.json"
    for efficiency in (1.0, 1.22):
        file.write_text(json.dumps({"rates": RATES | {"node_efficiency": efficiency}}))
        notes = report_of([f"rates={file}", "nodes=1", "ranks=1"], capsys)["notes"]
        assert any("something else ran while one worker was measured" in note for note in notes) is (efficiency > 1)


@pytest.mark.slow
def test_the_commands_of_the_page_run(
    rates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "scale.json").write_text(rates.read_text())
    commands = re.findall(r"^\$ keisei bench (scale .*?)(?: +#.*)?$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        words = shlex.split(command)
        given = [] if any(word.startswith("rates=") for word in words) else [f"rates={rates}"]
        assert main([*words, *given]) == 0, capsys.readouterr().err


def test_the_page_says_of_each_stage_what_to_change() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert rows.keys() == STAGES.keys() - {"publish"}  # as larger rollouts, which "take" asks for too


# ---- from what was timed


def test_all_that_is_measured_is_one_thread_a_worker() -> None:
    assert [str(point) for point in check_points(ScaleOptions(check_workers=[1, 4], check_agents=2), cpus=2)] == [
        *("sync, 1 worker", "sync, 4 workers", "async, 1 worker", "sync, 1 node agent", "sync, 2 node agents"),
    ]
    assert {"parallel.num_workers=4", "parallel.mode=workers", "parallel.threads_per_worker=1"} <= {*Point(4).overrides}
    assert {"parallel.num_workers=1", "parallel.mode=ray", "parallel.num_agents=3"} <= {*Point(3, "sync", 3).overrides}


def timed(collect_s: float, waits_s: tuple[float, ...], *, lag: float = 0.0) -> StageTimes:
    """1,000 plies: learning takes 4 s, all between 0.5 s."""
    seconds = dict.fromkeys(TIMED, 1.0) | {"collect": collect_s, "between": 0.5}
    return StageTimes(
        seconds=seconds,
        waits_s=waits_s,
        plies=1000,
        lags=tuple(lag for _ in waits_s),
        stats={},
        bytes_per_ply=10,
        weight_bytes=100,
        learner_threads=1,
    )


TIMES = {
    Point(1): [timed(10.0, (5.0, 5.0)), timed(12.5, (6.0, 6.5)), timed(9.0, (4.5, 4.5))],
    Point(2): [timed(6.25, (3.0, 3.25))],
    Point(8): [timed(5.0, (2.5, 2.5))],
    Point(2, "async"): [timed(1.0, (0.5, 0.5), lag=1.0)],
}


def test_rates_come_from_one_worker_and_from_one_for_each_cpu_medians_of_the_rounds() -> None:
    rates = rates_of(TIMES, cpus=2)
    assert rates.worker_plies_per_s == 100  # 1,000 plies in 10 s, the median
    assert rates.node_efficiency == 0.8  # 160 of 200
    assert rates.learner_plies_per_s == 250
    assert rates.overhead_s == 0.25
    assert rates.node_variation == pytest.approx(0.125 * 2**0.5 / 3.125)
    assert (rates.bytes_per_ply, rates.weight_bytes) == (10, 100)
    assert rates_of(TIMES, cpus=1).node_efficiency == 1


def test_measured_points_stand_beside_what_the_model_says_of_them() -> None:
    training = Training(plies_per_rollout=250, num_epochs=2, minibatch_size=50, slots_per_worker=2)
    network = Network(bytes_per_s=1000.0, latency_s=0.5, store_bytes_per_s=1e3, rollout_s=0.25)
    model = ScaleModel(rates=replace(rates_of(TIMES, cpus=2), node_variation=0.0), training=training, network=network)
    times = TIMES | {Point(2, "sync", 2): [timed(20.0, (10.0, 10.0))]}
    one, full, eight, pipelined, agents = check_rows(times, model, cpus=2)
    assert one["training"] == "sync, 1 worker (calibrates)"
    assert (one["played_plies_per_s"], one["predicted_played"], one["played_error_percent"]) == (100, 100, 0)
    assert full["training"] == "sync, 2 workers (calibrates)"
    # 500 plies: 500 / 160 + 500 / 250 + 0.25 s; measured 1,000 / 10.75
    assert full["predicted"] == round(500 / 5.375) == full["plies_per_s"]
    assert eight["training"] == "sync, 8 workers"
    assert (eight["played_plies_per_s"], eight["predicted_played"], eight["played_error_percent"]) == (200, 160, -20)
    assert pipelined["training"] == "async, 2 workers"
    assert (pipelined["policy_lag"], pipelined["predicted_lag"]) == (1, 1)
    assert pipelined["played_plies_per_s"] == ""
    # two CPUs play 160 plies/s, or learn for 2.25 s in 500
    assert pipelined["predicted"] == round(1 / (1 / 160 + 2.25 / 500))
    assert agents["training"] == "sync, 2 node agents"
    assert agents["played_plies_per_s"] == 50
    # 500 plies: played in 500 / 160, delivered in 5.5, taken in 2 x 0.25 + 5, weights in 2 x 0.1 + 0.5
    assert agents["predicted_played"] == round(500 / (3.125 + 5.5 + 5.5 + 0.7))
