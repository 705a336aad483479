"""The words after ``keisei eval``."""

from __future__ import annotations

from pathlib import Path

import pytest

from keisei_lightning.commands.compose import compose_options
from keisei_lightning.commands.evaluate.checks import check_options
from keisei_lightning.commands.evaluate.options import EvalOptions
from keisei_lightning.errors import ConfigError


@pytest.fixture(autouse=True)
def _checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are zip archives, as checkpoints are: empty ones."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.ckpt", "b.ckpt", "with blank.ckpt"):
        (tmp_path / name).write_bytes(b"PK\5\6" + bytes(18))


def read(*words: str) -> EvalOptions:
    return compose_options(EvalOptions, words)


def errors(*words: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        check_options(read(*words))
    assert not any("\n" in line for line in caught.value.errors)
    return caught.value.errors


class TestReading:
    def test_one_checkpoint_is_enough(self) -> None:
        assert read("checkpoint=a.ckpt") == EvalOptions(checkpoint="a.ckpt")

    def test_words_are_hydras(self) -> None:
        words = [
            "checkpoint='with blank.ckpt'",
            "opponents=[random,alpha_beta(depth=5),b.ckpt]",
            "games=20",
            "opening_plies=4",
            "+seed=9",
            "++greedy=false",
            "temperature=0.5",
            "round_robin=true",
            "records=false",
            "output_dir=some/where",
            "device=cuda:1",
            "model={_target_:my.Net,width:3}",
            "model.depth=2",
        ]
        assert read(*words) == EvalOptions(
            checkpoint="with blank.ckpt",
            opponents=["random", "alpha_beta(depth=5)", "b.ckpt"],
            games=20,
            opening_plies=4,
            seed=9,
            greedy=False,
            temperature=0.5,
            round_robin=True,
            records=False,
            output_dir="some/where",
            device="cuda:1",
            model={"_target_": "my.Net", "width": 3, "depth": 2},
        )

    def test_a_single_opponent_needs_no_brackets_and_the_last_word_counts(self) -> None:
        options = read("checkpoint=a.ckpt", "games=20", "opponents=tactics", "games=40", "model.channels=8")
        assert (options.opponents, options.games, options.model) == (["tactics"], 40, {"channels": 8})
        assert read("games=20", "games=40", "games=20").games == 20

    @pytest.mark.parametrize(
        "player",
        [
            "alpha_beta(depth=5)",
            "usi(command='a b')",
            'usi(command="a b",nodes=5)',
            """usi(command="it's")""",
            r"""usi(command='it\'s "quoted"')""",
            "usi(command='f(x), [y]')",
            "usi(command='host:80')",
        ],
    )
    def test_a_players_options_need_no_further_quotation_marks(self, player: str) -> None:
        assert read("checkpoint=a.ckpt", f"opponents=[random,{player}]").opponents == ["random", player]
        assert read("checkpoint=a.ckpt", f"opponents={player}").opponents == [player]

    def test_quotation_marks_that_are_there_stay(self) -> None:
        word = 'opponents=[random,"alpha_beta(depth=5)"]'
        assert read("checkpoint=a.ckpt", word).opponents == ["random", "alpha_beta(depth=5)"]

    def test_without_a_checkpoint_players_are_compared_in_a_game(self) -> None:
        options = read("game=hex(board_size=5)", "opponents=[tactics]", "round_robin=true")
        assert (options.game, options.checkpoints) == ("hex(board_size=5)", [])

    def test_checkpoints_are_found_among_the_opponents(self) -> None:
        assert read("checkpoint=a.ckpt", "opponents=[random,b.ckpt]").checkpoints == ["a.ckpt", "b.ckpt"]


class TestErrors:
    @pytest.mark.parametrize(
        ("word", "line"),
        [
            ("gamez=4", "gamez=4: no such key (did you mean game?); must be one of checkpoint, opponents, games, "),
            ("games.x=4", "games.x=4: no such key"),
            ("~games", "~games: cannot be read; write KEY=VALUE"),
            ("games@model=4", "games@model=4: cannot be read; write KEY=VALUE"),
            ("games", "games: cannot be read (missing EQUAL at '<EOF>'); write KEY=VALUE"),
            ("games=7", "games=7: must be an even number, from 2 to 100000"),
            ("games=0", "games=0: must be an even number, from 2 to 100000"),
            ("games=many", "games=many: must be an even number, from 2 to 100000"),
            ("games=2,4", "games=2,4: must be an even number, from 2 to 100000"),
            ("games=null", "games=null: must be an even number, from 2 to 100000"),
            ("opening_plies=-1", "opening_plies=-1: must be a whole number, 0 or more, or null"),
            ("seed=-1", "seed=-1: must be a whole number, from 0 to 4294967295"),
            ("greedy=perhaps", "greedy=perhaps: must be true or false"),
            ("temperature=0", "temperature=0: must be a number, more than 0"),
            ("temperature=nan", "temperature=nan: must be a number, more than 0"),
            ("temperature=2", "temperature=2.0: must be 1 with greedy=true (nothing is sampled); add greedy=false"),
            ("opponents=random,tactics", "opponents=random,tactics: must be a list of words"),
            ("opponents=[]", "opponents=[]: must hold one or more"),
            ("opponents=[c.ckpt]", "opponents=c.ckpt: there is no such file; must be a checkpoint file"),
            ("opponents=[a.ckpt]", "opponents: a.ckpt plays more than once; must be there once"),
            ("checkpoint=c.ckpt", "checkpoint=c.ckpt: there is no such file; must be a checkpoint file"),
            ("checkpoint=", "checkpoint=: must be a checkpoint file, or null"),
            ("checkpoint=null", "checkpoint: is missing; must be a checkpoint file (without one only round_robin=true"),
            ("game=hex", "game=hex: must be null where there is a checkpoint, which tells its own game"),
            ("device=tpu", "device=tpu: must be auto, cpu, cuda or cuda:N"),
            ("model=small", "model=small: must be a section of keys, or null"),
            ("output_dir=", "output_dir=: must be a folder, or null"),
            (
                f"output_dir={'a' * 300}",
                f"output_dir={'a' * 300}: must be a folder that can be written to (a name in it ",
            ),
            (
                "output_dir=a\nb",
                "output_dir=a\\nb: must be a folder that can be written to (it holds a control charact",
            ),
            (
                "output_dir=~nobody_here/x",
                "output_dir=~nobody_here/x: must be a folder that can be written to (there is ",
            ),
            (f"checkpoint={'c' * 300}", f"checkpoint={'c' * 300}: there is no such file; must be a checkpoint file"),
            (
                "checkpoint=epoch=3-step=9.ckpt",
                "checkpoint=epoch=3-step=9.ckpt: there is no such file; must be a check",
            ),
            (
                "opponents=[epoch=3-step=9.ckpt]",
                "opponents=epoch=3-step=9.ckpt: there is no such file; must be a check",
            ),
            ("games=${nothing}", "games=${nothing}: cannot be resolved (Interpolation key 'nothing' not found)"),
            (
                "checkpoint=${oc.env:NOT_SET_HERE}",
                "checkpoint=${oc.env:NOT_SET_HERE}: cannot be resolved (KeyError rai",
            ),
            (
                "model.kind=${nothing}",
                "model.kind=${nothing}: cannot be resolved (Interpolation key 'nothing' not found",
            ),
        ],
    )
    def test_a_bad_word_is_one_line(self, word: str, line: str) -> None:
        (told,) = errors("checkpoint=a.ckpt", word)
        assert told.startswith(line)

    def test_several_errors_are_told_at_once(self) -> None:
        lines = errors("gamez=4", "games=7", "seed=x")
        assert [line.partition("=")[0] for line in lines] == ["gamez", "seed", "games"]

    def test_only_games_that_are_kept_are_animated(self) -> None:
        (line,) = errors("checkpoint=a.ckpt", "animations=2", "records=false")
        assert line == "animations=2: must be 0 with records=false (no game is kept)"

    def test_without_a_checkpoint_a_game_must_be_named(self) -> None:
        (line,) = errors("round_robin=true")
        assert line == "game: is missing; must be the name of a game where there is no checkpoint"
