"""Read records, write them in another format, and read these again to see what is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from keisei_lightning.commands.convert.options import ConvertOptions
from keisei_lightning.commands.record_files import each_once, find_records, game_of_records, replayable, target_errors
from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.games import ReplayableGame, SavedGame, read_record_file
from keisei_lightning.games.records import encode_record
from keisei_lightning.system.console import say
from keisei_lightning.system.paths import path_errors
from keisei_lightning.training.files import write_whole

__all__ = ["convert", "losses"]


def convert(options: ConvertOptions) -> None:
    """Convert all records; one that cannot be read or written is told, and the others are converted.

    Args:
        options: read from the command line.

    Raises:
        ConfigError: the files, the game or the format; nothing was written.
        GameError: some could not be converted.
    """
    if options.to is None:
        raise ConfigError("to: is missing; must be a file or a folder")
    named = find_records("record", options.record)
    game = replayable(game_of_records(options.game, named), 1)
    files = each_once(named, game)
    targets = _targets(options, files, game)
    for file in sorted(set(named) - set(files)):
        sys.stdout.write(f"{file}: left out: by its name it is the same game as another record\n")
    failed = 0
    for file, target in targets.items():
        try:
            lines = _convert_one(game, file, target)
        except (GameError, OSError) as error:
            failed += 1
            say(" ".join(str(error).split()))
        else:
            sys.stdout.write("".join(f"{line}\n" for line in lines))
    if failed:
        raise GameError(f"{failed} of {len(targets)} records could not be converted")


def losses(before: SavedGame, after: SavedGame) -> Iterator[str]:
    """What a game has that is missing after it was written and read again.

    Args:
        before: the game.
        after: as it was read again.
    """
    if before.moves != after.moves:
        yield f"{len(before.moves) - len(after.moves)} of {len(before.moves)} moves"
    if before.start != after.start:
        yield f"the position in which it begins ({before.start})"
    if (before.outcome, before.winner) != (after.outcome, after.winner):
        winner = {0: ", first player wins", 1: ", second player wins", None: ""}[before.winner]
        yield f"how it ended ({before.outcome}{winner})"
    if any(name and name != kept for name, kept in zip(before.players, after.players, strict=True)):
        yield f"the players' names ({', '.join(filter(None, before.players))})"
    if before.times_s and before.times_s != after.times_s:
        kept = [round(time or 0) for time in after.times_s] == [int(time or 0) for time in before.times_s]
        yield "fractions of seconds" if kept else "the time that moves took"
    if missing := sum(after.comments.get(ply) != text for ply, text in before.comments.items()):
        yield f"{missing} of {len(before.comments)} comments"
    if lost := [key for key, value in before.headers.items() if value and after.headers.get(key) != value]:
        yield f"what is told of the game as {', '.join(lost)}"


def _convert_one(game: ReplayableGame, file: Path, target: Path) -> list[str]:
    """Convert one record; lines about it.

    Raises:
        GameError: it cannot be read or written.
        OSError: the file cannot be written.
    """
    saved = read_record_file(game, file)
    suffix = target.suffix.lower()
    try:
        text = game.write_record(saved, suffix)
        content = encode_record(text, game.record_formats[suffix])
        again = game.read_record(text, suffix)
    except GameError as error:
        raise GameError(f"{target}: {error}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, content)
    about = f"{file} -> {target}: {len(saved.moves)} moves, {saved.outcome or 'not over'}"
    return [about, *(f"  left out: {what}" for what in (*saved.left_out, *losses(saved, again)))]


def _targets(options: ConvertOptions, files: list[Path], game: ReplayableGame) -> Mapping[Path, Path]:
    """The file that each record is written to.

    Raises:
        ConfigError: with a line for each error.
    """
    to = Path(str(options.to))
    suffix = f".{options.format.lstrip('.').lower()}" if options.format is not None else to.suffix.lower()
    errors: list[str] = []
    known = ", ".join(game.record_formats)
    if options.format is None and suffix not in game.record_formats:
        errors.append(f"to={to}: must end with one of {known} for {game.spec.name}, or be a folder, with format=...")
    elif suffix not in game.record_formats:
        errors.append(f"format={options.format}: must be one of {known} for {game.spec.name}")
    elif options.format is None and len(files) > 1:
        errors.append(f"to={to}: must be a folder, with format=..., where there are {len(files)} records")
    elif options.format is not None:
        errors += path_errors("to", str(to))
    if errors:
        raise ConfigError(errors)
    targets = {file: to for file in files} if options.format is None else _in_folder(options, files, to, suffix)
    written: dict[Path, Path] = {}
    for file, target in targets.items():
        errors += target_errors("to", target, overwrite=options.overwrite)
        if target in written:
            errors.append(f"record={file}: would be written to {target}, as {written[target]} is; must be one of them")
        written.setdefault(target, file)
    if errors:
        raise ConfigError(errors)
    return targets


def _in_folder(options: ConvertOptions, files: list[Path], to: Path, suffix: str) -> dict[Path, Path]:
    """Below the folder each record lies where it lies below the folder that was named."""
    folders = [Path(record) for record in options.record if Path(record).is_dir()]
    targets = {}
    for file in files:
        below = next((folder for folder in folders if file.is_relative_to(folder)), file.parent)
        targets[file] = (to / file.relative_to(below)).with_suffix(suffix)
    return targets
