"""Checkpoints that are whole or absent, name their game, and run no code when they are read.

Every load of the package goes through this file: checksums are compared first (see ``integrity.py``), then torch reads
with ``weights_only=True``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import CheckpointIO

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.stopping import temporary_file, unbroken
from keisei_lightning.training.integrity import damage, lock, remove_stale_temporaries, temporary_path

__all__ = [
    "CHECKPOINT_FORMAT",
    "HEADER_KEY",
    "RECIPE_KEY",
    "AtomicCheckpointIO",
    "CheckpointHeader",
    "Recipe",
    "check_checkpoint",
    "network_faults",
    "read_checkpoint_header",
    "read_recipe",
]

CHECKPOINT_FORMAT = 1
"""Number of the present layout of a checkpoint's header."""

HEADER_KEY = "keisei"
"""Where a Lightning checkpoint keeps the header."""

RECIPE_KEY = "keisei_recipe"
"""Where a checkpoint says how its game and its network are made: ``{"env": {"game", "options"}, "model": {...}}``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointHeader:
    """What a checkpoint says about itself.

    Attributes:
        game: the game's name.
        num_actions: A, the number of action labels.
        observation_shape: shape of one observation.
        format: layout of this header.
        global_step: optimiser steps done.
    """

    game: str
    num_actions: int
    observation_shape: tuple[int, ...]
    format: int = CHECKPOINT_FORMAT
    global_step: int = 0

    @classmethod
    def of(cls, spec: GameSpec) -> CheckpointHeader:
        """The header that a checkpoint of this game has."""
        return cls(game=spec.name, num_actions=spec.num_actions, observation_shape=tuple(spec.observation_shape))

    def to_dict(self) -> dict[str, Any]:
        """Primitives only, as it is written under :data:`HEADER_KEY`; the steps are Lightning's own entry."""
        return {
            "game": self.game,
            "num_actions": self.num_actions,
            "observation_shape": list(self.observation_shape),
            "format": self.format,
        }

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any], *, path: str) -> CheckpointHeader:
        """Read the header of a loaded checkpoint.

        Raises:
            ConfigError: it has none, or one of another format.
        """
        header = checkpoint.get(HEADER_KEY) if isinstance(checkpoint, Mapping) else None
        if not isinstance(header, Mapping):
            raise ConfigError(f"ckpt_path={path}: no checkpoint of keisei-lightning (it has no {HEADER_KEY!r} entry)")
        if header.get("format") != CHECKPOINT_FORMAT:
            raise ConfigError(
                f"ckpt_path={path}: its format is {header.get('format')}, this version reads format {CHECKPOINT_FORMAT}"
            )
        return cls(
            game=str(header["game"]),
            num_actions=int(header["num_actions"]),
            observation_shape=tuple(int(n) for n in header["observation_shape"]),
            global_step=int(checkpoint.get("global_step", 0)),
        )

    def check(self, spec: GameSpec, *, path: str) -> None:
        """Refuse a checkpoint of another game.

        Raises:
            ConfigError: name, number of actions or observation shape differ.
        """
        wanted = CheckpointHeader.of(spec)
        faults = [
            f"ckpt_path={path}: its {name} is {found}, this run's is {expected}"
            for name, found, expected in (
                ("game", self.game, wanted.game),
                ("num_actions", self.num_actions, wanted.num_actions),
                ("observation_shape", self.observation_shape, wanted.observation_shape),
            )
            if found != expected
        ]
        if faults:
            # One line is enough: with another game the other two differ as a matter of course.
            raise ConfigError(faults[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What the game and the network of a checkpoint were made from.

    Attributes:
        game: name of the game, for :func:`~keisei_lightning.games.game_factory`.
        game_options: keyword arguments of the game's maker.
        model: section ``model`` of the run's configuration: ``_target_`` and its keyword arguments. It says what a
            file wants to be called: nobody may call a ``_target_`` that is not ours because a file says so.
    """

    game: str
    game_options: Mapping[str, Any]
    model: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Primitives only, as it is written under :data:`RECIPE_KEY`."""
        return {"env": {"game": self.game, "options": dict(self.game_options)}, "model": dict(self.model)}

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any], *, path: str) -> Recipe | None:
        """Read the recipe of a loaded checkpoint; None: it has none, as those of version 0.1.

        Raises:
            ConfigError: there is one, but it is of another shape.
        """
        recipe = checkpoint.get(RECIPE_KEY)
        if recipe is None:
            return None
        try:
            game, options, model = recipe["env"]["game"], recipe["env"]["options"], recipe["model"]
            return cls(game=str(game), game_options=dict(options), model=dict(model))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"its {RECIPE_KEY!r} entry has no env.game, env.options or model"
            raise ConfigError(f"ckpt_path={path}: cannot be read as a checkpoint ({reason})") from error


def read_recipe(path: str | os.PathLike[str]) -> Recipe | None:
    """Read what a checkpoint's game and network are made from, without running code from it.

    Args:
        path: a checkpoint file.

    Returns:
        None where it has none (version 0.1).

    Raises:
        ConfigError: there is no such file, it cannot be read, or it is no checkpoint of this package.
    """
    if not Path(path).is_file():
        raise ConfigError(f"ckpt_path={path}: there is no such file")
    checkpoint = _load(path, map_location="cpu", mmap=True)
    CheckpointHeader.from_checkpoint(checkpoint, path=str(path))
    return Recipe.from_checkpoint(checkpoint, path=str(path))


