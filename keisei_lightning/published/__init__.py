"""Trained policies that come with the package, as data: ``published:NAME`` is read wherever a checkpoint is.

Beside this module lie two files for each policy: ``NAME.ckpt``, a checkpoint that holds weights alone, in few bits
(:mod:`keisei_lightning.training.saved_weights`), and ``NAME.json``, its card: the command, the seed, the machine and
the minutes that made it, and the strength that was measured. They are read as anybody's checkpoint is: checksums first,
then primitives and tensors, and no code. ``tests/publish.py`` writes both. Needs no torch.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any, Final

from keisei_lightning.errors import ConfigError

__all__ = [
    "PREFIX",
    "checkpoint_error",
    "checkpoint_file",
    "is_checkpoint",
    "is_published",
    "published_card",
    "published_names",
]

PREFIX: Final = "published:"
"""What the name of a published policy begins with; a file that is called so is ``./published:NAME``."""

_CHECKPOINT_SUFFIX: Final = ".ckpt"
_FOLDER: Final = Path(__file__).parent


def published_names() -> list[str]:
    """Names of the policies that come with the package, sorted, without :data:`PREFIX`."""
    return sorted(file.stem for file in _FOLDER.glob("*.ckpt"))


def is_published(path: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint's name is that of a published policy, known or not.

    Args:
        path: where a checkpoint file can be named.
    """
    return os.fspath(path).startswith(PREFIX)


def is_checkpoint(player: str) -> bool:
    """Whether a player is a checkpoint, by file or as a published policy, and not a player by name.

    Args:
        player: as it was typed.
    """
    return player.endswith(_CHECKPOINT_SUFFIX) or is_published(player)


def checkpoint_file(path: str | os.PathLike[str]) -> Path:
    """The file that a checkpoint's name means.

    Args:
        path: ``published:NAME``, or the path of a file, which need not be there.

    Raises:
        ConfigError: no published policy is called so.
    """
    if not is_published(path):
        return Path(path)
    name = os.fspath(path).removeprefix(PREFIX)
    if name not in published_names():
        known = ", ".join(PREFIX + each for each in published_names())
        raise ConfigError(f"ckpt_path={os.fspath(path)}: there is no such published policy; must be one of {known}")
    return _FOLDER / f"{name}.ckpt"


def checkpoint_error(path: str) -> str | None:
    """Why a checkpoint cannot be read, as far as its first bytes tell; None: it may be one.

    Args:
        path: see :func:`checkpoint_file`.
    """
    try:
        file = checkpoint_file(path)
    except ConfigError as error:
        return error.errors[0].removeprefix(f"ckpt_path={path}: ")
    if not os.path.isfile(file):  # which also tells a name that is too long
        return "there is no such file; must be a checkpoint file"
    if not zipfile.is_zipfile(file):
        return "cannot be read as a checkpoint (corrupt or truncated: it is no zip file)"
    return None


def published_card(name: str) -> dict[str, Any]:
    """What made a published policy, and how strong it is.

    Args:
        name: of :func:`published_names`.

    Returns:
        ``name``, ``game``, ``model``, ``parameters``, ``licence``; ``training``: the command with its seed, plies,
        minutes, machine and versions; ``compact``: how far the published weights play as the trained ones do;
        ``strength``: matches and exact measures, with 95 % intervals.

    Raises:
        ConfigError: there is none of this name.
    """
    file = checkpoint_file(PREFIX + name).with_suffix(".json")
    card: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return card
