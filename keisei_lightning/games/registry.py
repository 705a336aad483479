"""Games by name: the built-in ones, those of other packages, and every OpenSpiel string.

A package adds its game by an entry point in the group ``keisei_lightning.games``, a program by :func:`register_game`::

    [project.entry-points."keisei_lightning.games"]
    my_game = "my_package.my_game:make"

where ``make(num_games, **options)`` returns a :class:`~keisei_lightning.games.protocol.Game`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from keisei_lightning.errors import ConfigError, UnsupportedGameError
from keisei_lightning.games.protocol import Game, GameFactory

__all__ = [
    "ENTRY_POINT_GROUP",
    "GameMaker",
    "canonical_name",
    "game_factory",
    "game_names",
    "make_game",
    "register_game",
]

ENTRY_POINT_GROUP: Final = "keisei_lightning.games"

GameMaker = Callable[..., Game]
"""``make(num_games, **options) -> Game``."""

# Known without entry points, so that a checkout works that was never installed.
_BUILT_IN: Final = {"shogi": "keisei_lightning.games.shogi.game:Shogi"}
_OPEN_SPIEL: Final = ("breakthrough", "connect_four", "hex", "othello", "tic_tac_toe")
_registered: dict[str, GameMaker] = {}


def register_game(name: str, maker: GameMaker) -> None:
    """Add a game of this process, or replace one of the same name.

    Args:
        name: what :func:`make_game` calls it.
        maker: ``maker(num_games, **options)`` returns a game. A factory that is shipped to workers carries it along,
            so it must be picklable by cloudpickle.

    Raises:
        ConfigError: the name is empty or cannot be told from an OpenSpiel string with parameters.
    """
    if not name.strip() or "(" in name:
        raise ConfigError(f"game name {name!r} must not be empty and must not contain '('")
    _registered[name.strip()] = maker


def game_names() -> list[str]:
    """Names of all games known here, sorted; beside them every OpenSpiel string works."""
    return sorted({*_registered, *_BUILT_IN, *_OPEN_SPIEL, *_installed()})


def canonical_name(name: str) -> str:
    """The one spelling of a game's name (``"hex( board_size=5 )"`` becomes ``"hex(board_size=5)"``).

    Raises:
        UnsupportedGameError: there is no such game.
    """
    name = name.strip()
    if name in _registered or name in _BUILT_IN or name in _installed():
        return name
    return _open_spiel_name(name)


def make_game(name: str, num_games: int, **options: object) -> Game:
    """Make a game.

    Args:
        name: one of :func:`game_names`, or any OpenSpiel string.
        num_games: number of boards, G.
        options: of that game; all games know ``max_plies`` and ``opening_plies``.

    Raises:
        UnsupportedGameError: there is no such game, or self-play cannot train it.
        ConfigError: the game has no such option, or its value is out of range.
    """
    return game_factory(name, **options)(num_games)


def game_factory(name: str, **options: object) -> GameFactory:
    """Something picklable that makes the game: ``game_factory("shogi", max_plies=256)(128)`` has 128 boards.

    The name and the options' names are checked here, where a mistake is cheap, and not only in the workers.

    Raises:
        UnsupportedGameError: there is no such game.
        ConfigError: the game has no such option.
    """
    maker = _maker(name.strip())
    _check_options(name.strip(), maker, options)
    return partial(maker, **options)


def _maker(name: str) -> GameMaker:
    """The maker of a name."""
    if name in _registered:
        return _registered[name]
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        maker: GameMaker = getattr(importlib.import_module(module), attribute)
        return maker
    if name in _installed():
        installed: GameMaker = _installed()[name].load()
        return installed
    from keisei_lightning.games.open_spiel import game as open_spiel

    return partial(open_spiel.make, _open_spiel_name(name))


def _open_spiel_name(name: str) -> str:
    """The canonical OpenSpiel string of a name."""
    from keisei_lightning.games.open_spiel import game as open_spiel

    if not open_spiel.is_known(name):
        known = ", ".join(game_names())
        raise UnsupportedGameError(
            f"no game is called {name!r}: use {known}, or an OpenSpiel string ('hex(board_size=5)')"
        )
    return open_spiel.canonical_string(name)


def _check_options(name: str, maker: GameMaker, options: dict[str, object]) -> None:
    """Refuse options that the maker's signature does not have."""
    parameters = inspect.signature(maker).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = sorted(key for key, parameter in parameters.items() if parameter.kind is inspect.Parameter.KEYWORD_ONLY)
    faults = [
        f"{name}: unknown option {key}={value!r}; it has {', '.join(known) or 'no options'}"
        for key, value in options.items()
        if key not in known
    ]
    if faults:
        raise ConfigError(faults)


@cache
def _installed() -> dict[str, EntryPoint]:
    """Entry points of all installed packages, by name."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
