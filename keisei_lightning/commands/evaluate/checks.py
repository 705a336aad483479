"""Checks of what ``keisei eval`` was asked for that need no network: nobody waits for torch to be told no."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Iterator

from keisei_lightning.commands.evaluate.options import EvalOptions
from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.registry import PlayerName, parse_player, player_errors
from keisei_lightning.games import GameFactory, GameSpec, game_factory
from keisei_lightning.published import checkpoint_file, is_checkpoint
from keisei_lightning.system.paths import path_errors

__all__ = ["ANCHOR", "check_options", "checkpoint_key", "named_game", "symmetry_errors"]

ANCHOR = "random"
"""The player whose rating is 0."""


def check_options(options: EvalOptions) -> dict[str, PlayerName]:
    """Check what goes together, the players' names and options, the files, and the game where no checkpoint tells it.

    Args:
        options: read from the command line.

    Returns:
        Players that are no checkpoints by the canonical spelling of their names, in the order of the command line; last
        the anchor of the ratings, where it was not named and is needed.

    Raises:
        ConfigError: with one line for each error.
    """
    errors = [*_do_not_go_together(options), *_file_errors(options), *_folder_errors(options)]
    spec = None
    if not errors and options.game is not None:
        spec = named_game(options.game)(1).spec
        errors += symmetry_errors(options, spec)
    texts = [text for text in options.opponents if not is_checkpoint(text)]
    unplayable = list(player_errors("opponents", texts, spec))
    names = [] if unplayable else [parse_player(text) for text in texts]
    errors += unplayable
    counts = Counter([*options.checkpoints, *(name.text for name in names)])
    errors += [f"opponents: {name} plays more than once; must be there once" for name in counts if counts[name] > 1]
    if errors:
        raise ConfigError(errors)
    players = {name.text: name for name in names}
    if options.round_robin:
        players.setdefault(ANCHOR, parse_player(ANCHOR))
    return players


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
        raise ConfigError([f"game={name}: {' '.join(line.split())}" for line in error.errors]) from error


def symmetry_errors(options: EvalOptions, spec: GameSpec) -> Iterator[str]:
    """Whether the game has the symmetry that is asked for.

    Args:
        options: of the evaluation.
        spec: of its game.
    """
    if options.symmetric and not spec.symmetries:
        yield f"symmetric=true: must be false for {spec.name}, of which no symmetry is known"


def _do_not_go_together(options: EvalOptions) -> Iterator[str]:
    if options.greedy and options.temperature != 1.0:
        yield f"temperature={options.temperature}: must be 1 with greedy=true (nothing is sampled); add greedy=false"
    if options.simulations and not options.greedy:
        yield f"simulations={options.simulations}: must be 0 with greedy=false (a search samples nothing)"
    if options.animations and not options.records:
        yield f"animations={options.animations}: must be 0 with records=false (no game is kept)"
    if options.checkpoint is None and not options.round_robin:
        yield "checkpoint: is missing; must be a checkpoint file (without one only round_robin=true plays)"
    if options.checkpoints and options.game is not None:
        yield f"game={options.game}: must be null where there is a checkpoint, which tells its own game"
    if not options.checkpoints and options.game is None and options.round_robin:
        yield "game: is missing; must be the name of a game where there is no checkpoint"


def _file_errors(options: EvalOptions) -> Iterator[str]:
    for path in dict.fromkeys(options.checkpoints):
        key = checkpoint_key(options, path)
        try:
            file = checkpoint_file(path)
        except ConfigError as error:
            yield error.errors[0].replace("ckpt_path=", f"{key}=", 1)
            continue
        if not os.path.isfile(file):  # which also tells a name that is too long
            yield f"{key}={path}: there is no such file; must be a checkpoint file"
        elif not zipfile.is_zipfile(file):
            yield f"{key}={path}: cannot be read as a checkpoint (corrupt or truncated: it is no zip file)"


def checkpoint_key(options: EvalOptions, path: str) -> str:
    """The key that a checkpoint was given by.

    Args:
        options: of the evaluation.
        path: one of its checkpoints.
    """
    return "checkpoint" if path == options.checkpoint else "opponents"


def _folder_errors(options: EvalOptions) -> Iterator[str]:
    if options.output_dir is not None:
        yield from path_errors("output_dir", options.output_dir)
        if os.path.isfile(os.path.join(options.output_dir, "results.json")):
            yield f"output_dir={options.output_dir}: there are results in it; must be another folder"
