"""What is known of a checkpoint's training, for the card: from a published policy's card, or from the run's records.

Both are data, and for people: nothing that they say is acted on.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from keisei_lightning.policies import LoadedPolicy
from keisei_lightning.published import PREFIX, is_published, published_card
from keisei_lightning.training.checkpoint_header import load_checked
from keisei_lightning.training.report import HISTORY_KEY

__all__ = ["Origin"]

_FROM_CARDS: Final = ("plies", "minutes", "seed", "command")


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a policy is from.

    Attributes:
        training: ``global_step`` and ``epochs``, and where known ``plies``, ``minutes``, ``seed`` and ``command``.
        rating: ``value``, ``low`` and ``high`` in Elo points; None: it was not rated.
    """

    training: Mapping[str, Any]
    rating: Mapping[str, Any] | None

    @classmethod
    def of(cls, path: str | os.PathLike[str], policy: LoadedPolicy) -> Origin:
        """Read what is known.

        Args:
            path: of the checkpoint, or the name of a published policy.
            policy: as it was loaded from there.
        """
        position = {"global_step": policy.header.global_step, "epochs": policy.header.epoch}
        if is_published(path):
            card = published_card(os.fspath(path).removeprefix(PREFIX))
            training = {name: card["training"][name] for name in _FROM_CARDS if name in card["training"]}
            return cls(training=position | training, rating=card["strength"].get("rating"))
        history = load_checked(path, map_location="cpu", mmap=True).get(HISTORY_KEY)
        rows = [row for row in history if isinstance(row, Mapping)] if isinstance(history, list) else []
        last = rows[-1] if rows else {}
        found = {"plies": _number(last.get("self_play/plies")), "minutes": _number(last.get("minutes"))}
        known = {name: value for name, value in found.items() if value is not None}
        return cls(training=position | known | _command_of(Path(path)), rating=_rating_of(rows))


def _rating_of(rows: list[Mapping[str, Any]]) -> dict[str, float] | None:
    """The last rating that a run's evaluations gave."""
    for row in reversed(rows):
        if (value := _number(row.get("eval/rating"))) is not None:
            ends = {end: _number(row.get(f"eval/rating_{end}")) for end in ("low", "high")}
            return {"value": value, **{end: bound for end, bound in ends.items() if bound is not None}}
    return None


def _number(value: object) -> float | int | None:
    """A finite number of a file, a whole one as such; None: it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value == int(value) else round(value, 2)


def _command_of(checkpoint: Path) -> dict[str, Any]:
    """The command and the seed of the run in whose folder a checkpoint lies, where its records are there."""
    records = checkpoint.absolute().parent.parent / ".hydra"
    overrides = _yaml(records / "overrides.yaml")
    configuration = _yaml(records / "config.yaml")
    found: dict[str, Any] = {}
    if isinstance(configuration, dict) and (seed := _number(configuration.get("seed"))) is not None:
        found["seed"] = seed
    if isinstance(overrides, list) and all(isinstance(word, str) for word in overrides):
        found["command"] = shlex.join(["keisei", "train", *overrides])
    return found


def _yaml(path: Path) -> Any:
    """The content of a file, as plain data; None where there is none that can be read: a card does without."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
