"""``keisei play`` before a game begins: what is refused in one line, the menu, and the files."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from keisei_lightning import policies
from keisei_lightning.commands import main as cli
from keisei_lightning.commands.play.files import free_name, read_session, write_session
from keisei_lightning.commands.play.menu import choose_policy, policy_of_game
from keisei_lightning.commands.play.terminal import Interrupts, Terminal, wants_colour
from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.games import ReplayableGame, game_factory
from keisei_lightning.play import GameSession
from keisei_lightning.play.words import Line
from keisei_lightning.system.console import Output
from keisei_lightning.system.stopping import Stopped

TIC_TAC_TOE, SHOGI = game_factory("tic_tac_toe"), game_factory("shogi")
PLAYERS = ("you", "somebody")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["game=foo"], "game=foo: game foo: there is none; must be one of "),
        (["game=tic_tac_toe"], "opponent: is missing, and no published policy plays tic_tac_toe; must be a player "),
        (["checkpoint=no.ckpt"], "checkpoint=no.ckpt: there is no such file; must be a checkpoint file"),
        (["checkpoint=bad.ckpt"], "checkpoint=bad.ckpt: cannot be read as a checkpoint (corrupt or truncated: "),
        (["checkpoint=no.onnx"], "checkpoint=no.onnx: there is no such file; must be an exported model"),
        (["checkpoint=a.onnx", "device=cuda"], "device=cuda: must be auto or cpu with a model (.onnx), which is "),
        (["device=tpu"], "device=tpu: must be auto, cpu, cuda or cuda:N"),
        (["checkpoint=published:go"], "checkpoint=published:go: there is no such published policy; must be one of "),
        (["checkpoint=published:hex", "game=hex"], "game=hex: must be null where there is a checkpoint, "),
        (["opponent=foo"], "opponent=foo: player foo: there is none; must be one of "),
        (["game=othello", "opponent=mate_in_one"], "opponent=mate_in_one: player mate_in_one: game=othello: must be "),
        (["game=othello", "opponent=mcts(simulation=3)"], "opponent=mcts(simulation=3): player mcts(simulation=3): "),
        (["game=othello", "opponent=random", "side=both"], "opponent=random: must be null with side=both, "),
        (["game=othello", "side=both", "position=xx"], "position=xx: othello: the move list 'xx' has no legal move "),
        (["load=game.json", "position=xx"], "position=xx: must be null with load, whose game has its own start"),
        (["load=no.json"], "load=no.json: cannot be read (No such file or directory)"),
        (["load=bad.json"], "load=bad.json: saved game: cannot be read as JSON ("),
        (
            ["load=bad.ckpt"],
            "load=bad.ckpt: is no record that tells its game; add game=NAME, or load a game saved as .json",
        ),
        (["load=game.json"], "opponent: is missing, and no published policy plays tic_tac_toe; must be a player "),
        (["load=game.json", "game=othello", "side=both"], "load=game.json: saved game: game='tic_tac_toe'; must be "),
        (["game=othello", "side=both", "hints=true"], "hints, evaluation: must be false without a policy; checkpoint="),
        (["save=game.json"], "save=game.json: is there already; must be a new file (load=game.json continues it)"),
        (["game=othello", "side=both", "save=no/x.json"], "save=no/x.json: cannot be written (No such file or "),
        (["game=othello", "side=both", "save=x.kifu"], "save=x.kifu: is of no known format; must end with one of "),
    ],
)
def test_what_cannot_be_played_is_one_line_and_exit_code_2(
    words: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.ckpt").write_bytes(b"PK")
    Path("a.onnx").touch()
    Path("bad.json").write_text("{", encoding="utf-8")
    Path("game.json").write_text(GameSession(TIC_TAC_TOE).to_json(), encoding="utf-8")
    before = {file.name: file.read_bytes() for file in Path.cwd().iterdir()}
    typed(monkeypatch)
    assert cli.main(["play", *words]) == 2
    _, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert err.startswith(f"keisei: {line}")
    assert {file.name: file.read_bytes() for file in Path.cwd().iterdir()} == before


def test_a_device_that_is_not_there_is_told_before_anything_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert cli.main(["play", "checkpoint=published:connect_four", "device=cuda:1"]) == 2
    assert capsys.readouterr() == ("", "keisei: device=cuda:1: must be cpu (there is no GPU here)\n")


@pytest.mark.parametrize(
    ("device", "num_gpus", "used"),
    [("auto", 2, "cuda:0"), ("auto", 0, "cpu"), ("cuda:1", 2, "cuda:1"), ("cuda", 1, "cuda"), ("cpu", 2, "cpu")],
)
def test_the_policy_is_put_on_the_device(
    device: str, num_gpus: int, used: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(path: str, *, device: str) -> NoReturn:
        raise ConfigError(f"{path} on {device}")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(policies, "load_policy", load)
    assert cli.main(["play", "checkpoint=published:connect_four", f"device={device}"]) == 2
    assert capsys.readouterr().err == f"keisei: published:connect_four on {used}\n"


def test_all_mistakes_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["play", "checkpoint=no.ckpt", "game=hex", "opponent=foo"]) == 2
    assert [line.split(":")[1].strip() for line in capsys.readouterr().err.splitlines()] == [
        "game=hex",
        "checkpoint=no.ckpt",
        "opponent=foo",
    ]


def test_texts_are_taken_as_they_are_typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typed(monkeypatch, "g*5b")
    position = "4k4/9/4P4/9/9/9/9/9/4K4 b G 1"
    assert cli.main(["play", "game=shogi", "side=both", f"position={position}", "save=a=b,c.json"]) == 0
    assert "The first player wins by checkmate after 1 move." in capsys.readouterr().out
    saved = json.loads(Path("a=b,c.json").read_text(encoding="utf-8"))
    assert (saved["start"], saved["moves"]) == (position, ["G*5b"])


def test_an_opponent_by_name_plays_and_the_game_is_kept_after_each_move(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "1,1", "nonsense", "undo", "0,0", "save other.txt", "save save.json", "new", "2,2")
    words = ["game=tic_tac_toe", "opponent=alpha_beta(depth=9)", "seed=1", "save=save.json"]
    assert cli.main(["play", *words]) == 0
    out = capsys.readouterr().out
    assert "tic_tac_toe: you (first) against alpha_beta(depth=9)" in out
    assert "saved as other.txt" in out
    assert "this game is saved as save-2.json" in out
    moves = {name: read_session(TIC_TAC_TOE, name).moves for name in ("save.json", "save-2.json")}
    assert [(len(played), played[0].name) for played in moves.values()] == [(2, "x(0,0)"), (2, "x(2,2)")]
    assert "\n1. x(0,0) 2. o" in Path("other.txt").read_text(encoding="utf-8")
    assert "\x1b" not in out


def test_players_play_each_other_and_the_same_seed_plays_the_same_game(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for seed in (1, 1, 2):
        typed(monkeypatch, "quit")
        assert cli.main(["play", "game=othello", "opponent=random", "side=none", f"seed={seed}"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != shown[2]
    assert shown[0].endswith("game over> quit\n")


def test_a_game_is_loaded_in_mid_game_and_one_that_is_wrong_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = GameSession(TIC_TAC_TOE)
    saved.play_name("x(2,2)")
    Path("saved.json").write_text(saved.to_json(), encoding="utf-8")
    Path("wrong.json").write_text(GameSession(SHOGI).to_json(), encoding="utf-8")
    typed(
        monkeypatch,
        "1,1",
        "load wrong.json",
        "load no.json",
        "load saved.json",
        "0,1",
        "save saved.json",
        "save wrong.json",
    )
    assert cli.main(["play", "game=tic_tac_toe", "side=both"]) == 0
    out = capsys.readouterr().out
    assert "wrong.json: saved game: game='shogi'; must be tic_tac_toe" in out
    assert "no.json: cannot be read (No such file or directory)" in out
    assert "wrong.json: is there already; must be a new file" in out
    assert [move.name for move in read_session(TIC_TAC_TOE, "saved.json").moves] == ["x(2,2)", "o(0,1)"]


def test_records_are_written_in_the_formats_of_the_game() -> None:
    session = GameSession(SHOGI)
    session.play_name("7g7f")
    for name, begins in (("a.kifu", "先手"), ("a.csa", "'CSA"), ("a.TXT", "先手"), ("a.json", "{")):
        write_session(session, name, PLAYERS)
        assert Path(name).read_text(encoding="utf-8").startswith(begins), name
    with pytest.raises(
        GameError, match=r"a\.pgn: is of no known format; must end with one of \.json, \.kifu, \.csa, \.txt"
    ):
        write_session(session, "a.pgn", PLAYERS)
    with pytest.raises(GameError, match="control character"):
        write_session(session, "a\x07.json", PLAYERS)
    assert read_session(SHOGI, "a.json").moves == session.moves
    assert free_name("a.json") == "a-2.json"


def test_a_file_that_is_no_saved_game_is_refused_by_its_name() -> None:
    Path("bytes.json").write_bytes(b"\xff\xfe")
    Path("big.json").write_bytes(b" " * 4_000_001)
    for name, said in (("bytes.json", "is no text in UTF-8"), ("big.json", "must have at most 4000000 bytes")):
        with pytest.raises(GameError, match=f"{name}: .*{said}"):
            read_session(TIC_TAC_TOE, name)


# ---- the menu


def chosen(*lines: str) -> tuple[str | None, str]:
    answers: Iterator[str] = iter(lines)
    shown: list[Line] = []
    return choose_policy(lambda prompt: next(answers, None), shown.extend), "\n".join(line.text for line in shown)


def test_a_published_policy_is_chosen_by_number_by_name_and_by_a_part_of_it() -> None:
    name, shown = chosen("2")
    assert name == "connect_four"
    assert "  2  connect_four" in shown
    assert "  3  hex(board_size=5)" in shown
    assert [chosen(line)[0] for line in ("shogi", " Oth ", "1")] == ["shogi", "othello", "breakthrough"]
    name, shown = chosen("0", "", "9", "\x1b", "chess", "h")
    assert name == "hex"
    assert shown.count("must be a number from 1 to 5, or a name of the list") == 5
    assert "\x1b" not in shown
    assert [chosen(*lines)[0] for lines in (("quit",), ("q",), ())] == [None, None, None]


def test_the_policy_of_a_game_is_that_of_the_very_same_game() -> None:
    assert (policy_of_game("hex(board_size=5)"), policy_of_game("hex(board_size=11)")) == ("hex", None)


def test_without_a_choice_the_command_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typed(monkeypatch)
    assert cli.main(["play"]) == 0
    out, err = capsys.readouterr()
    assert ("Which game?" in out, err) == (True, "")


# ---- the screen


def test_what_a_screen_cannot_show_is_shown_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    Terminal(colour=False).show([Line("歩", "board", "P"), Line("plain")])
    assert screen.buffer.getvalue() == b"P\nplain\n"  # type: ignore[attr-defined]


def test_who_is_seen_by_nobody_any_more_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Output(Gone()))
    typed(monkeypatch, "line")
    terminal = Terminal(colour=False)
    terminal.show([Line("board")])
    assert terminal.ask("> ") is None
    assert sys.stdin.read() == "line\n"


def test_colours_are_shown_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Terminal(colour=True).show([Line("title", "title"), Line("plain")])
    assert capsys.readouterr().out == "\x1b[1mtitle\x1b[0m\nplain\n"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert (wants_colour("always"), wants_colour("never"), wants_colour("auto")) == (True, False, False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert wants_colour("auto")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour("auto")


def test_a_first_interrupt_ends_the_thinking_and_a_second_one_the_program() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        with interrupts.thinking():
            assert interrupts.going()
            signal.raise_signal(signal.SIGINT)
            assert not interrupts.going()
            with pytest.raises(Stopped):
                signal.raise_signal(signal.SIGINT)
        with interrupts.thinking():
            assert interrupts.going()
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("ending", [".kifu", ".csa", ".usi", ".jkf"])
def test_a_record_of_another_program_is_continued(
    ending: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = GameSession(game_factory("shogi"))
    for move in ("7g7f", "3c3d", "8h2b+"):
        session.play_name(move)
    game = session.game
    assert isinstance(game, ReplayableGame)
    files = game.record_files(0, players=("a", "b"), outcome="")
    text = files.get(ending) or game.write_record(game.read_record(files[".kifu"], ".kifu"), ending)
    Path(f"game{ending}").write_text(text, encoding="utf-8")
    typed(monkeypatch, "3a2b", "save again.json")
    assert cli.main(["play", f"load=game{ending}", "game=shogi", "side=both"]) == 0
    assert "ply 3, second to move" in capsys.readouterr().out
    again = GameSession.from_json(game_factory("shogi"), Path("again.json").read_text(encoding="utf-8"))
    assert [move.name for move in again.moves] == ["7g7f", "3c3d", "8h2b+", "3a2b"]
