"""Checks of what ``keisei eval`` was asked for that need no network: nobody waits for torch to be told no."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from keisei_lightning.commands.evaluate.options import CHECKPOINT_SUFFIX, Options
from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.registry import (
    PlayerName,
    closing_player,
    make_player,
    parse_player,
    player_options,
)
from keisei_lightning.games import GameFactory, GameSpec, game_factory

__all__ = ["ANCHOR", "check_options", "named_game", "symmetry_errors"]

ANCHOR = "random"
"""The player whose rating is 0."""


def check_options(options: Options) -> dict[str, PlayerName]:
    """Check the players' names and options, the files, and the game where no checkpoint tells it.

    Args:
        options: read from the command line.

    Returns:
        Players that are no checkpoints by the canonical spelling of their names, in the order of the command line; last
        the anchor of the ratings, where it was not named and is needed.

    Raises:
        ConfigError: with one line for each fault.
    """
    names, faults = _read_names(options)
    faults += [*_file_errors(options), *_folder_errors(options)]
    if not faults and not options.checkpoints and options.game is not None:
        spec = named_game(options.game)(1).spec
        faults += [*_player_errors(names, spec), *symmetry_errors(options, spec)]
    if faults:
        raise ConfigError(faults)
    return names


def named_game(name: str) -> GameFactory:
    """The game of an evaluation without a checkpoint.

    Args:
        name: see :func:`~keisei_lightning.games.game_factory`.

    Raises:
        ConfigError: there is none.
    """
    try:
        return game_factory(name)
    except ConfigError as error:
        raise ConfigError([f"game={name}: {' '.join(fault.split())}" for fault in error.faults]) from error


def symmetry_errors(options: Options, spec: GameSpec) -> Iterator[str]:
    """Whether the game has the symmetry that is asked for.

    Args:
        options: of the evaluation.
        spec: of its game.
    """
    if options.symmetric and not spec.symmetries:
        yield f"symmetric=true: must be false for {spec.name}, of which no symmetry is known"


def _read_names(options: Options) -> tuple[dict[str, PlayerName], list[str]]:
    names: dict[str, PlayerName] = {}
    faults: list[str] = []
    for text in options.opponents:
        if text.endswith(CHECKPOINT_SUFFIX):
            continue
        try:
            name = parse_player(text)
            player_options(name)
        except ConfigError as error:
            faults += [f"opponents: {fault}" for fault in error.faults]
            continue
        if name.text in names:
            faults.append(f"opponents: {name} plays more than once; must be there once")
        names[name.text] = name
    if options.round_robin and ANCHOR not in names:
        names[ANCHOR] = parse_player(ANCHOR)
    return names, faults


def _file_errors(options: Options) -> Iterator[str]:
    for number, path in enumerate(options.checkpoints):
        if not zipfile.is_zipfile(path):
            key = "checkpoint" if number == 0 and options.checkpoint is not None else "opponents"
            yield f"{key}={path}: cannot be read as a checkpoint (damaged or cut short: it is no zip file)"


def _folder_errors(options: Options) -> Iterator[str]:
    folder = None if options.output_dir is None else Path(options.output_dir)
    if folder is not None and (folder / "results.json").exists():
        yield f"output_dir={folder}: there are results in it; must be another folder"
    elif folder is not None and folder.exists() and not folder.is_dir():
        yield f"output_dir={folder}: must be a folder that can be written to (File exists)"


def _player_errors(names: dict[str, PlayerName], spec: GameSpec) -> Iterator[str]:
    """Make each player, which starts nothing, to see that it can play the game."""
    for name in names.values():
        try:
            with closing_player(make_player(name, spec)):
                pass
        except ConfigError as error:
            yield from (f"opponents: {fault}" for fault in error.faults)
