"""Read the records, play them again, evaluate every position, and write all of them as one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from keisei_lightning.commands.positions.npz import as_npz
from keisei_lightning.commands.positions.options import PositionsOptions
from keisei_lightning.commands.positions.packed import LabelledGames, as_packed, game_of, is_packed, read_packed
from keisei_lightning.commands.positions.replaying import Evaluator, Position, positions_of
from keisei_lightning.commands.record_files import each_once, find_records, game_of_records, replayable, target_errors
from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.games import (
    GameFactory,
    LabelledPosition,
    PackedGame,
    ReplayableGame,
    SavedGame,
    read_record_file,
)
from keisei_lightning.games.saved_game import VOID
from keisei_lightning.system.console import bar_on_screen, print_table, quiet_libraries, say
from keisei_lightning.system.paths import path_errors
from keisei_lightning.training.files import write_whole

__all__ = ["write_positions"]

_NPZ = ".npz"


@dataclass(kw_only=True, slots=True)
class _Records:
    """Games that have a result, the files that they are from, and how many files were passed over.

    Of games that a file has with values and policies, ``labels`` has the positions, by the games' numbers.
    """

    games: list[SavedGame] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    labels: dict[int, list[LabelledPosition]] = field(default_factory=dict)
    no_result: int = 0
    unreadable: int = 0


def write_positions(options: PositionsOptions) -> None:
    """Write positions.

    Args:
        options: read from the command line.

    Raises:
        ConfigError: the records, the game, the format or the checkpoint; nothing was written.
        GameError: no record can be read, or some cannot (of the others positions are written), or the file cannot be
            written.
    """
    to = _target(options)
    files = find_records("records", options.records)
    factory, evaluate = _game(options, files, to)
    records = _read(replayable(factory, 1), files, options.score_scale)
    board = replayable(factory, min(options.batch_size, max(1, len(records.games))))
    positions = _play_all(board, records, evaluate or (LabelledGames(records.labels) if records.labels else None))
    if not positions:
        raise GameError(f"records={options.records[0]}: there is no position of a game that has a result")
    if to.suffix.lower() == _NPZ:
        content = as_npz(positions, game_name=board.spec.name, files=[str(file) for file in records.files])
    else:
        content = as_packed(board, positions, to.suffix.lower(), options.score_scale)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        write_whole(to, content)
    except OSError as error:
        raise GameError(f"to={to}: cannot be written ({error.strerror})") from error
    _report(records, to, len(positions), evaluated=evaluate is not None)


def _game(options: PositionsOptions, files: Sequence[Path], to: Path) -> tuple[GameFactory, Evaluator | None]:
    """The game, and what evaluates its positions.

    Raises:
        ConfigError: the game, the format or the checkpoint.
    """
    if options.checkpoint is None:
        factory = game_of_records(options.game, files)
        _check_format(to, factory)
        return factory, None
    from keisei_lightning.commands.positions.evaluating import make_evaluator, read_policy  # torch

    quiet_libraries()
    policy = read_policy(options)
    if options.game is not None and (named := game_of_records(options.game, files)(1).spec.name) != (
        own := policy.header.game
    ):
        raise ConfigError(f"game={named}: must be {own}, the game of checkpoint={options.checkpoint}, or null")
    _check_format(to, policy.game)
    return policy.game, make_evaluator(policy, policy.game, options.simulations)


def _play_all(board: ReplayableGame, records: _Records, evaluate: Evaluator | None) -> list[Position]:
    """All positions, in the order of the records; a bar on a terminal shows how far it is."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("positions"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    found: list[Position] = []

    def complain(number: int, why: str) -> None:
        say(f"{records.files[number]}: {' '.join(why.split())}")

    with bar_on_screen(progress):
        task = progress.add_task("games are played again", total=sum(len(game.moves) for game in records.games))
        for some in positions_of(board, records.games, evaluate, complain):
            found += some
            progress.update(task, completed=len(found))
    return sorted(found, key=lambda position: (position.game, position.ply))


def _target(options: PositionsOptions) -> Path:
    """The file to write.

    Raises:
        ConfigError: it is missing, cannot be written, or is there already.
    """
    if options.to is None:
        raise ConfigError("to: is missing; must be a file")
    to = Path(options.to)
    errors = [*target_errors("to", to, overwrite=options.overwrite)] or [*path_errors("to", str(to.parent))]
    if options.simulations and options.checkpoint is None:
        errors.append(f"simulations={options.simulations}: must be 0 without a checkpoint")
    if errors:
        raise ConfigError(errors)
    return to


def _check_format(to: Path, factory: GameFactory) -> None:
    """Refuse a format that the game has not.

    Raises:
        ConfigError: with the formats that it has.
    """
    game = factory(1)
    formats: Mapping[str, str] = game.position_formats if isinstance(game, PackedGame) else {}
    if to.suffix.lower() not in (*formats, _NPZ):
        raise ConfigError(f"to={to}: must end with one of {', '.join([*formats, _NPZ])} for {game.spec.name}")


def _read(game: ReplayableGame, files: Sequence[Path], scale: float) -> _Records:
    """Games of files; a game that lies there in several formats is read once."""
    packed = [file for file in files if is_packed(game, file)]
    records = _Records()
    for file in (*each_once([file for file in files if file not in packed], game), *packed):
        try:
            found = _games_of(game, file, scale)
        except GameError as error:
            records.unreadable += 1
            say(" ".join(str(error).split()))
            continue
        for saved, labels in found:
            if saved.outcome in ("", VOID):
                records.no_result += 1
                continue
            if labels is not None:
                records.labels[len(records.games)] = labels
            records.games.append(saved)
            records.files.append(file)
    return records


def _games_of(game: ReplayableGame, file: Path, scale: float) -> list[tuple[SavedGame, list[LabelledPosition] | None]]:
    """Games of a file, with the labels of their positions if it has them.

    Raises:
        GameError: it cannot be read.
    """
    if is_packed(game, file):
        return [(game_of(game, labels), labels) for labels in read_packed(game, file, scale)]
    return [(read_record_file(game, file), None)]


def _report(records: _Records, to: Path, num_positions: int, *, evaluated: bool) -> None:
    """Say what was written.

    Raises:
        GameError: some records could not be read.
    """
    rows: dict[str, object] = {"positions": num_positions, "games": len(records.games)}
    if records.no_result:
        rows["games without a result, left out"] = records.no_result
    own = "of the records that have them" if records.labels else "none: the score is 0"
    rows["values and policies"] = "of the checkpoint" if evaluated else own
    rows["file"] = to
    print_table("", rows)
    if records.unreadable:
        raise GameError(f"{records.unreadable} records could not be read")
