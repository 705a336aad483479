"""What an evaluation leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from fakes import counting_game
from numpy.typing import NDArray
from rsshogi.record import Record

from keisei_lightning.commands.evaluate.report import Report, print_ratings, print_results, write_game
from keisei_lightning.evaluation import GameRecord, MatchResult, RandomPlayer, Tally, play_match
from keisei_lightning.evaluation.players import Turn
from keisei_lightning.games.shogi.game import Shogi

START = "lnsgkgsnl/1r5b1/ppppppppp/9/9/2P6/PP1PPPP1P/1B5R1/LNSGKGSNL w - 2"


class First:
    """Plays the first action; that is, counts by one."""

    deterministic = True

    def __init__(self, name: str = "first") -> None:
        self.name = name

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        return np.zeros(len(turn.indices), np.int64)


def match(player: str, opponent: str, *, records: bool = False, seed: int = 0) -> MatchResult:
    players = (RandomPlayer(3, seed, name=player), RandomPlayer(3, seed + 1, name=opponent))
    return play_match(counting_game(), *players, num_games=8, seed=seed, keep_records=records)


def shogi_game(*moves: str) -> Shogi:
    """A game from :data:`START`, White to move."""
    game = Shogi(1)
    game.set_position(0, START)
    for move in moves:
        game.step(np.array([game.action_of(0, move)]))
    return game


class TestFolder:
    def test_every_match_is_written_when_it_is_over(self, tmp_path: Path) -> None:
        report = Report(tmp_path / "out", {"command": "keisei eval x", "seed": 3})
        first = match("me", "random")
        report.add(first)
        report.add(match("me", "other"))
        with (tmp_path / "out" / "results.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["opponent"] for row in rows] == ["random", "other"]
        assert int(rows[0]["games"]) == 8 == int(rows[0]["wins"]) + int(rows[0]["draws"]) + int(rows[0]["losses"])
        assert float(rows[0]["score"]) == first.score
        assert float(rows[0]["score_low"]) == first.interval[0]
        assert int(rows[0]["wins_as_first"]) + int(rows[0]["wins_as_second"]) == first.wins
        whole = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
        assert (whole["command"], whole["seed"]) == ("keisei eval x", 3)
        assert [row["opponent"] for row in whole["matches"]] == ["random", "other"]
        assert whole["matches"][0]["outcomes"] == {"goal": 8}
        assert set(whole["machine"]["versions"]) >= {"keisei-lightning", "torch"}
        assert whole["date"][:2] == "20"
        assert whole["ratings"] == {}

    def test_the_first_games_are_animated_if_it_is_wanted(self, tmp_path: Path) -> None:
        report = Report(tmp_path, {}, animate=lambda record: f"<svg>{record.plies}</svg>", num_animations=2)
        result = match("me", "random", records=True)
        report.add(result)
        drawn = {path.name: path.read_text() for path in tmp_path.glob("records/*/*.svg")}
        plies = [record.plies for record in result.records]
        assert drawn == {f"game_000{number}.svg": f"<svg>{plies[number - 1]}</svg>" for number in (1, 2)}
        assert len(list(tmp_path.glob("records/*/*.txt"))) == len(plies)

    def test_an_anchor_rates_the_players(self, tmp_path: Path) -> None:
        report = Report(tmp_path, {}, anchor="random")
        report.add(match("a", "b"))
        assert report.ratings == {}  # nothing connects them with the anchor yet
        report.add(match("a", "random"))
        assert set(report.ratings) == {"a", "b", "random"}
        ratings = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["ratings"]
        assert ratings["random"] == {"value": 0.0, "low": 0.0, "high": 0.0}

    def test_a_missing_end_is_null_and_marked(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        report = Report(tmp_path, {}, anchor="random")
        won = Tally(wins=20)
        report.add(MatchResult(game="counting", player="me", opponent="random", as_first=won, as_second=won))
        ratings = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["ratings"]
        assert ratings["me"] == {**report.ratings["me"].as_json(), "high": None, "mark": "no loss"}
        print_ratings(report.ratings, anchor="random")
        lines = capsys.readouterr().out.splitlines()
        (row,) = (line.split() for line in lines if line.split()[:1] == ["me"])
        assert row == ["me", "+763", "above", "+444", "no", "loss"]
        assert any(line.startswith("no loss, no win: every game") for line in lines)

    def test_a_match_of_void_games_has_no_score(self, tmp_path: Path) -> None:
        result = MatchResult(
            game="counting", player="me", opponent="engine", as_first=Tally(), as_second=Tally(), void=8
        )
        Report(tmp_path, {}).add(result)
        (row,) = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["matches"]
        assert (row["games"], row["void"], row["score"]) == (0, 8, None)
        print_results("", [result], name_players=False)


class TestRecords:
    def test_each_match_has_a_folder_of_its_games(self, tmp_path: Path) -> None:
        report = Report(tmp_path, {})
        report.add(match("last.ckpt", "usi(command='a/b c')", records=True))
        (folder,) = (tmp_path / "records").iterdir()
        assert folder.name == "01_last.ckpt_vs_usi_command_a_b_c"
        files = sorted(file.name for file in folder.iterdir())
        assert files == [*(f"game_{number:04d}.txt" for number in range(1, 9)), "games.csv"]
        first, second = ((folder / name).read_text(encoding="utf-8").splitlines() for name in files[:2])
        assert first[:4] == ["game: counting", "first: last.ckpt", "second: usi(command='a/b c')", "outcome: goal"]
        assert second[1:3] == ["first: usi(command='a/b c')", "second: last.ckpt"]
        assert sum(int(move) for move in first[5].split()) == 10

    def test_games_that_were_played_once_tell_how_often_they_count(self, tmp_path: Path) -> None:
        players = First(), First("other")
        result = play_match(counting_game(), *players, num_games=40, opening_plies=1, seed=0, keep_records=True)
        report = Report(tmp_path, {})
        report.add(result)
        (folder,) = (tmp_path / "records").iterdir()
        with (folder / "games.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == result.played == 8  # the start and three first moves, each from both seats
        assert {row["game"] for row in rows} == {file.stem for file in folder.glob("game_*.txt")}
        assert sum(int(row["times"]) for row in rows) == result.num_games == 40
        assert sum(int(row["points"]) * int(row["times"]) for row in rows) == result.wins - result.losses
        (match,) = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["matches"]
        assert (match["games"], match["played"], match["repeated"]) == (40, 8, 32)
        assert tuple(match[f"pairs_with_{points}"] for points in ("0", "0.5", "1", "1.5", "2")) == result.pairs
        assert match["effective_games"] == pytest.approx(result.num_games / result.total.design_effect)

    @pytest.mark.parametrize(
        ("moves", "outcome", "kif", "csa"),
        [
            # White begins at the start of this game and gives up on its turn: Black wins.
            (("3c3d", "2h2g"), "resignation", "投了", "%TORYO"),
            (("3c3d", "2h2g", "4a3b"), "resignation", "投了", "%TORYO"),
            (("3c3d",), "void", "中断", "%CHUDAN"),
        ],
    )
    def test_shogi_is_kif_and_csa_with_names_and_its_end(
        self, moves: tuple[str, ...], outcome: str, kif: str, csa: str, tmp_path: Path
    ) -> None:
        game, players = shogi_game(*moves), ("last.ckpt", "usi(command=x)")
        record = GameRecord(
            first=players[0],
            second=players[1],
            outcome=outcome,
            points=0,
            plies=len(moves),
            record=game.record(0),
            files=game.record_files(0, players=players, outcome=outcome),
        )
        write_game(tmp_path / "game_0001", record, game="shogi")
        read = Record.from_kif_file(str(tmp_path / "game_0001.kifu"))
        assert (read.metadata.black_player, read.metadata.white_player) == ("last.ckpt", "usi(command=x)")
        assert read.move_count == len(moves)
        text = (tmp_path / "game_0001.kifu").read_text(encoding="utf-8")
        assert kif in text
        if outcome == "resignation":
            assert ("後手の勝ち" if len(moves) % 2 else "先手の勝ち") in text
        assert Record.from_csa_file(str(tmp_path / "game_0001.csa")).move_count == len(moves)
        lines = (tmp_path / "game_0001.csa").read_text(encoding="utf-8").splitlines()
        assert lines[:4] == ["'CSA encoding=UTF-8", "V3.0", "N+last.ckpt", "N-usi(command=x)"]
        assert "P5 *  *  *  *  *  *  *  *  * " in lines
        assert lines[-1] == csa


class TestTable:
    def test_it_tells_what_the_interval_does_not_know(self, capsys: pytest.CaptureFixture[str]) -> None:
        result = MatchResult(
            game="counting",
            player="me",
            opponent="random",
            as_first=Tally(wins=3, draws=1),
            as_second=Tally(wins=2, losses=2),
            pairs=(0, 0, 1, 2, 0),
            void=2,
            played=10,
            repeated=4,
            mean_length=7.25,
        )
        print_results("counting", [result], name_players=True)
        out = capsys.readouterr().out
        (row,) = [line for line in out.splitlines() if "random" in line]
        low, high = result.interval
        expected = ["me", "random", "8", "5", "1", "2", "2", "68.8%", f"{low:.1%}", "to", f"{high:.1%}"]
        assert row.split() == [*expected, "3-1-0", "2-0-2", "7.2"]
        assert "4 of 10 games went move by move as another one from the same opening" in out
        assert "were played" not in out

    def test_it_tells_how_many_games_deterministic_players_played(self, capsys: pytest.CaptureFixture[str]) -> None:
        games = play_match(counting_game(), First(), First("other"), num_games=40, opening_plies=0)
        print_results("counting", [games, match("me", "random")], name_players=True)
        out = capsys.readouterr().out
        assert "10 of 48 games were played: deterministic players play an opening once" in out
        assert "38 of 48 games went move by move as another one" in out

    def test_a_long_name_is_not_cut_off(self, capsys: pytest.CaptureFixture[str]) -> None:
        name = "usi(command='" + 20 * "engine " + "')"
        print_results("counting", [match("me", name)], name_players=False)
        assert name in capsys.readouterr().out
