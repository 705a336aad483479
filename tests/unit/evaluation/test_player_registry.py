"""Players by name."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from installed_packages import installed

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation import Player, RandomPlayer
from keisei_lightning.evaluation.registry import (
    PLAYERS,
    closing_player,
    make_player,
    parse_player,
    player_names,
    player_options,
    register_player,
)
from keisei_lightning.games import GameSpec

SPEC = GameSpec(name="counting", num_actions=3, observation_shape=(2, 1, 1), max_plies=10)


class Engine(RandomPlayer):
    """Notes what it was made with, and that it was closed."""

    def __init__(self, spec: GameSpec, seed: int, name: str, **options: object) -> None:
        super().__init__(spec.num_actions, seed, name=name)
        self.seed, self.options, self.closed = seed, options, False

    def close(self) -> None:
        self.closed = True


def make_engine(
    spec: GameSpec,
    *,
    seed: int,
    name: str,
    command: str = "engine",
    depth: int = 1,
    share: float = 0.5,
    book: bool = False,
    nodes: int | None = 100,
    style: Literal["calm", "bold"] = "calm",
) -> Player:
    return Engine(spec, seed, name, command=command, depth=depth, share=share, book=book, nodes=nodes, style=style)


def make_anything(spec: GameSpec, *, seed: int, name: str, **options: object) -> Player:
    return Engine(spec, seed, name, **options)


def make_literal(spec: GameSpec, *, seed: int, name: str, depth: int = 1, **options: str) -> Player:
    return Engine(spec, seed, name, depth=depth, **options)


def make_demanding(spec: GameSpec, *, seed: int, name: str, file: str) -> Player:
    return Engine(spec, seed, name, file=file)


@pytest.fixture(autouse=True, scope="module")
def _own_registry() -> Iterator[None]:
    before = dict(PLAYERS._registered)
    PLAYERS._registered.clear()
    register_player("engine", make_engine)
    register_player("anything", make_anything)
    register_player("demanding", make_demanding)
    register_player("literal", make_literal)
    yield
    PLAYERS._registered.clear()
    PLAYERS._registered.update(before)


def made(name: str, seed: int = 0) -> Engine:
    player = make_player(name, SPEC, seed=seed)
    assert isinstance(player, Engine)
    return player


def fault(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        make_player(name, SPEC)
    (line,) = caught.value.errors
    assert "\n" not in line
    return line


class TestReading:
    @pytest.mark.parametrize(
        ("text", "canonical", "options"),
        [
            ("random", "random", {}),
            (" random ( ) ", "random", {}),
            ("engine( depth = 5 , nodes=7 )", "engine(depth=5,nodes=7)", {"depth": "5", "nodes": "7"}),
            ("engine(command='a b, (c)=d')", "engine(command='a b, (c)=d')", {"command": "a b, (c)=d"}),
            ('engine(command="it\'s")', 'engine(command="it\'s")', {"command": "it's"}),
            (r"engine(command='it\'s')", r"engine(command='it\'s')", {"command": "it's"}),
            ("engine(command=/bin/x-1.2:y)", "engine(command=/bin/x-1.2:y)", {"command": "/bin/x-1.2:y"}),
            ("engine(depth=-5,)", "engine(depth=-5)", {"depth": "-5"}),
        ],
    )
    def test_names_and_options_are_taken_apart(self, text: str, canonical: str, options: dict[str, str]) -> None:
        parsed = parse_player(text)
        assert (parsed.text, parsed.options) == (canonical, options)
        assert parse_player(parsed.text) == parsed

    @given(value=st.text(min_size=0, max_size=30))
    def test_any_text_can_be_a_quoted_value(self, value: str) -> None:
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        assert parse_player(f"engine(command='{quoted}')").options == {"command": value}

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("", "player '': cannot be read (it begins with no name); must be NAME or NAME(KEY=VALUE,...)"),
            ("5", "player '5': cannot be read (it begins with no name); must be NAME or NAME(KEY=VALUE,...)"),
            (
                "engine depth=5",
                "player 'engine depth=5': cannot be read (after the name only brackets may follow at 'depth=5'); "
                "must be NAME or NAME(KEY=VALUE,...)",
            ),
            (
                "engine(5)",
                "player 'engine(5)': cannot be read (KEY= or the closing bracket is missing at '5)'); "
                "must be NAME or NAME(KEY=VALUE,...)",
            ),
            (
                "engine(depth=)",
                "player 'engine(depth=)': cannot be read (there is no value for depth at ')'); "
                "must be NAME or NAME(KEY=VALUE,...)",
            ),
            (
                "engine(depth=5",
                "player 'engine(depth=5': cannot be read (a comma or the closing bracket is missing); "
                "must be NAME or NAME(KEY=VALUE,...)",
            ),
            ("engine(depth=5,depth=6)", "player engine(depth=5,depth=6): depth is given twice; must be given once"),
        ],
    )
    def test_what_cannot_be_read_is_refused_in_one_line(self, text: str, line: str) -> None:
        assert fault(text) == line

    def test_nothing_in_a_name_is_evaluated(self) -> None:
        assert made("engine(command='__import__(\"os\").abort()')").options["command"] == '__import__("os").abort()'


class TestMaking:
    def test_values_have_the_types_of_the_signature(self) -> None:
        options = made("engine(command=5,depth=5,share=1,book=true,nodes=null,style=bold)").options
        assert options == {"command": "5", "depth": 5, "share": 1.0, "book": True, "nodes": None, "style": "bold"}
        assert isinstance(options["share"], float)
        assert made("engine").options["nodes"] == 100

    def test_values_look_like_their_types_where_the_signature_has_none(self) -> None:
        options = made("anything(a=5,b=0.5,c=False,d=none,e=word)").options
        assert options == {"a": 5, "b": 0.5, "c": False, "d": None, "e": "word"}

    def test_further_options_that_are_texts_stay_as_they_were_written(self) -> None:
        options = made("literal(depth=5,a=true,b=none,c=007,d=1.50,e='')").options
        assert options == {"depth": 5, "a": "true", "b": "none", "c": "007", "d": "1.50", "e": ""}

    @pytest.mark.parametrize("engine", ["usi(command=x,", "fairy_stockfish("])
    def test_an_engines_own_options_are_not_read_and_ours_are(self, engine: str) -> None:
        name = parse_player(f"{engine}nodes=7,processes=2,timeout_s=5,USI_Ponder=true,BookFile=none)")
        ours = {"nodes": 7, "processes": 2, "timeout_s": 5.0, "USI_Ponder": "true", "BookFile": "none"}
        assert player_options(name).items() >= ours.items()

    def test_the_player_gets_its_seed_and_its_name_without_blanks(self) -> None:
        player = made("engine( depth = 5 )", seed=9)
        assert (player.seed, player.name) == (9, "engine(depth=5)")

    def test_random_is_built_in(self) -> None:
        player = make_player("random", SPEC, seed=3)
        assert isinstance(player, RandomPlayer)
        assert player.name == "random"

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("engine(depth=five)", "player engine(depth=five): depth=five: must be a whole number"),
            ("engine(depth=5.5)", "player engine(depth=5.5): depth=5.5: must be a whole number"),
            ("engine(share=half)", "player engine(share=half): share=half: must be a number"),
            ("engine(book=1)", "player engine(book=1): book=1: must be true or false"),
            ("engine(nodes=x)", "player engine(nodes=x): nodes=x: must be a whole number or null"),
            ("engine(style=mad)", "player engine(style=mad): style=mad: must be one of calm, bold"),
            (
                "engine(dept=5)",
                "player engine(dept=5): unknown option dept=5 (did you mean depth?); "
                "must be one of book, command, depth, nodes, share, style",
            ),
            ("random(depth=5)", "player random(depth=5): unknown option depth=5; it has no options"),
            ("demanding", "player demanding: file is missing; must be given as demanding(file=VALUE)"),
        ],
    )
    def test_a_bad_option_is_refused_in_one_line(self, text: str, line: str) -> None:
        assert fault(text) == line

    def test_all_bad_options_are_reported_at_once(self) -> None:
        with pytest.raises(ConfigError) as caught:
            make_player("engine(depth=a,nodes=b)", SPEC)
        assert len(caught.value.errors) == 2


class TestNames:
    def test_an_unknown_name_is_answered_with_the_known_ones(self) -> None:
        line = fault("randon")
        assert line.startswith("player randon: there is none (did you mean random?); must be one of ")
        assert line.endswith(", ".join(player_names()))

    def test_other_packages_add_players_by_entry_points(self, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = EntryPoint("dice", "keisei_lightning.evaluation.players:make_random", PLAYERS.group)
        broken = EntryPoint("broken", "keisei_lightning.nowhere:make", PLAYERS.group)
        installed(monkeypatch, PLAYERS, entry, broken)
        assert "dice" in player_names()
        assert make_player("dice", SPEC).name == "dice"
        assert fault("broken").startswith("player broken: cannot be loaded (ModuleNotFoundError: ")

    def test_the_built_in_players_are_the_entry_points_of_the_package(self) -> None:
        project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert project["entry-points"][PLAYERS.group] == PLAYERS._built_in

    @pytest.mark.parametrize("name", ["", "a b", "f(x)", "5x", "é"])
    def test_names_that_could_not_be_found_again_are_refused(self, name: str) -> None:
        with pytest.raises(ConfigError, match="must be letters, digits and underscores"):
            register_player(name, make_anything)


class TestClosing:
    def test_what_a_player_holds_is_released_also_after_an_error(self) -> None:
        def use(player: Engine) -> None:
            with closing_player(player):
                raise ZeroDivisionError

        player = made("engine")
        with pytest.raises(ZeroDivisionError):
            use(player)
        assert player.closed

    def test_a_player_without_close_is_returned_as_it_is(self) -> None:
        player = make_player("random", SPEC)
        with closing_player(player) as same:
            assert same is player
