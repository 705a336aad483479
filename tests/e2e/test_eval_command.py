"""``keisei eval`` as a person types it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from policy_checkpoints import write_policy
from runs import PATIENCE_S
from torch import Tensor, nn

from keisei_lightning import build_network, game_factory
from keisei_lightning.commands import main as cli
from keisei_lightning.errors import IllegalActionError
from keisei_lightning.evaluation.registry import PLAYERS

ROOT = Path(__file__).resolve().parents[2]
EVAL = [sys.executable, "-m", "keisei_lightning", "eval"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def results(folder: Path) -> tuple[list[dict[str, str]], dict[str, object]]:
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((folder / "results.json").read_text(encoding="utf-8"))


class OneLogit(nn.Module):
    """Gives one logit, whatever the game."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(1))

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        return self.logit.expand(len(observation), 1), self.logit.new_zeros(len(observation), 1)


def one_logit_network(spec: object) -> OneLogit:
    return OneLogit()


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*EVAL, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


class TestMatches:
    def test_a_policy_plays_each_opponent_and_all_is_kept(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_policy(Path("run/last.ckpt"), game_options={"opening_plies": 2})
        write_policy(Path("old/last.ckpt"), seed=1)
        words = ["checkpoint=run/last.ckpt", "opponents=[random, tactics ,old/last.ckpt]", "games=6", "output_dir=out"]
        assert cli.main(["eval", *words]) == 0
        out = capsys.readouterr().out
        rows, whole = results(Path("out"))
        assert [row["opponent"] for row in rows] == ["random", "tactics", "old/last.ckpt"]
        assert {row["player"] for row in rows} == {"run/last.ckpt"}
        for row in rows:
            assert int(row["wins"]) + int(row["draws"]) + int(row["losses"]) == 6
            (line,) = [line for line in out.splitlines() if line.strip().startswith(row["opponent"] + " ")]
            assert line.split()[1:6] == ["6", row["wins"], row["draws"], row["losses"], "0"]
        assert whole["game"] == "tic_tac_toe"
        assert whole["game_options"] == {"opening_plies": 2}
        assert str(whole["command"]).startswith("keisei eval checkpoint=run/last.ckpt")
        assert whole["checkpoints"]["old/last.ckpt"] == {  # type: ignore[index]
            "path": str(Path("old/last.ckpt").absolute()),
            "global_step": 70,
        }
        played = [int(row["played"]) for row in rows]
        assert played[:2] == [6, 6]  # by players with dice; two checkpoints play an opening once
        assert len(list(Path("out/records").rglob("*.txt"))) == sum(played)

    def test_a_policy_may_play_the_mean_over_the_mirror_images(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_policy(Path("a.ckpt"))
        words = ["eval", "checkpoint=a.ckpt", "opponents=[tactics]", "games=20"]
        assert cli.main([*words, "output_dir=plain"]) == 0
        assert cli.main([*words, "symmetric=true", "output_dir=symmetric"]) == 0
        plain, symmetric = (
            [file.read_text(encoding="utf-8") for file in sorted(Path(folder, "records").rglob("*.txt"))]
            for folder in ("plain", "symmetric")
        )
        assert len(plain) == len(symmetric) == 20
        assert plain != symmetric
        capsys.readouterr()

    def test_a_checkpoint_searches_where_simulations_are_given(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_policy(Path("a.ckpt"))
        words = ["eval", "checkpoint=a.ckpt", "games=10", "seed=4"]
        assert cli.main([*words, "opponents=[tactics]", "output_dir=policy"]) == 0
        assert cli.main([*words, "opponents=[tactics]", "simulations=2000", "output_dir=search"]) == 0
        assert cli.main([*words, "opponents=['search(checkpoint=a.ckpt,simulations=2000)']", "output_dir=named"]) == 0
        losses = [int(results(Path(folder))[0][0]["losses"]) for folder in ("policy", "search", "named")]
        assert losses[0] > 2
        assert losses[1] == 0  # tic-tac-toe is solved by so many
        assert losses[2] > 2
        capsys.readouterr()

    def test_the_same_words_give_the_same_results(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_policy(Path("a.ckpt"))
        words = ["checkpoint=a.ckpt", "games=10", "opening_plies=2", "greedy=false", "temperature=0.5", "records=false"]
        for folder in ("one", "two"):
            assert cli.main(["eval", *words, f"output_dir={folder}"]) == 0
        assert Path("one/results.csv").read_text() == Path("two/results.csv").read_text()
        assert not Path("one/records").exists()
        assert cli.main(["eval", *words, "seed=1", "output_dir=three"]) == 0
        assert Path("one/results.csv").read_text() != Path("three/results.csv").read_text()
        capsys.readouterr()

    def test_results_go_to_a_folder_named_by_the_time(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_policy(Path("a.ckpt"))
        assert cli.main(["eval", "checkpoint=a.ckpt", "games=2"]) == 0
        (folder,) = Path("results/eval").iterdir()
        assert f"results  {folder}" in capsys.readouterr().out

    def test_everybody_plays_everybody_and_is_rated_from_random_on(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_policy(Path("a.ckpt"))
        words = ["checkpoint=a.ckpt", "opponents=[tactics]", "round_robin=true", "games=10", "opening_plies=1"]
        assert cli.main(["eval", *words, "output_dir=out"]) == 0
        rows, whole = results(Path("out"))
        pairs = [(row["player"], row["opponent"]) for row in rows]
        assert pairs == [("a.ckpt", "tactics"), ("a.ckpt", "random"), ("tactics", "random")]
        ratings = whole["ratings"]
        assert isinstance(ratings, dict)
        assert ratings["random"] == {"value": 0.0, "low": 0.0, "high": 0.0}
        assert next(iter(ratings)) == "tactics"
        assert ratings["tactics"]["low"] > 0
        out = capsys.readouterr().out
        assert f"{ratings['tactics']['value']:+.0f}" in out

    def test_players_are_compared_without_a_checkpoint(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["game=hex(board_size=3)", "opponents=[random]", "round_robin=true", "games=2"]
        assert cli.main(["eval", *words]) == 2
        assert capsys.readouterr().err == "keisei: players=['random']: must be two or more\n"
        words[1] = "opponents=[mcts(simulations=2)]"
        assert cli.main(["eval", *words, "animations=1", "output_dir=out"]) == 0
        assert results(Path("out"))[1]["game"] == "hex(board_size=3)"
        (animation,) = Path("out/records").rglob("*.svg")
        assert animation.name == "game_0001.svg"
        assert animation.read_text(encoding="utf-8").count("<animate") > 5

    def test_shogi_games_are_kept_as_kif_and_csa(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_policy(Path("a.ckpt"), game="shogi", game_options={"opening_plies": 4, "max_plies": 12})
        assert cli.main(["eval", "checkpoint=a.ckpt", "games=2", "output_dir=out"]) == 0
        files = sorted(file.name for file in Path("out/records").rglob("*.*") if file.is_file())
        assert files == ["game_0001.csa", "game_0001.kifu", "game_0002.csa", "game_0002.kifu", "games.csv"]
        capsys.readouterr()


class Engine:
    """Holds something, and fails when it is asked for a move."""

    name = "engine"
    closed = 0

    def choose(self, turn: object) -> object:
        raise AssertionError("it was asked")

    def close(self) -> None:
        Engine.closed += 1


class TestEndings:
    @pytest.mark.parametrize(
        ("words", "line"),
        [
            (["gamez=4"], "gamez=4: no such key"),
            (["checkpoint=b.ckpt"], "checkpoint=b.ckpt: there is no such file; must be a checkpoint file"),
            (
                ["opponents=[randon]"],
                "opponents=randon: player randon: there is none (did you mean random?); must be o",
            ),
            (
                ["opponents=[tactics(x=1)]"],
                "opponents=tactics(x=1): player tactics(x=1): unknown option x=1; it has no optio",
            ),
            (["opponents=[greedy_capture]"], "opponents=greedy_capture: player greedy_capture: "),
            (["opponents=[random,random()]"], "opponents: random plays more than once; must be there once"),
            (["opponents=[four.ckpt]"], "opponents=four.ckpt: its game is connect_four, this run's is tic_tac_toe"),
            (["checkpoint=torn.ckpt"], "checkpoint=torn.ckpt: cannot be read as a checkpoint (corrupt or truncated"),
            (["output_dir=used"], "output_dir=used: there are results in it; must be another folder"),
            (["output_dir=a.ckpt"], "output_dir=a.ckpt: must be a folder that can be written to ("),
            (
                ["simulations=8", "greedy=false"],
                "simulations=8: must be 0 with greedy=false (a search samples nothing)",
            ),
            (["opponents=[search(checkpoint=b.ckpt)]"], "opponents=search(checkpoint=b.ckpt): player search(checkpoi"),
            (["device=cuda:99"], "device=cuda:99: must be "),
            (["model.channels=16"], "checkpoint=a.ckpt: another network's checkpoint ("),
        ],
    )
    def test_a_mistake_is_one_line_and_code_2_before_a_move_is_made(
        self, words: list[str], line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "keisei_lightning.commands.evaluate.run.play_match", lambda *a, **k: pytest.fail("a match began")
        )
        write_policy(Path("a.ckpt"))
        write_policy(Path("four.ckpt"), game="connect_four")
        Path("torn.ckpt").write_bytes(Path("a.ckpt").read_bytes()[:500])
        Path("used").mkdir()
        Path("used/results.json").write_text("{}")
        assert cli.main(["eval", "checkpoint=a.ckpt", *words]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(f"keisei: {line}")
        assert captured.err.count("\n") == 1
        assert captured.out == ""
        assert not Path("results").exists() or not any(Path("results/eval").iterdir())

    def test_a_game_without_a_symmetry_has_no_mirror_images(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["eval", "game=clobber", "round_robin=true", "opponents=[random]", "symmetric=true"]) == 2
        line = "keisei: symmetric=true: must be false for clobber, of which no symmetry is known\n"
        assert capsys.readouterr().err == line

    def test_several_bad_opponents_are_told_at_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_policy(Path("a.ckpt"))
        for words in (
            "opponents=[tactics(x=1),alpha_beta(depth=x)]",  # told without looking into the checkpoint
            "opponents=[greedy_capture,mate_in_one]",  # and what does not fit its game
        ):
            assert cli.main(["eval", "checkpoint=a.ckpt", words]) == 2
            assert capsys.readouterr().err.count("keisei: opponents=") == 2

    def test_help_tells_the_players_that_there_are(self, capsys: pytest.CaptureFixture[str]) -> None:
        for words in (["--help"], ["checkpoint=a.ckpt", "-h"]):
            assert cli.main(["eval", *words]) == 0
            out = capsys.readouterr().out
            assert "keisei eval checkpoint=" in out
            assert ", ".join(sorted(PLAYERS._built_in)) in out

    def test_a_failure_keeps_the_matches_before_it_and_closes_the_players(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(PLAYERS, "_registered", {"engine": lambda spec, *, seed, name: Engine()})
        write_policy(Path("a.ckpt"))
        words = ["checkpoint=a.ckpt", "opponents=[random,engine]", "games=2", "output_dir=out"]
        closed = Engine.closed
        assert cli.main(["eval", *words]) == 1
        assert Engine.closed == closed + 1
        captured = capsys.readouterr()
        assert "AssertionError: it was asked" in captured.err
        assert [row["opponent"] for row in results(Path("out"))[0]] == ["random"]
        assert "random" in captured.out

    def test_an_illegal_move_is_one_line_and_code_1(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise IllegalActionError(game="x", ply=1, position="p", move="m")

        monkeypatch.setattr(Engine, "choose", refuse)
        monkeypatch.setattr(PLAYERS, "_registered", {"engine": lambda spec, *, seed, name: Engine()})
        write_policy(Path("a.ckpt"))
        assert cli.main(["eval", "checkpoint=a.ckpt", "opponents=engine", "games=2"]) == 1
        assert capsys.readouterr().err == "keisei: x: illegal move m at ply 1 in position p\n"
        assert list(Path("results/eval").iterdir()) == []

    def test_a_checkpoint_of_nan_is_an_error_and_has_no_score(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It scored 45.0 %, with 18 draws and no void game."""
        network = build_network(game_factory("tic_tac_toe")(1).spec, kind="mlp", num_blocks=1, channels=8)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(torch.nan)
        write_policy(Path("nan.ckpt"), network=network)
        assert cli.main(["eval", "checkpoint=nan.ckpt", "opponents=random", "games=20"]) == 1
        line = "keisei: player nan.ckpt: the network's logits of the legal moves are not finite in position "
        assert capsys.readouterr().err.startswith(line)
        assert list(Path("results/eval").iterdir()) == []

    def test_a_network_that_is_not_of_the_game_is_bad_usage(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_policy(Path("a.ckpt"), network=one_logit_network(None))
        words = ["checkpoint=a.ckpt", f"model={{_target_:{__name__}.one_logit_network}}", "opponents=random"]
        assert cli.main(["eval", *words]) == 2
        assert capsys.readouterr().err == (
            "keisei: checkpoint=a.ckpt: network=OneLogit: its logits are float32 [2, 1]; "
            "must be floating point [2, 9], one for each action of tic_tac_toe\n"
        )

    @pytest.mark.process
    def test_ctrl_c_is_130_and_keeps_the_matches_that_are_over(self) -> None:
        write_policy(Path("a.ckpt"), game="connect_four", game_options={"opening_plies": 4})
        process = start("checkpoint=a.ckpt", "opponents=[random,alpha_beta(depth=12)]", "games=20", "output_dir=out")
        deadline = time.monotonic() + PATIENCE_S
        while not Path("out/results.json").is_file():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, err
        assert err.splitlines() == ["keisei: stopped by SIGINT"]
        rows, whole = results(Path("out"))
        assert [row["opponent"] for row in rows] == ["random"]
        assert whole["stopped"] == "stopped by SIGINT"
        assert "random" in out
