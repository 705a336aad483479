"""What TAB completes in a game: moves, commands, files and seats, by both libraries that may read lines."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from keisei_lightning.commands.play.completion import LineCompletion, beginning_with, suggestions
from keisei_lightning.games import game_factory
from keisei_lightning.play import Dialogue, GameSession, Seats
from keisei_lightning.play.dialogue import COMMANDS

TIC_TAC_TOE, SHOGI = game_factory("tic_tac_toe"), game_factory("shogi")


def dialogue(factory: Any = TIC_TAC_TOE) -> Dialogue:
    return Dialogue(GameSession(factory), factory, Seats(None, None, "both"))


def test_moves_and_commands_that_begin_so_are_suggested_and_only_legal_ones() -> None:
    game = dialogue()
    assert suggestions(game, "x(0") == ["x(0,0)", "x(0,1)", "x(0,2)"]
    game.enter("x(0,1)")
    assert suggestions(game, "o(0,") == ["o(0,0)", "o(0,2)"]
    assert suggestions(game, "s") == ["side", "switch", "strength", "save"]
    assert suggestions(game, "un") == ["undo"]
    assert suggestions(game, "nothing") == []
    assert set(suggestions(game, "")) == {*game.session.legal_moves(), *COMMANDS}


def test_in_a_game_that_is_over_there_are_commands_alone() -> None:
    game = dialogue()
    game.enter("resign")
    assert suggestions(game, "") == list(COMMANDS)


def test_letters_may_be_small_or_capital_where_nothing_begins_exactly_so() -> None:
    game = Dialogue(GameSession(SHOGI), SHOGI, Seats(None, None, "both"))
    assert suggestions(game, "7G") == ["7g7f"]
    assert suggestions(game, "SW") == ["switch"]
    assert beginning_with("b", ["B*5e", "b2"]) == ["b2"]


def test_after_save_and_load_files_and_folders_are_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "games").mkdir()
    for name in ("game.json", ".hidden", "games/one two.json", "gap\n.json"):
        (tmp_path / name).touch()
    game = dialogue()
    assert suggestions(game, "load ga") == ["load game.json", "load games/"]
    assert suggestions(game, "save games/o") == ["save games/one two.json"]
    assert suggestions(game, "load ") == ["load game.json", "load games/"]
    assert suggestions(game, "load .h") == ["load .hidden"]
    assert suggestions(game, "load ~/game.") == ["load ~/game.json"]
    assert suggestions(game, "load nosuch/") == suggestions(game, "load \0/") == []


def test_after_side_its_words_are_suggested_and_after_others_nothing() -> None:
    game = dialogue()
    assert suggestions(game, "side ") == ["side first", "side second", "side both", "side none"]
    assert suggestions(game, "side n") == ["side none"]
    assert suggestions(game, "undo ") == suggestions(game, "strength s") == []


class FakeReadline(ModuleType):
    """Notes what it is told."""

    def __init__(self, doc: str) -> None:
        super().__init__("readline", doc)
        self.told: list[str] = []
        self.delims: str | None = None
        self.completer: Any = None

    def set_completer_delims(self, delims: str) -> None:
        self.delims = delims

    def set_completer(self, completer: Any) -> None:
        self.completer = completer

    def parse_and_bind(self, line: str) -> None:
        self.told.append(line)


@pytest.mark.parametrize(
    ("doc", "line"),
    [
        ("Importing this module enables command line editing using GNU readline.", "tab: complete"),
        ("Importing this module enables command line editing using libedit readline.", "bind ^I rl_complete"),
    ],
)
def test_both_libraries_are_told_in_their_own_words(doc: str, line: str) -> None:
    library, completion = FakeReadline(doc), LineCompletion(is_on=False)
    completion.suggest = lambda typed: [typed + "1", typed + "2"]
    completion.bind(library)
    assert (library.told, library.delims) == ([line], "")
    assert [library.completer("x", number) for number in range(3)] == ["x1", "x2", None]
