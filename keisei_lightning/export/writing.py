"""Export a checkpoint's policy: made, compared with the module on real positions, and only then written."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping
from typing import Any

from keisei_lightning import __version__
from keisei_lightning.errors import ConfigError
from keisei_lightning.export.card import CARD_FORMAT, INPUTS, OUTPUTS, ExportCard
from keisei_lightning.export.comparison import compare
from keisei_lightning.export.formats import FILE_FORMATS, FileFormat
from keisei_lightning.export.origin import Origin
from keisei_lightning.export.target import LIBRARIES, Target
from keisei_lightning.models import num_parameters
from keisei_lightning.policies import LoadedPolicy, load_policy

__all__ = ["export_policy"]


def export_policy(
    checkpoint: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    file_format: str | None = None,
    positions: int = 1000,
    tolerance: float = 1e-4,
    seed: int = 0,
    model: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> ExportCard:
    """Write a policy for other programs, with its card inside and beside it.

    Args:
        checkpoint: a checkpoint file, or the name of a published policy, such as ``"published:shogi"``.
        to: the file to write.
        file_format: ``"onnx"``, ``"torch_export"`` or ``"safetensors"``; None: as the suffix says.
        positions: of random games, on which the file is compared with the module, 1 or more.
        tolerance: the largest difference of a log-probability or a value that is taken.
        seed: of these games.
        model: the network, where the checkpoint does not tell it; see :func:`~keisei_lightning.policies.load_policy`.
        overwrite: the file may be there already, and is replaced.

    Returns:
        The card.

    Raises:
        ConfigError: the checkpoint cannot be loaded, its network cannot be exported, or the file cannot be made.
        KeiseiError: the file does not compute what the module does.
        OSError: it cannot be written.
    """
    target = Target.of(to, file_format, overwrite=overwrite)
    policy = load_policy(checkpoint, model)
    spec, how = policy.game(1).spec, FILE_FORMATS[target.file_format]
    card = _card_of(policy, Origin.of(checkpoint, policy), os.fspath(checkpoint), target, how)
    try:
        exported = how.export(policy.actor_critic, spec)
    except ConfigError as error:
        raise ConfigError([f"ckpt_path={os.fspath(checkpoint)}: {line}" for line in error.errors]) from error
    # What is compared is the file itself, but for its card, which has the figures.
    content = how.to_bytes(exported, "")
    run = how.to_run(content, policy.actor_critic, card)
    comparison = compare(run, policy.actor_critic, policy.game, positions=positions, seed=seed, tolerance=tolerance)
    comparison.check()
    card = dataclasses.replace(card, digest=how.digest(content), check=comparison.figures())
    text = card.to_json()
    target.write(how.to_bytes(exported, text), text)
    return card


def _card_of(policy: LoadedPolicy, origin: Origin, checkpoint: str, target: Target, how: FileFormat) -> ExportCard:
    """All of a card but what the comparison finds."""
    spec, recipe = policy.game(1).spec, policy.recipe
    actions = spec.num_actions
    libraries = ("torch", "numpy", *LIBRARIES[target.file_format])
    return ExportCard(
        format=CARD_FORMAT,
        file_format=target.file_format,
        game=recipe.game,
        game_options=dict(recipe.game_options),
        encoding=spec.encoding,
        observation_shape=tuple(spec.observation_shape),
        num_actions=actions,
        checkpoint=checkpoint,
        model=dict(recipe.model),
        parameters=num_parameters(policy.actor_critic),
        training=origin.training,
        rating=origin.rating,
        opset=how.opset,
        inputs=dict(zip(INPUTS, (_tensor("uint8", *spec.observation_shape), _tensor("bool", actions)), strict=True)),
        outputs=dict(zip(OUTPUTS, (_tensor("float32", actions), _tensor("float32")), strict=True)),
        versions={
            "python": platform.python_version(),
            "keisei-lightning": __version__,
            **{name: importlib.metadata.version(name) for name in libraries},
        },
        date=time.strftime("%Y-%m-%d"),
    )


def _tensor(dtype: str, *shape: int) -> str:
    """As a person writes it, such as "uint8 [n, 98]"."""
    return f"{dtype} [{', '.join(['n', *map(str, shape)])}]"
