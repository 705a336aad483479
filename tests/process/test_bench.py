"""The benches run, and what they print adds up (not how fast it was: that is no matter for a test)."""

from __future__ import annotations

import json

import pytest

from keisei_lightning.bench import main

pytestmark = pytest.mark.process


def test_the_collection_bench_prints_rates_their_ratio_and_bytes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = "collect --json --model tiny --games 4 --plies 4 --rounds 1 --opening-plies 2"
    assert main(words.split()) == 0
    report = json.loads(capsys.readouterr().out)
    (row,) = report["rows"]
    assert report["machine"]["versions"]["torch"]
    assert row["collected_plies_per_s"] > 0
    assert row["rules_only_plies_per_s"] > 0
    ratio = row["collected_plies_per_s"] / row["forward_only_positions_per_s"]
    assert row["collected_over_forward"] == pytest.approx(ratio, rel=0.01)
    assert row["bytes_per_ply"] == 426


def test_the_weights_bench_shows_that_every_worker_has_what_was_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["weights", "--workers", "2", "--rounds", "2", "--replica-rounds", "1"]) == 0
    )  # it asserts the values itself
    assert "publish and adopt ms" in capsys.readouterr().out


def test_an_unknown_bench_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["nosuch"])
    assert stop.value.code == 2
    assert "collect,weights" in capsys.readouterr().err