def read_checkpoint_header(path: str | os.PathLike[str]) -> CheckpointHeader:
    """Read what a checkpoint says about itself, without running code from it and without loading its tensors.

    Args:
        path: a checkpoint file.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it is no checkpoint of this package.
    """
    if not Path(path).is_file():
        raise ConfigError(f"ckpt_path={path}: there is no such file")
    checkpoint = _load(path, map_location="cpu", mmap=True)
    return CheckpointHeader.from_checkpoint(checkpoint, path=str(path))


def check_checkpoint(path: str | os.PathLike[str], spec: GameSpec) -> CheckpointHeader:
    """Read a checkpoint's header and refuse one of another game; meant to run before anything is started.

    Args:
        path: a checkpoint file.
        spec: the game of this run.

    Raises:
        ConfigError: missing, unreadable, or of another game.
    """
    header = read_checkpoint_header(path)
    header.check(spec, path=str(path))
    return header


def network_faults(saved: Mapping[str, Any], wanted: Mapping[str, Any], *, path: str) -> Sequence[str]:
    """Where the weights of a checkpoint do not fit a network: at most one line.

    Args:
        saved: state dictionary of the checkpoint.
        wanted: state dictionary of the network that is to take it.
        path: for the message.
    """
    for name in sorted(saved.keys() ^ wanted.keys()):
        where = "only in the checkpoint" if name in saved else "not in the checkpoint"
        return [
            f"ckpt_path={path}: another network's checkpoint ({name} is {where}); use the model it was trained with"
        ]
    for name, weight in wanted.items():
        found, expected = (tuple(getattr(value, "shape", ())) for value in (saved[name], weight))
        if found != expected:
            return [
                f"ckpt_path={path}: another network's checkpoint ({name} is {list(found)}, here {list(expected)}); "
                "use the model it was trained with"
            ]
    return []


class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint beside its target, reads it back, then renames it: a reader sees the old file or the new one.

    Lightning's own swallows a permission error and returns as if it had saved, and moves its temporary file across file
    systems, which is a plain copy. Here every error is raised, and no temporary file is left behind; what a process
    that was killed in a save has left is deleted by the next save into that folder.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to ``path``, and have it on the disk when this returns.

        Raises:
            OSError: it cannot be written, or not be read back; an older file at ``path`` is as it was.
            TypeError: it holds something that could not be read back without running code; or ``storage_options``,
                which are not supported.
        """
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO has no storage_options")
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_stale_temporaries(target.parent)
            with unbroken(), temporary_file(temporary_path(target)) as temporary, temporary.open("wb") as file:
                lock(file)
                _write(checkpoint, file)
                _check_written(temporary, target)
                os.replace(temporary, target)
        except OSError as error:
            raise type(error)(error.errno, f"{error.strerror} (the checkpoint was not saved)", str(target)) from error
        _sync_directory(target.parent)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Callable[[Any, Any], Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint; no code in it is run.

        Raises:
            FileNotFoundError: there is no such file.
            ConfigError: it is damaged, or holds more than primitives and tensors.
            ValueError: ``weights_only=False``, which would run code from the file.
        """
        if weights_only is False:
            raise ValueError(f"weights_only=False: refused for {path}, it would run code from the file; leave it out")
        if not Path(path).is_file():
            raise FileNotFoundError(f"checkpoint file not found: {path}")
        loaded: dict[str, Any] = _load(path, map_location=map_location)
        return loaded

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)


def _load(path: str | os.PathLike[str], *, map_location: Any, mmap: bool = False) -> Any:
    """Read a file whose checksums are right, without running code from it.

    Raises:
        ConfigError: it cannot be read so; one line.
    """
    if (fault := damage(path)) is not None:
        raise ConfigError(f"ckpt_path={path}: cannot be read as a checkpoint ({fault})")
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        reason = f"weights_only=True refuses it: {_refused_global(error)}, and reading that would run code"
        raise ConfigError(f"ckpt_path={path}: cannot be read as a checkpoint ({reason})") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"ckpt_path={path}: cannot be read as a checkpoint ({reason})") from error


def _refused_global(error: pickle.UnpicklingError) -> str:
    """What torch would not load, from its page of advice."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it holds {found[1]}" if found else "it holds more than primitives and tensors"


class _Noting:
    """A file as torch writes it, which keeps the error of a failed write: torch tells only of a wrong position."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _write(checkpoint: dict[str, Any], file: IO[bytes]) -> None:
    """Write all of it to the disk.

    Raises:
        OSError: the disk is full, say.
    """
    noting = _Noting(file)
    try:
        torch.save(checkpoint, noting)  # type: ignore[arg-type]  # it writes, and that is all torch asks for
        file.flush()
        os.fsync(file.fileno())
    except RuntimeError as error:
        if noting.error is None:
            raise
        raise noting.error from error


def _check_written(temporary: Path, target: Path) -> None:
    """Read back what was written: an unreadable checkpoint must be known now, not when it is needed."""
    if (fault := damage(temporary)) is not None:
        raise OSError(errno.EIO, f"what was written cannot be read back, it is {fault}")
    try:
        torch.load(temporary, map_location="cpu", weights_only=True, mmap=True)  # mapped: no weight is read twice
    except pickle.UnpicklingError as error:
        raise TypeError(
            f"{target}: the checkpoint was not saved, since it could not be loaded again: {_refused_global(error)}; "
            "states must be made of numbers, strings, lists, dictionaries and tensors"
        ) from error


def _sync_directory(directory: Path) -> None:
    """Put a rename on the disk, where the system can (POSIX)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
