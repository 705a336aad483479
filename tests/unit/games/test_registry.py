"""Games by name."""

from __future__ import annotations

import pickle
from importlib.metadata import EntryPoint

import cloudpickle
import pytest
from installed_packages import installed

from keisei_lightning.errors import ConfigError, UnsupportedGameError
from keisei_lightning.games import Game, canonical_name, game_factory, game_names, make_game, register_game
from keisei_lightning.games.open_spiel.game import OpenSpielGame
from keisei_lightning.games.registry import GAMES, game_notes, takes_option
from keisei_lightning.games.shogi.game import Shogi


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GAMES, "_registered", {})


def small(num_games: int, *, size: int = 3) -> Game:
    return OpenSpielGame(f"mnk(m={size},n={size},k=3)", num_games)


def test_built_in_games_need_no_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, GAMES)
    assert game_names() == ["breakthrough", "connect_four", "hex", "othello", "shogi", "tic_tac_toe"]
    assert isinstance(make_game("shogi", 2), Shogi)
    assert make_game("tic_tac_toe", 2).num_games == 2


def test_other_packages_add_games_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("six_by_seven", "keisei_lightning.games.shogi.game:Shogi", GAMES.group)
    installed(monkeypatch, GAMES, entry)
    assert "six_by_seven" in game_names()
    assert canonical_name("six_by_seven") == "six_by_seven"
    assert make_game("six_by_seven", 1, max_plies=9).spec.max_plies == 9


def test_a_program_adds_its_own_game() -> None:
    register_game("small", small)
    assert "small" in game_names()
    assert make_game("small", 2, size=4).spec.name == "mnk(k=3,m=4,n=4)"
    with pytest.raises(ConfigError, match=r"small: unknown option sise=4 \(did you mean size\?\); it has size"):
        make_game("small", 2, sise=4)


def sized(num_games: int, size: int, *, colour: str = "red") -> Game:
    return small(num_games, size=size)


def test_the_options_of_a_game_are_the_parameters_of_its_maker() -> None:
    register_game("sized", sized)
    register_game("open", lambda num_games, **options: small(num_games))
    assert [takes_option("sized", name) for name in ("size", "colour", "num_games", "max_plies")] == [
        *(True, True, False, False)
    ]
    assert takes_option("open", "anything")
    assert [takes_option(name, "opening_plies") for name in ("shogi", "hex(board_size=5)")] == [True, True]
    assert make_game("sized", 2, size=4).spec.name == "mnk(k=3,m=4,n=4)"
    with pytest.raises(ConfigError, match="sized: option size is missing; must be given"):
        game_factory("sized")


@pytest.mark.parametrize("name", ["", " ", "hex(5)"])
def test_names_that_could_not_be_found_again_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must not be empty"):
        register_game(name, small)


def test_notes_say_how_moves_are_made_and_what_cannot_be_made() -> None:
    register_game("sized", sized)

    def fragile(num_games: int) -> Game:
        raise RuntimeError("a rule\nis missing")

    register_game("fragile", fragile)
    register_game("small", small)  # says nothing
    notes = list(game_notes())
    assert notes[0] == "fragile: a rule is missing"
    assert notes[1].startswith("shogi: moves by ")
    assert notes[2:] == ["sized: option size is missing; must be given"]


def test_any_open_spiel_string_is_a_name() -> None:
    assert canonical_name(" hex( board_size = 5 ) ") == "hex(board_size=5)"
    assert canonical_name("tic_tac_toe()") == "tic_tac_toe"
    assert canonical_name("shogi") == "shogi"
    assert make_game("breakthrough(rows=6, columns=6)", 1).spec.name == "breakthrough(columns=6,rows=6)"


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedGameError) as caught:
        make_game("shoji", 1)
    assert str(caught.value) == (
        "game shoji: there is none (did you mean shogi?); must be one of breakthrough, connect_four, hex, othello, "
        "shogi, tic_tac_toe, or an OpenSpiel string such as 'hex(board_size=5)'"
    )


@pytest.mark.parametrize("name", ["shogi", "tic_tac_toe"])
def test_an_unknown_option_is_named_before_any_worker_starts(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: unknown option max_ply=9 \(did you mean max_plies\?\); it has "):
        game_factory(name, max_ply=9)


@pytest.mark.parametrize("name", ["shogi", "connect_four"])
def test_a_factory_can_be_pickled_and_keeps_its_options(name: str) -> None:
    factory = game_factory(name, max_plies=30, opening_plies=3)
    for copy in (factory, pickle.loads(pickle.dumps(factory)), cloudpickle.loads(cloudpickle.dumps(factory))):
        game = copy(5)
        assert (game.num_games, game.spec.max_plies) == (5, 30)


def test_a_factory_carries_a_registered_maker_along() -> None:
    register_game("small", lambda num_games: small(num_games))
    shipped = cloudpickle.dumps(game_factory("small"))
    GAMES._registered.clear()
    assert cloudpickle.loads(shipped)(3).num_games == 3
