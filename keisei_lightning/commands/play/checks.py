"""Checks of what ``keisei play`` was asked for that need no network: nobody waits for torch to be told no."""

from __future__ import annotations

import os
from collections.abc import Iterator

from keisei_lightning.commands.play.options import PlayOptions
from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.registry import player_errors
from keisei_lightning.games import GameFactory, game_factory
from keisei_lightning.published import checkpoint_error
from keisei_lightning.system.paths import one_line

__all__ = ["check_options", "named_game"]

_MODEL = ".onnx"


def check_options(options: PlayOptions) -> None:
    """Check what goes together, the files, and the opponent's name and options.

    Args:
        options: read from the command line.

    Raises:
        ConfigError: with one line for each error.
    """
    errors = [*_do_not_go_together(options), *_file_errors(options)]
    if options.opponent is not None:
        errors += player_errors("opponent", [options.opponent], None)
    if errors:
        raise ConfigError(errors)


def named_game(name: str, *, key: str = "game") -> GameFactory:
    """A game by its name.

    Args:
        name: see :func:`~keisei_lightning.games.game_factory`.
        key: of the option that has it, for messages.

    Raises:
        ConfigError: there is none.
    """
    try:
        return game_factory(name)
    except ConfigError as error:
        raise ConfigError([f"{key}={one_line(name)}: {' '.join(line.split())}" for line in error.errors]) from error


def _do_not_go_together(options: PlayOptions) -> Iterator[str]:
    if options.checkpoint is not None and options.game is not None:
        yield f"game={options.game}: must be null where there is a checkpoint, which tells its own game"
    if options.checkpoint is not None and options.checkpoint.endswith(_MODEL) and options.device not in ("auto", "cpu"):
        yield f"device={options.device}: must be auto or cpu with a model ({_MODEL}), which is evaluated on the CPU"
    if options.opponent is not None and options.side == "both":
        yield f"opponent={options.opponent}: must be null with side=both, where two persons play"
    if options.load is not None and options.position is not None:
        yield f"position={one_line(options.position)}: must be null with load, whose game has its own start"


def _file_errors(options: PlayOptions) -> Iterator[str]:
    if options.checkpoint is not None:
        if options.checkpoint.endswith(_MODEL):
            if not os.path.isfile(options.checkpoint):
                yield f"checkpoint={one_line(options.checkpoint)}: there is no such file; must be an exported model"
        elif reason := checkpoint_error(options.checkpoint):
            yield f"checkpoint={one_line(options.checkpoint)}: {reason}"
    if options.save is not None and options.save != options.load and os.path.lexists(options.save):
        yield f"save={one_line(options.save)}: is there already; must be a new file (load={options.save} continues it)"
