"""Records that somebody names on a command line: which files, of which game, and where something is written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.games import (
    Game,
    GameFactory,
    PackedGame,
    ReplayableGame,
    game_factory,
    game_names,
    make_game,
    read_record_file,
)
from keisei_lightning.games.records import decode_record
from keisei_lightning.system.paths import no_path, one_line

__all__ = ["each_once", "find_records", "game_of_records", "replayable", "target_errors"]


def find_records(key: str, paths: Sequence[str]) -> list[Path]:
    """Files that are named, and those in folders that are named: all with an ending, in the order of their names.

    Args:
        key: of the option, for errors.
        paths: files and folders.

    Raises:
        ConfigError: with a line for each that is not there, or holds nothing.
    """
    files, errors = list[Path](), list[str]()
    for path in paths:
        place = Path(path)
        if no_path(place) or not os.path.lexists(place):
            errors.append(f"{key}={one_line(path)}: there is no such file or folder; must be a record or a folder")
        elif not place.is_dir():
            files.append(place)
        else:
            inside = [file for file in sorted(place.rglob("*")) if file.is_file() and not file.name.startswith(".")]
            known = {suffix for name in game_names() for suffix in _formats(name)}
            if not (found := [file for file in inside if file.suffix.lower() in known]):
                errors.append(f"{key}={one_line(path)}: there are no records in it; they end with {_listed(known)}")
            files += found
    if errors:
        raise ConfigError(errors)
    return files


def each_once(files: Sequence[Path], game: ReplayableGame) -> list[Path]:
    """One file of each game: an evaluation writes a game in several formats, as files that differ in their endings.

    Args:
        files: of records.
        game: the game, whose first format counts most.
    """
    order = {suffix: rank for rank, suffix in enumerate(game.record_formats)}
    chosen: dict[Path, Path] = {}
    for file in sorted(files, key=lambda file: order.get(file.suffix.lower(), len(order))):
        chosen.setdefault(file.with_suffix(""), file)
    kept = set(chosen.values())
    return [file for file in files if file in kept]


def game_of_records(name: str | None, files: Sequence[Path]) -> GameFactory:
    """What makes the boards of some records.

    Args:
        name: of the game; None: a record's first line says it, or only one game can read such a record.
        files: the records.

    Raises:
        ConfigError: there is no such game, or it is not told.
    """
    try:
        return game_factory(name if name is not None else _told_game(files))
    except ConfigError as error:
        raise ConfigError([f"game={name or 'null'}: {' '.join(line.split())}" for line in error.errors]) from error


def replayable(factory: GameFactory, num_games: int) -> ReplayableGame:
    """Boards of a game that reads records.

    Raises:
        ConfigError: it reads none.
    """
    game = factory(num_games)
    if not isinstance(game, ReplayableGame):
        raise ConfigError(f"game={game.spec.name}: reads no records; must be a game with read_record (ReplayableGame)")
    return game


def target_errors(key: str, target: Path, *, overwrite: bool) -> Iterator[str]:
    """Whether a file can be written: what is there stays, unless it may be overwritten.

    Args:
        key: of the option.
        target: the file.
        overwrite: whether a file that is there may be replaced.
    """
    if reason := no_path(target):
        yield f"{key}={one_line(str(target))}: must be a file that can be written to ({reason})"
    elif target.is_dir():
        yield f"{key}={target}: is a folder; must be a file"
    elif os.path.lexists(target) and not overwrite:
        yield f"{key}={target}: is there already; must be another file (or overwrite=true)"


def _told_game(files: Sequence[Path]) -> str:
    """The game that a record's first line names, or the one registered game that can read the first record.

    Raises:
        ConfigError: it is not told.
    """
    samples = {file.suffix.lower(): file for file in reversed(files)}
    for file in samples.values():
        if told := re.fullmatch(r"game: (.+)", _first_line(file)):
            return told[1]
    file = files[0]
    having = [name for name in game_names() if file.suffix.lower() in (*_formats(name), *_packed_formats(name))]
    able = having if len(having) == 1 else [name for name in having if _can_read(name, file)]
    if len(able) == 1:
        return able[0]
    wanted = f"must be one of {', '.join(having)}" if having else "no game here has records of that ending"
    raise ConfigError(f"{file} does not tell it; {wanted}")


def _first_line(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return decode_record(opened.readline(1000)).strip()
    except (OSError, GameError):
        return ""


def _can_read(name: str, file: Path) -> bool:
    try:
        read_record_file(replayable(game_factory(name), 1), file)
    except (GameError, ConfigError):
        return False
    return True


def _formats(name: str) -> Sequence[str]:
    """Endings of the records that a registered game reads."""
    game = _made(name)
    return tuple(game.record_formats) if isinstance(game, ReplayableGame) else ()


def _packed_formats(name: str) -> Sequence[str]:
    """Endings of files of packed games that a registered game reads."""
    game = _made(name)
    return tuple(game.readable_formats) if isinstance(game, PackedGame) else ()


def _made(name: str) -> Game | None:
    """A registered game; None where it cannot be made without more options.

    Nobody asked for this game: what another package's raises is told where it is named.
    """
    try:
        return make_game(name, 1)
    except Exception:  # noqa: BLE001
        return None


def _listed(suffixes: set[str]) -> str:
    return ", ".join(sorted(suffixes))
