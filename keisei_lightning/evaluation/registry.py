"""Players by name: ``"random"``, ``"alpha_beta(depth=5)"``, ``"usi(command='my-engine --fast',nodes=1000)"``.

A package adds a player by an entry point in the group ``keisei_lightning.players``, a program by
:func:`register_player`::

    [project.entry-points."keisei_lightning.players"]
    my_player = "my_package.my_player:make"

where ``make(spec, *, seed, name, **options)`` returns a :class:`~keisei_lightning.evaluation.players.Player` for a
game, and raises :class:`~keisei_lightning.errors.ConfigError` for a game or an option that it cannot work with. Its
options are the further keyword arguments of its signature; values are turned into the types that are annotated there,
those of ``**options`` too: ``**options: str`` takes them as they were written. The fields of a keyword that is a
dataclass are options too, and are handed over as keywords of their own.

A configuration is checked by making its players, so a maker is quick and starts no process: that is the work of the
player's ``start()``, which is called once, before the first match (:func:`start_player`).
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from typing import Any, Final

from keisei_lightning.errors import ConfigError, KeiseiError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.games.turns import Player, PlayerFactory, closing_player, start_player
from keisei_lightning.system.registry import Registry, nearest

__all__ = [
    "PLAYERS",
    "PlayerMaker",
    "PlayerName",
    "closing_player",
    "make_player",
    "parse_player",
    "player_errors",
    "player_factory",
    "player_names",
    "player_options",
    "register_player",
    "start_player",
]

PlayerMaker = Callable[..., Player]
"""``make(spec, *, seed, name, **options) -> Player``."""

PLAYERS: Final[Registry[PlayerMaker]] = Registry(
    "player",
    group="keisei_lightning.players",
    built_in={  # a test holds them to pyproject.toml
        "alpha_beta": "keisei_lightning.evaluation.search:make_alpha_beta",
        "blend": "keisei_lightning.evaluation.blend_player:make_blend",
        "fairy_stockfish": "keisei_lightning.evaluation.usi.players:make_fairy_stockfish",
        "greedy_capture": "keisei_lightning.evaluation.shogi_players:make_greedy_capture",
        "mate_in_one": "keisei_lightning.evaluation.shogi_players:make_mate_in_one",
        "mcts": "keisei_lightning.evaluation.search:make_mcts",
        "onnx": "keisei_lightning.export.onnx_player:make_onnx",
        "random": "keisei_lightning.evaluation.players:make_random",
        "search": "keisei_lightning.checkpoint_players:make_search",
        "tactics": "keisei_lightning.evaluation.search:make_tactics",
        "usi": "keisei_lightning.evaluation.usi.players:make_usi",
    },
)

_NAME = re.compile(r"\s*([A-Za-z_]\w*)\s*")
_KEY = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*")
_VALUE = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s,()'"=]+)""", re.DOTALL)
_KINDS: Final = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayerName:
    """A player's name, taken apart.

    Attributes:
        player: which player, such as ``"alpha_beta"``.
        options: values by key, as they were written, without quotation marks.
        text: the canonical spelling: no blanks outside of quotation marks, no empty brackets.
    """

    player: str
    options: Mapping[str, str] = field(default_factory=dict)
    text: str

    def __str__(self) -> str:
        """The canonical spelling."""
        return self.text


def register_player(name: str, maker: PlayerMaker) -> None:
    """Add a player of this process, or replace one of the same name.

    Args:
        name: what :func:`make_player` calls it: letters, digits and underscores.
        maker: see the module's text.

    Raises:
        ConfigError: the name could not be found again.
    """
    if not name.isidentifier() or not name.isascii():
        raise ConfigError(f"player name {name!r}: must be letters, digits and underscores, with no digit first")
    PLAYERS.register(name, maker)


def player_names() -> list[str]:
    """Names of all players known here, sorted. Not every player can play every game."""
    return PLAYERS.names()


def parse_player(text: str) -> PlayerName:
    """Take a player's name apart: ``NAME`` or ``NAME(KEY=VALUE,...)``.

    A value with blanks, commas, brackets, an equals sign or quotation marks stands in quotation marks of the other kind
    (or with a backslash before each of its own). Nothing in it is evaluated.

    Raises:
        ConfigError: it cannot be read so, or no player is called that.
    """
    found = _NAME.match(text)
    if found is None:
        raise _unreadable(text, text, "it begins with no name")
    player, rest = found[1], text[found.end() :].rstrip()
    options, written = _options(text, rest) if rest else ({}, [])
    if player not in PLAYERS:
        raise ConfigError(PLAYERS.unknown(player))
    return PlayerName(player=player, options=options, text=f"{player}({','.join(written)})" if written else player)


def player_options(name: PlayerName) -> dict[str, Any]:
    """The options of a player's name as its maker takes them; no game is needed for that.

    Args:
        name: see :func:`parse_player`.

    Raises:
        ConfigError: the player cannot be loaded; or it has no such option, one is missing, or a value is of another
            type, all at once.
    """
    return _typed_options(name, PLAYERS.load(name.player))


def make_player(name: str | PlayerName, spec: GameSpec, *, seed: int = 0) -> Player:
    """Make a player for a game. Nothing is started: see :func:`start_player`.

    Args:
        name: such as ``"alpha_beta(depth=5)"``; see :func:`parse_player`.
        spec: the game.
        seed: of the player's own random streams.

    Returns:
        The player; close it if it has a ``close()`` (:func:`closing_player` does).

    Raises:
        ConfigError: the name cannot be read, no player is called that, it has no such option, a value is wrong, or it
            cannot play this game.
    """
    return player_factory(name)(spec, seed)


