"""Games by name: built-in ones, those of other packages, and every OpenSpiel string.

A package adds its game by an entry point in the group ``keisei_lightning.games``, a program by :func:`register_game`::

    [project.entry-points."keisei_lightning.games"]
    my_game = "my_package.my_game:MyGame"

where ``MyGame(num_games, **options)`` returns a :class:`~keisei_lightning.games.protocol.Game`. Its options are the
other parameters; ``env.max_plies`` and ``env.opening_plies`` are passed to a game that has
parameters of these names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

from keisei_lightning.errors import ConfigError, UnsupportedGameError
from keisei_lightning.games.protocol import DescribedGame, Game, GameFactory
from keisei_lightning.system.registry import Registry, nearest

__all__ = [
    "GAMES",
    "GameMaker",
    "canonical_name",
    "game_factory",
    "game_names",
    "game_notes",
    "make_game",
    "register_game",
    "takes_option",
]

GameMaker = Callable[..., Game]
"""``make(num_games, **options) -> Game``."""

GAMES: Final[Registry[GameMaker]] = Registry(
    "game", group="keisei_lightning.games", built_in={"shogi": "keisei_lightning.games.shogi.game:Shogi"}
)

_OPEN_SPIEL: Final = ("breakthrough", "connect_four", "hex", "othello", "tic_tac_toe")


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
    GAMES.register(name.strip(), maker)


def game_names() -> list[str]:
    """Names of all games known here, sorted; beside them every OpenSpiel string works."""
    return sorted({*GAMES, *_OPEN_SPIEL})


def canonical_name(name: str) -> str:
    """The one spelling of a game's name (``"hex( board_size=5 )"`` becomes ``"hex(board_size=5)"``).

    Raises:
        UnsupportedGameError: there is no such game.
    """
    name = name.strip()
    return name if name in GAMES else _open_spiel_name(name)


def make_game(name: str, num_games: int, **options: object) -> Game:
    """Make a game.

    Args:
        name: one of :func:`game_names`, or any OpenSpiel string.
        num_games: number of boards, G.
        options: of that game.

    Raises:
        UnsupportedGameError: there is no such game, or self-play cannot train it.
        ConfigError: the game has no such option, one is missing, or a value is out of range.
    """
    return game_factory(name, **options)(num_games)


def game_factory(name: str, **options: object) -> GameFactory:
    """Something picklable that makes the game: ``game_factory("shogi", max_plies=256)(128)`` has 128 boards.

    The name and the options' names are checked here, where a mistake is cheap, and not only in the workers.

    Raises:
        UnsupportedGameError: there is no such game.
        ConfigError: the game has no such option, or one is missing.
    """
    maker = _maker(name.strip())
    if errors := list(_option_errors(name.strip(), maker, options)):
        raise ConfigError(errors)
    return partial(maker, **options)


def game_notes() -> Iterator[str]:
    """A line for each registered game that says how it makes its moves, or that cannot be made by its name alone."""
    for name in GAMES.names():
        try:
            game = make_game(name, 1)
        except Exception as error:  # noqa: BLE001 # a third party's game may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            yield f"{name}: {reason.removeprefix(f'game {name}: ').removeprefix(f'{name}: ')}"
            continue
        if isinstance(game, DescribedGame):
            yield f"{name}: {game.implementation}"


def takes_option(name: str, option: str) -> bool:
    """Whether a game has an option of this name.

    Args:
        name: of the game; see :func:`make_game`.
        option: such as ``"opening_plies"``.

    Raises:
        UnsupportedGameError: there is no such game.
        ConfigError: it cannot be loaded.
    """
    known = _options(_maker(name.strip()))
    return known is None or option in known


def _maker(name: str) -> GameMaker:
    """The maker of a name."""
    if name in GAMES:
        return GAMES.load(name)
    from keisei_lightning.games.open_spiel import game as open_spiel

    return partial(open_spiel.make, _open_spiel_name(name))


def _open_spiel_name(name: str) -> str:
    """The canonical OpenSpiel string of a name."""
    from keisei_lightning.games.open_spiel import library as open_spiel

    if not open_spiel.is_known(name):
        known = game_names()
        raise UnsupportedGameError(
            f"game {name}: there is none{nearest(name, known)}; must be one of {', '.join(known)}, "
            "or an OpenSpiel string such as 'hex(board_size=5)'"
        )
    return open_spiel.canonical_string(name)


def _options(maker: GameMaker) -> Mapping[str, inspect.Parameter] | None:
    """A maker's options by name: what it takes beside the number of games; None: whatever it is given."""
    parameters = list(inspect.signature(maker).parameters.values())
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {parameter.name: parameter for parameter in parameters[1:] if parameter.kind in by_name}


def _option_errors(name: str, maker: GameMaker, options: Mapping[str, object]) -> Iterator[str]:
    """A line for each option that the maker does not take, and for each one that it needs and was not given."""
    known = _options(maker)
    if known is None:
        return
    for key, value in options.items():
        if key not in known:
            has = ", ".join(sorted(known)) or "no options"
            yield f"{name}: unknown option {key}={value!r}{nearest(key, known)}; it has {has}"
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in options:
            yield f"{name}: option {key} is missing; must be given"
