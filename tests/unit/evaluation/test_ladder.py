from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import counting_game

from keisei_lightning.commands.evaluate.report import Report
from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation import Ladder, RandomPlayer, Tally, ladder_names, load_ladder, play_round_robin
from keisei_lightning.evaluation.ratings import rate_players
from keisei_lightning.evaluation.registry import parse_player


def test_a_round_robin_leaves_a_ladder(tmp_path: Path) -> None:
    players = [RandomPlayer(3, seed, name=name) for seed, name in enumerate(("random", "other", "third"))]
    report = Report(tmp_path, {"game": "counting"}, anchor="random")
    for result in play_round_robin(counting_game(), players, num_games=20, seed=5):
        report.add(result)
    ladder = load_ladder(tmp_path / "results.json")
    assert ladder == Ladder(
        game="counting", matches=tuple((result.player, result.opponent, result.total) for result in report.results)
    )
    assert ladder.names == ["other", "random", "third"]
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["ratings"]
    assert written == {name: rating.as_json() for name, rating in rate_players(report.results).items()}


def test_the_ladder_of_shogi_is_part_of_the_library() -> None:
    assert ladder_names() == ["shogi"]
    ladder = load_ladder("shogi")
    assert ladder.game == "shogi"
    assert all(parse_player(name).text == name for name in ladder.names)
    count = len(ladder.names)
    assert len({frozenset(match[:2]) for match in ladder.matches}) == len(ladder.matches) == count * (count - 1) // 2


def test_the_ladder_of_shogi_has_no_holes() -> None:
    matches = load_ladder("shogi").matches
    scores = {(one, other): tally.score for one, other, tally in matches}
    scores |= {(other, one): 1 - score for (one, other), score in scores.items()}
    above = {one: [score for (player, _), score in scores.items() if player == one] for one, _ in scores}
    # A player between two rungs neither always loses to one of them nor always beats it.
    alone = {one for one, own in above.items() if not any(0.15 <= score <= 0.4 for score in own)}
    assert alone <= {"fairy_stockfish(skill=0,nodes=1000)"}  # the strongest


def test_a_ladder_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_ladder(tmp_path / "nowhere.json")
    assert caught.value.errors == (
        f"ladder {tmp_path}/nowhere.json: cannot be read (No such file or directory); must be shogi, or the path of a "
        "results.json of keisei eval round_robin=true",
    )


@pytest.mark.parametrize(
    "whole",
    [
        [],
        {"game": "x"},
        {"game": "x", "matches": [3]},
        {"game": "x", "matches": [{"player": "random", "opponent": "a", "wins": 1, "draws": 0}]},
        {"game": "x", "matches": [{"player": "random", "opponent": "a", "wins": 1, "draws": 0, "losses": -1}]},
        {"game": "x", "matches": [{"player": "b", "opponent": "a", "wins": 1, "draws": 0, "losses": 1}]},
    ],
)
def test_what_is_no_ladder_is_refused_in_one_line(whole: Any, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is no results\.json of keisei eval round_robin=true \(\w+: ") as caught:
        load_ladder(file)
    assert len(caught.value.errors) == 1
    assert "\n" not in caught.value.errors[0]


def test_a_count_is_a_whole_number(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    rows = [{"player": "random", "opponent": "a", "wins": 1, "draws": 2, "losses": 3}]
    file.write_text(json.dumps({"game": "x", "matches": rows}), encoding="utf-8")
    assert load_ladder(file).matches == (("random", "a", Tally(wins=1, draws=2, losses=3)),)
    file.write_text(json.dumps({"game": "x", "matches": [{**rows[0], "effective_games": 4.0}]}), encoding="utf-8")
    assert load_ladder(file).matches == (("random", "a", Tally(wins=1, draws=2, losses=3, design_effect=1.5)),)
    file.write_text(json.dumps({"game": "x", "matches": [{**rows[0], "effective_games": 0}]}), encoding="utf-8")
    with pytest.raises(ConfigError, match="effective_games=0 is no number of games"):
        load_ladder(file)
    rows[0]["wins"] = True
    file.write_text(json.dumps({"game": "x", "matches": rows}), encoding="utf-8")
    with pytest.raises(ConfigError, match="True is no number of games"):
        load_ladder(file)
