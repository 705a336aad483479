"""What of section ``env`` a game's maker is given."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import CountingGame
from omegaconf import OmegaConf

from keisei_lightning.config.game_checks import game_options
from keisei_lightning.errors import ConfigError
from keisei_lightning.games import register_game
from keisei_lightning.games.registry import GAMES


@pytest.fixture(autouse=True)
def _games(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GAMES, "_registered", {})
    register_game("plain", lambda num_games: CountingGame(num_games))
    register_game("openings", lambda num_games, *, opening_plies=0: CountingGame(num_games))
    register_game("anything", lambda num_games, **options: CountingGame(num_games))


def options_of(game: str, **env: Any) -> dict[str, Any]:
    section = {"game": game, "opening_plies": 0, "max_plies": None, "options": {}} | env
    return game_options(OmegaConf.create({"env": section}))


@pytest.mark.parametrize(
    ("game", "env", "options"),
    [
        ("plain", {}, {}),
        ("plain", {"options": {"size": [1, 2]}}, {"size": [1, 2]}),  # the maker is asked later
        ("openings", {}, {"opening_plies": 0}),
        ("openings", {"opening_plies": 3}, {"opening_plies": 3}),
        ("anything", {}, {"opening_plies": 0}),
        ("anything", {"max_plies": 9}, {"opening_plies": 0, "max_plies": 9}),
        (
            "shogi",
            {"max_plies": 9, "options": {"kernel": False}},
            {"opening_plies": 0, "max_plies": 9, "kernel": False},
        ),
        ("hex(board_size=5)", {"opening_plies": 4}, {"opening_plies": 4}),
    ],
)
def test_a_maker_is_given_what_it_takes(game: str, env: dict[str, Any], options: dict[str, Any]) -> None:
    assert options_of(game, **env) == options


def test_what_is_given_and_not_taken_is_a_line_each() -> None:
    with pytest.raises(ConfigError) as caught:
        options_of("plain", opening_plies=3, max_plies=9)
    assert caught.value.errors == (
        "env.opening_plies=3: must be 0, as with env=own (plain has no such option)",
        "env.max_plies=9: must be null, as with env=own (plain has no such option)",
    )
