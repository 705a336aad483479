"""What a checkpoint says about itself: its game, and how game and network are made. No code in it is run.

Checksums are checked first (``integrity.py``), then torch reads with ``weights_only=True``. Torch, which takes seconds
to import, is imported only for a file that is whole: a corrupt one is refused without it.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.published import checkpoint_file
from keisei_lightning.training.integrity import checkpoint_files, corruption

__all__ = [
    "CHECKPOINT_FORMAT",
    "HEADER_KEY",
    "RECIPE_KEY",
    "CheckpointHeader",
    "Recipe",
    "check_checkpoint",
    "load_checked",
    "network_errors",
    "newest_checkpoint",
    "newest_whole_checkpoint",
    "read_checkpoint_header",
    "read_recipe",
    "refused_global",
]

log = logging.getLogger(__name__)

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
        epoch: PPO iterations done.
        is_weights_only: it holds no optimiser's state, so that no training can resume from it.
    """

    game: str
    num_actions: int
    observation_shape: tuple[int, ...]
    format: int = CHECKPOINT_FORMAT
    global_step: int = 0
    epoch: int = 0
    is_weights_only: bool = field(default=False, compare=False)

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
        try:
            return cls(
                game=str(header["game"]),
                num_actions=int(header["num_actions"]),
                observation_shape=tuple(int(n) for n in header["observation_shape"]),
                global_step=int(checkpoint.get("global_step", 0)),
                epoch=int(checkpoint.get("epoch", 0)),
                is_weights_only="state_dict" in checkpoint and "optimizer_states" not in checkpoint,
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = f"its {HEADER_KEY!r} entry has no game, num_actions or observation_shape"
            raise ConfigError(f"ckpt_path={path}: cannot be read as a checkpoint ({reason})") from error

    def check(self, spec: GameSpec, *, path: str) -> None:
        """Refuse a checkpoint of another game.

        Raises:
            ConfigError: name, number of actions or observation shape differ.
        """
        wanted = CheckpointHeader.of(spec)
        errors = [
            f"ckpt_path={path}: its {name} is {found}, this run's is {expected}"
            for name, found, expected in (
                ("game", self.game, wanted.game),
                ("num_actions", self.num_actions, wanted.num_actions),
                ("observation_shape", self.observation_shape, wanted.observation_shape),
            )
            if found != expected
        ]
        if errors:
            raise ConfigError(errors[0])  # one line is enough: where the game differs, the others usually do too


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What the game and the network of a checkpoint were made from.

    Attributes:
        game: name of the game, for :func:`~keisei_lightning.games.game_factory`.
        game_options: keyword arguments of the game's maker.
        model: section ``model`` of the run's configuration: ``_target_`` and its keyword arguments. It is what a
            file asks for; ``models/registry.py`` decides what a file may ask for.
    """

    game: str
    game_options: Mapping[str, Any]
    model: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Primitives only, as it is written under :data:`RECIPE_KEY`."""
        return {"env": {"game": self.game, "options": dict(self.game_options)}, "model": dict(self.model)}

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any], *, path: str) -> Recipe | None:
        """Read the recipe of a loaded checkpoint; None: it has none, as in version 0.1.

        Raises:
            ConfigError: there is one, but it is malformed.
        """
        recipe = checkpoint.get(RECIPE_KEY)
        if recipe is None:
            return None
        try:
            game, options, model = recipe["env"]["game"], recipe["env"]["options"], recipe["model"]
            if not isinstance(game, str):
                raise TypeError(f"env.game is a {type(game).__name__}")
            return cls(game=game, game_options=dict(options), model=dict(model))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"its {RECIPE_KEY!r} entry has no env.game, env.options or model"
            raise ConfigError(f"ckpt_path={path}: cannot be read as a checkpoint ({reason})") from error


