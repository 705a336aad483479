"""A league's callback: when snapshots join, and what is told of it, against numbers that can be worked out by hand."""

from __future__ import annotations

import csv
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from league_players import LEFTMOST, RANDOM
from training_fakes import quiet_trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.parallel import League, OpponentOptions, SelfPlayCollector
from keisei_lightning.training import (
    LeagueCallback,
    PPOModule,
    SelfPlayDataModule,
    SnapshotCallback,
    WeightSyncCallback,
    make_league,
)
from keisei_lightning.training.league_table import LEARNER_NAME, LeagueTable, Period


def table_of(*periods: tuple[str, dict[str, list[int]]]) -> tuple[LeagueTable, Period]:
    """A table of periods with their results; the last one has not ended."""
    table, totals = LeagueTable(), dict[str, list[int]]()
    for epoch, (name, results) in enumerate(periods, 1):
        for opponent, counts in results.items():
            totals[opponent] = [old + new for old, new in zip(totals.get(opponent, [0] * 4), counts, strict=True)]
        present = table.present(totals, epoch=epoch, plies=100 * epoch)
        if epoch < len(periods):
            table.end(present, name, totals)
    return table, present


def test_a_period_has_the_results_since_the_one_before() -> None:
    table, present = table_of(
        ("snapshot 2", {"random": [3, 0, 1, 0]}),
        ("snapshot 4", {"random": [5, 1, 0, 2], "snapshot 2": [1, 0, 1, 0]}),
        (LEARNER_NAME, {"snapshot 4": [1, 1, 1, 0]}),
    )
    assert [(period.name, period.results) for period in table.periods] == [
        ("snapshot 2", {"random": [3, 0, 1, 0]}),
        ("snapshot 4", {"random": [5, 1, 0, 2], "snapshot 2": [1, 0, 1, 0]}),
    ]
    assert present == Period(name=LEARNER_NAME, epoch=3, plies=300, results={"snapshot 4": [1, 1, 1, 0]})


def test_a_rating_of_one_pair_is_the_log_odds_with_half_a_point_more_for_each() -> None:
    table, present = table_of((LEARNER_NAME, {"random": [29, 1, 10, 7]}))
    elo = 400 * math.log10((29.5 + 0.5) / (10.5 + 0.5))  # Firth's correction; void games do not count
    assert table.rate(present) == pytest.approx({LEARNER_NAME: elo, "random": 0.0}, abs=1e-3)


def test_a_snapshot_links_the_period_that_it_comes_from_with_later_ones() -> None:
    results: dict[str, list[int]] = {"random": [75, 0, 25, 0]}
    table, present = table_of(("snapshot 2", results), (LEARNER_NAME, {"snapshot 2": [7500, 0, 2500, 0]}))
    ratings = table.rate(present)
    assert ratings["random"] == 0.0
    assert ratings[LEARNER_NAME] - ratings["snapshot 2"] == pytest.approx(400 * math.log10(3), abs=1)
    assert ratings["snapshot 2"] == pytest.approx(400 * math.log10(3), abs=5)


def test_who_is_not_connected_with_the_present_learner_has_no_rating() -> None:
    table, present = table_of(("snapshot 2", {"random": [1, 0, 0, 0]}), (LEARNER_NAME, {"first": [1, 0, 1, 0]}))
    assert set(table.rate(present)) == {LEARNER_NAME, "first"}


def test_the_table_is_a_csv_file_whose_rows_are_period_and_opponent(tmp_path: Path) -> None:
    table, present = table_of(
        ("snapshot 2", {"random": [3, 2, 0, 1]}), (LEARNER_NAME, {"random": [1, 0, 1, 0], "snapshot 2": [0, 0, 0, 1]})
    )
    files = table.write(tmp_path / "run", present)
    assert [file.name for file in files] == ["league.csv", "league.png"]
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["league.csv", "league.png"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(files[0].read_text().splitlines()))
    assert [(row["period"], row["opponent"], row["score"], row["void"]) for row in rows] == [
        ("snapshot 2", "random", "0.8000", "1"),
        (LEARNER_NAME, "random", "0.5000", "0"),
        (LEARNER_NAME, "snapshot 2", "", "1"),
    ]
    assert {row["opponent_elo"] for row in rows if row["opponent"] == "random"} == {"0.0"}


def test_a_table_without_a_game_writes_nothing(tmp_path: Path) -> None:
    assert LeagueTable().write(tmp_path, LeagueTable().present({}, epoch=1, plies=0)) == []
    assert not list(tmp_path.iterdir())


def test_a_table_resumes_from_its_state() -> None:
    table, _ = table_of(("snapshot 2", {"random": [3, 0, 1, 0]}), (LEARNER_NAME, {"random": [1, 0, 0, 0]}))
    again = LeagueTable()
    again.load_state_dict(table.state_dict())
    totals = {"random": [5, 0, 1, 0]}
    assert again.state_dict() == table.state_dict()
    assert again.present(totals, epoch=2, plies=7) == table.present(totals, epoch=2, plies=7)


