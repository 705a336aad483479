"""``keisei convert``: records of any game in another format, and what could not be kept, in lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from keisei_lightning.commands import main as cli
from keisei_lightning.commands.convert.run import losses
from keisei_lightning.games import SavedGame, make_game, read_record_file, register_game
from keisei_lightning.games.shogi import Shogi, kifu

START = "lnsgkgsnl/1r5b1/ppppppppp/9/9/9/PPPPPPPPP/1B5R1/LNSGKGSNL b - 1"
GAME = SavedGame(
    start=START,
    moves=("7g7f", "3c3d"),
    players=("alice", "bob"),
    outcome="resignation",
    winner=1,
    times_s=(1.0, 2.0),
    comments={1: "a comment"},
    headers={"event": "Cup"},
)


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The game as a file of a folder that is the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "game.kifu").write_text(kifu.write(GAME, ".kifu"), encoding="utf-8")
    return tmp_path / "game.kifu"


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


@pytest.mark.parametrize("suffix", kifu.FORMATS)
def test_a_record_is_converted_to_every_format_and_losses_are_told(
    suffix: str, record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record.parent / "out").mkdir()
    assert cli.main(["convert", "record=game.kifu", f"to=out/new{suffix}"]) == 0
    lost = {
        ".usi": [
            "  left out: how it ended (resignation, second player wins)",
            "  left out: the players' names (alice, bob)",
            "  left out: the time that moves took",
            "  left out: 1 of 1 comments",
            "  left out: what is told of the game as event",
        ],
        ".ki2": ["  left out: the time that moves took"],
        ".ki2u": ["  left out: the time that moves took"],
    }
    assert told(capsys) == [f"game.kifu -> out/new{suffix}: 2 moves, resignation", *lost.get(suffix, [])]
    again = read_record_file(Shogi(1), record.parent / "out" / f"new{suffix}")
    assert again.moves == GAME.moves
    if suffix in (".kif", ".csa", ".jkf"):
        assert again == GAME
    assert [file.name for file in (record.parent / "out").iterdir()] == [f"new{suffix}"]


def test_a_folder_is_converted_as_it_lies_each_game_once(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = record.parent / "records" / "match"
    folder.mkdir(parents=True)
    for suffix in (".csa", ".kifu"):
        (folder / f"one{suffix}").write_text(kifu.write(GAME, suffix), encoding="utf-8")
    (folder / "games.csv").write_text("game\n")
    assert cli.main(["convert", "record=records", "to=new", "format=jkf"]) == 0
    assert told(capsys) == [
        "records/match/one.csa: left out: by its name it is the same game as another record",
        "records/match/one.kifu -> new/match/one.jkf: 2 moves, resignation",
    ]
    assert read_record_file(Shogi(1), Path("new/match/one.jkf")) == GAME


def test_a_record_that_cannot_be_read_is_a_line_and_the_others_are_converted(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.kifu").write_text("手合割：平手\n1 ７七歩(77)\n", encoding="utf-8")  # noqa: RUF001
    assert cli.main(["convert", "record=[bad.kifu,game.kifu]", "to=new", "format=.csa"]) == 1
    out, err = capsys.readouterr()
    assert out == "game.kifu -> new/game.csa: 2 moves, resignation\n"
    first, second = err.splitlines()
    assert first.startswith("keisei: bad.kifu: line 2: move 1: ７七歩(77): is not legal in ")
    assert second == "keisei: 1 of 2 records could not be converted"
    assert not Path("new/bad.csa").exists()


def test_variations_and_letters_that_an_encoding_lacks_are_told(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = kifu.write(replace(GAME, players=("é", "b")), ".kifu")
    record.write_text(f"{text}\n変化：1手\n1 ２六歩(27)\n", encoding="utf-8")  # noqa: RUF001
    assert cli.main(["convert", "record=game.kifu", "to=game.csa"]) == 0
    assert "variations, from move 1 on" in told(capsys)[1]
    assert cli.main(["convert", "record=game.kifu", "to=game.kif"]) == 1
    assert "keisei: game.kif: line 2: cp932 has no 'é'; UTF-8 has\n" in capsys.readouterr().err
    assert not Path("game.kif").exists()


def test_the_game_is_told_by_a_record_or_is_the_only_one_that_can_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("four.txt").write_text("game: connect_four\n\n1. x0 2. o1 *\n")
    Path("othello.sgf").write_text("(;GM[2];B[f5];W[d6])")
    Path("small.sgf").write_text("(;GM[11]SZ[4];B[a1];W[b2])")
    assert cli.main(["convert", "record=four.txt", "to=four2.txt"]) == 0
    assert cli.main(["convert", "record=othello.sgf", "to=othello.txt"]) == 0
    assert read_record_file(make_game("othello", 1), tmp_path / "othello.txt").moves == ("f5", "d6")  # type: ignore[arg-type]
    assert cli.main(["convert", "record=small.sgf", "to=small.txt", "game=hex(board_size=4)"]) == 0
    assert Path("small.txt").read_text().startswith("game: hex(board_size=4)\n")
    assert len(told(capsys)) == 3
    assert cli.main(["convert", "record=small.sgf", "to=x.txt"]) == 2
    assert capsys.readouterr().err == "keisei: game=null: small.sgf does not tell it; must be one of hex, othello\n"


def test_a_registered_game_that_cannot_be_made_is_no_matter_of_other_games(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fragile(num_games: int) -> Shogi:
        raise RuntimeError("a rule\nis missing")

    register_game("needs_a_rule", fragile)
    assert cli.main(["convert", "record=game.kifu", "to=x.csa"]) == 0
    assert told(capsys) == ["game.kifu -> x.csa: 2 moves, resignation"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("record=[] to=x.csa", "record=[]: must hold one or more"),
        ("record=game.kifu", "to: is missing; must be a file or a folder"),
        ("record=no.kifu to=x.csa", "record=no.kifu: there is no such file or folder; must be a record or a folder"),
        ("record=game.kifu to=x", "to=x: must end with one of .kifu, .csa, .kif, .ki2u, .ki2, .jkf, .usi for shogi, "),
        ("record=game.kifu to=x format=pgn", "format=pgn: must be one of .kifu, .csa, .kif, .ki2u, .ki2, .jkf, .usi "),
        (
            "record=[game.kifu,b.kifu] to=x.csa",
            "to=x.csa: must be a folder, with format=..., where ",
        ),
        ("record=game.kifu to=b.kifu", "to=b.kifu: is there already; must be another file (or overwrite=true)"),
        ("record=game.kifu to=folder.csa", "to=folder.csa: is a folder; must be a file"),
        (
            "record=[game.kifu,deep/game.kifu] to=x format=csa",
            "record=deep/game.kifu: would be written to ",
        ),
        ("record=empty to=x.csa", "record=empty: there are no records in it; they end with .csa, .jkf, .ki2, "),
        ("record=game.kifu to=x.csa game=nosuch", "game=nosuch: game nosuch: there is none"),
        ("record=game.kifu to=x.csa game=hex", "to=x.csa: must end with one of .txt, .sgf for hex, "),
        ("record=game.pgn to=x.csa", "game=null: game.pgn does not tell it; no game here has records of that ending"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    words: str, line: str, record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("folder.csa", "deep", "empty"):
        (record.parent / folder).mkdir()
    for copy in ("b.kifu", "deep/game.kifu", "game.pgn"):
        Path(copy).write_bytes(record.read_bytes())
    before = sorted(record.parent.rglob("*"))
    assert cli.main(["convert", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"keisei: {line}")
    assert sorted(record.parent.rglob("*")) == before


def test_a_file_is_replaced_where_that_is_wanted(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.csa").write_text("old")
    assert cli.main(["convert", "record=game.kifu", "to=x.csa", "overwrite=true"]) == 0
    assert Path("x.csa").read_text(encoding="utf-8").startswith("'CSA encoding=UTF-8")
    assert len(told(capsys)) == 1


def test_each_loss_has_its_line() -> None:
    assert list(losses(GAME, GAME)) == []
    fractions = replace(GAME, times_s=(1.5, 2.0))
    assert list(losses(fractions, GAME)) == ["fractions of seconds"]
    assert list(losses(GAME, replace(GAME, moves=("7g7f",), start="x"))) == [
        "1 of 2 moves",
        f"the position in which it begins ({START})",
    ]
