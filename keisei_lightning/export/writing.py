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
from keisei_lightning.export.card import INPUTS, OUTPUTS, ExportCard, FileFacts, GameFacts, PolicyFacts
from keisei_lightning.export.comparison import compare
from keisei_lightning.export.formats import FILE_FORMATS, FileFormat
from keisei_lightning.export.origin import Origin
from keisei_lightning.export.target import LIBRARIES, Target
from keisei_lightning.games.protocol import GameSpec
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
    card = ExportCard(
        file=_file_facts(spec, target, how),
        game=_game_facts(spec, policy),
        policy=_policy_facts(checkpoint, policy),
        versions=_versions(target),
        date=time.strftime("%Y-%m-%d"),
    )
    try:
        exported = how.export(policy.actor_critic, spec)
    except ConfigError as error:
        raise ConfigError([f"ckpt_path={os.fspath(checkpoint)}: {line}" for line in error.errors]) from error
    # What is compared is the file itself, but for its card, which has the figures.
    content = how.to_bytes(exported, "")
    run = how.to_run(content, policy.actor_critic, card)
    comparison = compare(run, policy.actor_critic, policy.game, positions=positions, seed=seed, tolerance=tolerance)
    comparison.check()
    file = dataclasses.replace(card.file, digest=how.digest(content))
    card = dataclasses.replace(card, file=file, check=comparison.figures())
    text = card.to_json()
    target.write(how.to_bytes(exported, text), text)
    return card


def _policy_facts(checkpoint: str | os.PathLike[str], policy: LoadedPolicy) -> PolicyFacts:
    origin = Origin.of(checkpoint, policy)
    return PolicyFacts(
        checkpoint=os.fspath(checkpoint),
        model=dict(policy.recipe.model),
        parameters=num_parameters(policy.actor_critic),
        training=origin.training,
        rating=origin.rating,
    )


def _file_facts(spec: GameSpec, target: Target, how: FileFormat) -> FileFacts:
    inputs = _tensor("uint8", *spec.observation_shape), _tensor("bool", spec.num_actions)
    outputs = _tensor("float32", spec.num_actions), _tensor("float32")
    return FileFacts(
        kind=target.file_format,
        opset=how.opset,
        digest=None,
        inputs=dict(zip(INPUTS, inputs, strict=True)),
        outputs=dict(zip(OUTPUTS, outputs, strict=True)),
    )


def _game_facts(spec: GameSpec, policy: LoadedPolicy) -> GameFacts:
    return GameFacts(
        name=policy.recipe.game,
        options=dict(policy.recipe.game_options),
        encoding=spec.encoding,
        observation_shape=tuple(spec.observation_shape),
        num_actions=spec.num_actions,
    )


def _versions(target: Target) -> dict[str, str]:
    libraries = ("torch", "numpy", *LIBRARIES[target.file_format])
    ours = {"python": platform.python_version(), "keisei-lightning": __version__}
    return ours | {name: importlib.metadata.version(name) for name in libraries}


def _tensor(dtype: str, *shape: int) -> str:
    """As a person writes it, such as "uint8 [n, 98]"."""
    return f"{dtype} [{', '.join(['n', *map(str, shape)])}]"
