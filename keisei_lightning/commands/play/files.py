"""Games in files: saved ones, and records in the formats of their game."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

from keisei_lightning.commands.record_files import game_of_records
from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.games.protocol import GameFactory, RecordedGame
from keisei_lightning.games.records import read_record_file
from keisei_lightning.games.saved_game import RESIGNATION, ReplayableGame
from keisei_lightning.play import GameSession
from keisei_lightning.play.session import saved_game
from keisei_lightning.system.paths import no_path, one_line
from keisei_lightning.training.files import write_whole

__all__ = ["JSON", "free_name", "read_game", "read_session", "write_session"]

JSON: Final = ".json"
_TEXT: Final = ".txt"
_MAX_BYTES: Final = 4_000_000
T = TypeVar("T")


def _is_record(path: str) -> bool:
    """Whether it is of some game's own format, by its ending."""
    return Path(path).suffix.lower() != JSON


def _read_text(path: str) -> str:
    """A saved game's text.

    Raises:
        GameError: it is not there, or is no text of a game.
    """
    shown = one_line(path)
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise GameError(f"{shown}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(data) > _MAX_BYTES:
        raise GameError(f"{shown}: is no saved game; must have at most {_MAX_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise GameError(f"{shown}: is no text in UTF-8") from error


def read_session(factory: GameFactory, path: str) -> GameSession:
    """A saved game, or a record of one, to be continued.

    Args:
        factory: makes its game.
        path: of the file.

    Raises:
        GameError: it cannot be read, or is of another game.
    """
    if not _is_record(path):
        return _read(lambda text: GameSession.from_json(factory, text), path)
    game = factory(1)
    if not isinstance(game, ReplayableGame):
        raise GameError(f"{one_line(path)}: {game.spec.name} reads no records; must be a game saved as {JSON}")
    saved = read_record_file(game, Path(path).expanduser())
    session = GameSession(factory, start=saved.start)
    for move in saved.moves:
        session.play_name(move)
    if saved.outcome == RESIGNATION and not session.is_over:
        session.resign()
    return session


def read_game(path: str) -> str:
    """The name of a saved game's game.

    Args:
        path: of the file.

    Raises:
        GameError: it cannot be read, or does not tell.
    """
    if _is_record(path):
        try:
            return game_of_records(None, [Path(path).expanduser()])(1).spec.name
        except ConfigError as error:
            told = f"{one_line(path)}: is no record that tells its game; add game=NAME, or load a game saved as {JSON}"
            raise GameError(told) from error
    return _read(saved_game, path)


def _read(take: Callable[[str], T], path: str) -> T:
    text = _read_text(path)
    try:
        return take(text)
    except GameError as error:
        raise GameError(f"{one_line(path)}: {error}") from error


def free_name(path: str) -> str:
    """The name for a further game: ``game-2.json`` beside ``game.json``.

    Args:
        path: of the first one.
    """
    file = Path(path)
    names = (file.with_stem(f"{file.stem}-{number}") for number in count(2))
    return str(next(name for name in names if not os.path.lexists(name)))


def write_session(session: GameSession, path: str, players: tuple[str, str]) -> None:
    """Write a game, whole or not at all.

    Args:
        session: the game.
        path: of the file; its ending says the format.
        players: names of those in seat 0 and 1.

    Raises:
        GameError: there is no such format, or it cannot be written.
    """
    file, shown = Path(path).expanduser(), one_line(path)
    if reason := no_path(file):
        raise GameError(f"{shown}: must be a file that can be written ({reason})")
    texts = {JSON: lambda: session.to_json(first=players[0], second=players[1]) + "\n"}
    outcome = session.outcome or "void"
    if isinstance(session.game, RecordedGame):
        records = session.game.record_files(0, players=players, outcome=outcome)
        texts |= {suffix: (lambda text=text: text) for suffix, text in records.items()}  # type: ignore[misc]
    texts.setdefault(_TEXT, lambda: session.game.record(0) + "\n")
    write = texts.get(file.suffix.lower())
    if write is None:
        raise GameError(f"{shown}: is of no known format; must end with one of {', '.join(texts)}")
    try:
        write_whole(file, write().encode())
    except OSError as error:
        raise GameError(f"{shown}: cannot be written ({error.strerror})") from error