def fit(
    folder: Path, *, max_epochs: int, join_score: float | None = None, ckpt_path: Path | None = None
) -> tuple[LeagueCallback, SelfPlayCollector, Any]:
    torch.manual_seed(0)
    game = game_factory("tic_tac_toe")
    policy = ActorCritic(build_network(game(1).spec, kind="mlp", num_blocks=1, channels=8))
    league = League(options=OpponentOptions(share=1.0, max_snapshots=3), players=(LEFTMOST, RANDOM))
    collector = SelfPlayCollector(
        game, policy, mode="serial", games_per_worker=8, plies_per_rollout=12, opponents=league
    )
    callback = LeagueCallback(folder / "table", every_n_epochs=2, join_score=join_score)
    trainer = quiet_trainer(folder, max_epochs=max_epochs, callbacks=[WeightSyncCallback(), callback])
    trainer.fit(PPOModule(policy), datamodule=SelfPlayDataModule(collector, minibatch_size=32), ckpt_path=ckpt_path)
    trainer.save_checkpoint(folder / "league.ckpt")
    return callback, collector, trainer


def test_snapshots_join_in_turn_and_each_ends_a_period(tmp_path: Path) -> None:
    callback, collector, trainer = fit(tmp_path, max_epochs=7)
    assert [period.epoch for period in callback.table.periods] == [2, 4, 6]
    table = list(csv.DictReader((tmp_path / "table" / "league.csv").read_text().splitlines()))
    assert {(row["period"], row["epoch"], row["plies"]) for row in table if row["period"] == LEARNER_NAME} == {
        (LEARNER_NAME, "7", str(7 * 8 * 12))
    }
    assert [period.name for period in callback.table.periods] == [each.name for each in collector.snapshots]
    assert collector.pool is not None
    for name, counts in collector.pool.totals.items():
        present = callback.table.present(collector.pool.totals, epoch=7, plies=0)
        periods = [period.results.get(name, [0] * 4) for period in (*callback.table.periods, present)]
        assert [sum(column) for column in zip(*periods, strict=True)] == counts
    metrics = trainer.callback_metrics
    assert float(metrics["league/score_vs_random"]) == pytest.approx(collector.pool.members[-1].score)
    assert float(metrics["league/score"]) < 1.0
    assert "league/elo" in metrics


def test_a_snapshot_waits_until_the_learner_beats_those_before(tmp_path: Path) -> None:
    callback, collector, _ = fit(tmp_path, max_epochs=8, join_score=0.99)
    assert [period.epoch for period in callback.table.periods] == [2]  # the first one has nobody to beat
    assert len(collector.snapshots) == 1


def test_the_table_of_a_resumed_run_is_that_of_the_whole_one(tmp_path: Path) -> None:
    whole, collector, _ = fit(tmp_path / "whole", max_epochs=5)
    fit(tmp_path / "part", max_epochs=3)
    rest, resumed, _ = fit(tmp_path / "rest", max_epochs=5, ckpt_path=tmp_path / "part" / "league.ckpt")
    assert rest.state_dict() == whole.state_dict()
    assert collector.pool is not None
    assert resumed.pool is not None
    assert resumed.pool.totals == collector.pool.totals
    names = [folder / "table" / "league.csv" for folder in (tmp_path / "rest", tmp_path / "whole")]
    assert names[0].read_text() == names[1].read_text()


def test_a_table_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "table").write_text("a file, no folder")
    with caplog.at_level(logging.WARNING):
        callback, _, _ = fit(tmp_path, max_epochs=2)
    assert "the league's table was not written to" in caplog.text
    assert len(callback.table.periods) == 1


def network(channels: int) -> ActorCritic:
    torch.manual_seed(channels)
    return ActorCritic(build_network(game_factory("tic_tac_toe")(1).spec, kind="mlp", num_blocks=1, channels=channels))


def test_a_checkpoint_is_a_member_with_its_weights_and_another_networks_is_refused_in_one_line(tmp_path: Path) -> None:
    _, collector, _ = fit(tmp_path, max_epochs=2)
    path = str(tmp_path / "league.ckpt")
    learner = network(8)
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    league = make_league(OpponentOptions(), ["random", path], learner)
    assert [player.name for player in league.players] == ["random"]
    ((name, policy),) = [(member.name, member.policy) for member in league.policies]
    assert name == path
    trained = collector.policy.state_dict()
    assert all(torch.equal(tensor, trained[key]) for key, tensor in policy.state_dict().items())
    assert all(torch.equal(tensor, before[key]) for key, tensor in learner.state_dict().items())
    with pytest.raises(ConfigError) as refused:
        make_league(OpponentOptions(), [path], network(4))
    (line,) = refused.value.errors
    assert line.startswith(f"opponents.members={path}: another network's checkpoint (")


def test_a_score_to_join_out_of_its_bounds_is_refused() -> None:
    with pytest.raises(ConfigError, match="join_score=1: must be a number, 0 or more and less than 1, or None"):
        LeagueCallback("here", join_score=1.0)
    assert issubclass(LeagueCallback, SnapshotCallback)