def read_recipe(path: str | os.PathLike[str]) -> Recipe | None:
    """Read how a checkpoint's game and network are made, without running code from it.

    Args:
        path: a checkpoint file, or the name of a published policy.

    Returns:
        None where it has none (version 0.1).

    Raises:
        ConfigError: there is no such file, it cannot be read, or it is no checkpoint of this package.
    """
    checkpoint = _opened(path)
    CheckpointHeader.from_checkpoint(checkpoint, path=str(path))
    return Recipe.from_checkpoint(checkpoint, path=str(path))


def read_checkpoint_header(path: str | os.PathLike[str]) -> CheckpointHeader:
    """Read what a checkpoint says about itself, without running code from it and without loading its tensors.

    Args:
        path: a checkpoint file, or the name of a published policy.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it is no checkpoint of this package.
    """
    checkpoint = _opened(path)
    return CheckpointHeader.from_checkpoint(checkpoint, path=str(path))


def _opened(path: str | os.PathLike[str]) -> Any:
    """The content of a checkpoint, whose tensors are not read before they are used."""
    file = checkpoint_file(path)
    if not os.path.isfile(file):
        raise ConfigError(f"ckpt_path={path}: there is no such file")
    return load_checked(file, map_location="cpu", mmap=True)


def check_checkpoint(path: str | os.PathLike[str], spec: GameSpec) -> CheckpointHeader:
    """Read a checkpoint's header and refuse another game; meant to be called before anything is started.

    Args:
        path: a checkpoint file.
        spec: the game of this run.

    Raises:
        ConfigError: missing, unreadable, or of another game.
    """
    header = read_checkpoint_header(path)
    header.check(spec, path=str(path))
    return header


def newest_whole_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The checkpoint that ``ckpt_path=last`` means: the newest ``last.ckpt``, or the newest whole one before it.

    A checkpoint that is skipped is named in the log, with the reason and the one that is taken instead.

    Args:
        folder: of all runs of one name.

    Returns:
        None where there is no ``last.ckpt``.

    Raises:
        ConfigError: there are checkpoints, and none is whole.
    """
    found = newest_checkpoint(folder)
    return None if found is None else found[0]


def newest_checkpoint(folder: str | os.PathLike[str]) -> tuple[Path, CheckpointHeader] | None:
    """As :func:`newest_whole_checkpoint`, with the header of the file, which is read for the choice.

    Args:
        folder: of all runs of one name.

    Raises:
        ConfigError: there are checkpoints, and none is whole.
    """
    errors: list[str] = []
    for file in checkpoint_files(folder):
        try:
            header = read_checkpoint_header(file)
        except ConfigError as error:
            errors.append(error.errors[0].removeprefix("ckpt_path="))
            continue
        if errors:
            log.warning("ckpt_path=last: %s; resuming from %s (step %d)", "; ".join(errors), file, header.global_step)
        return file, header
    if errors:
        raise ConfigError(f"ckpt_path=last: none of the {len(errors)} checkpoints in {folder} can be read: {errors[0]}")
    return None


def network_errors(saved: Mapping[str, Any], wanted: Mapping[str, Any], *, path: str) -> Sequence[str]:
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


def load_checked(path: str | os.PathLike[str], *, map_location: Any, mmap: bool = False) -> Any:
    """Read a file whose checksums are right, without running code from it: the only way in which this package loads.

    Args:
        path: a checkpoint file.
        map_location: as for ``torch.load``.
        mmap: as for ``torch.load``: tensors are not read before they are used.

    Raises:
        ConfigError: it cannot be read so; one line.
    """
    if (problem := corruption(path)) is not None:
        raise ConfigError(f"ckpt_path={path}: cannot be read as a checkpoint ({problem})")
    import torch  # only now: a corrupt file is refused without it

    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        reason = f"weights_only=True refuses it: {refused_global(error)}, and reading that would run code"
        raise ConfigError(f"ckpt_path={path}: cannot be read as a checkpoint ({reason})") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"ckpt_path={path}: cannot be read as a checkpoint ({reason})") from error


def refused_global(error: pickle.UnpicklingError) -> str:
    """What torch refused to load, from its long message.

    Args:
        error: as ``torch.load(weights_only=True)`` raises it.
    """
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it holds {found[1]}" if found else "it holds more than primitives and tensors"