def player_factory(name: str | PlayerName) -> PlayerFactory:
    """What makes a player in any process, also one of a maker that only this process knows: it can be pickled.

    Args:
        name: see :func:`parse_player`.

    Raises:
        ConfigError: as :func:`make_player`, but for what depends on the game.
    """
    parsed = parse_player(name) if isinstance(name, str) else name
    maker = PLAYERS.load(parsed.player)
    return partial(_made, maker, parsed.text, _typed_options(parsed, maker))


def _made(maker: PlayerMaker, name: str, options: Mapping[str, Any], spec: GameSpec, seed: int) -> Player:
    return maker(spec, seed=seed, name=name, **options)


def player_errors(key: str, names: Iterable[str], spec: GameSpec | None) -> Iterator[str]:
    """Whether each player is there, takes its options and can play the game. It is made for that; nothing is started.

    Args:
        key: of the option that names the players, for the messages.
        names: see :func:`parse_player`.
        spec: the game; None: it is not known yet, and what depends on it is not checked.

    Yields:
        A line for each error.
    """
    for name in names:
        try:
            player = parse_player(name)
            if spec is None:
                player_options(player)
            else:
                with closing_player(make_player(player, spec)):
                    pass
        except KeiseiError as error:
            yield from (f"{key}={name}: {' '.join(line.split())}" for line in getattr(error, "errors", [str(error)]))


def _options(text: str, rest: str) -> tuple[dict[str, str], list[str]]:
    """What stands in the brackets: values by key, and how they are written canonically."""
    if not rest.startswith("("):
        raise _unreadable(text, rest, "after the name only brackets may follow")
    options: dict[str, str] = {}
    written: list[str] = []
    at = 1
    while rest[at:].strip() != ")":
        key = _KEY.match(rest, at)
        if key is None:
            raise _unreadable(text, rest[at:], "KEY= or the closing bracket is missing")
        value = _VALUE.match(rest, key.end())
        if value is None:
            raise _unreadable(text, rest[key.end() :], f"there is no value for {key[1]}")
        if key[1] in options:
            raise ConfigError(f"player {text.strip()}: {key[1]} is given twice; must be given once")
        quoted = value[1] if value[1] is not None else value[2]
        options[key[1]] = value[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
        written.append(f"{key[1]}={value[0]}")
        after = re.compile(r"\s*(,|(?=\)))").match(rest, value.end())
        if after is None:
            raise _unreadable(text, rest[value.end() :], "a comma or the closing bracket is missing")
        at = after.end()
    return options, written


def _unreadable(text: str, where: str, reason: str) -> ConfigError:
    here = f" at {where.strip()!r}" if where.strip() and where.strip() != text.strip() else ""
    return ConfigError(f"player {text.strip()!r}: cannot be read ({reason}{here}); must be NAME or NAME(KEY=VALUE,...)")


def _typed_options(name: PlayerName, maker: PlayerMaker) -> dict[str, Any]:
    """Options as keyword arguments of the maker.

    Raises:
        ConfigError: unknown ones, missing ones, and values of another type, all at once.
    """
    parameters = _parameters(maker)
    known = {
        key: parameter
        for key, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and key not in ("seed", "name")
    }
    other = next((p for p in parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD), None)
    errors, options = [], {}
    for key, text in name.options.items():
        parameter = known.get(key, other)
        if parameter is None:
            allowed = f"must be one of {', '.join(sorted(known))}" if known else "it has no options"
            errors.append(f"player {name}: unknown option {key}={text}{nearest(key, known)}; {allowed}")
            continue
        try:
            options[key] = _typed(text, parameter.annotation)
        except ValueError as error:
            errors.append(f"player {name}: {key}={text}: must be {error}")
    errors += [
        f"player {name}: {key} is missing; must be given as {name.player}({key}=VALUE)"
        for key, parameter in known.items()
        if parameter.default is inspect.Parameter.empty and key not in name.options
    ]
    if errors:
        raise ConfigError(errors)
    return options


def _parameters(maker: PlayerMaker) -> Mapping[str, inspect.Parameter]:
    """Parameters of a maker; in the place of one that is a dataclass of options stands each of these."""
    try:
        signature = inspect.signature(maker, eval_str=True)
    except NameError:  # annotations that only a type checker can read
        signature = inspect.signature(maker)
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in signature.parameters.items():
        group = is_dataclass(parameter.annotation) and parameter.kind is inspect.Parameter.KEYWORD_ONLY
        parameters |= inspect.signature(parameter.annotation, eval_str=True).parameters if group else {name: parameter}
    return parameters


def _typed(text: str, annotation: Any) -> Any:
    """A value of the annotated type; without a plain annotation, of the type that it looks like.

    Raises:
        ValueError: it is none; the message says what it must be.
    """
    united = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    kinds = typing.get_args(annotation) if united else (annotation,)
    if typing.get_origin(annotation) is typing.Literal:
        legal = typing.get_args(annotation)
        for choice in legal:
            if str(choice) == text:
                return choice
        raise ValueError(f"one of {', '.join(map(str, legal))}")
    if not set(kinds) <= _KINDS.keys():
        kinds = (type(None), bool, int, float, str)
    for kind in sorted(kinds, key=_STRICTEST_FIRST.index):
        try:
            return _read(text, kind)
        except ValueError:
            continue
    raise ValueError(" or ".join(_KINDS[kind] for kind in kinds))


_STRICTEST_FIRST: Final = (type(None), bool, int, float, str)


def _read(text: str, kind: type) -> Any:
    """A value of one type; :class:`ValueError` where it is none."""
    if kind is type(None):
        words: dict[str, Any] = {"null": None, "none": None}
    elif kind is bool:
        words = {"true": True, "false": False}
    else:
        return kind(text)
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]
