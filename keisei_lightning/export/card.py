"""What an exported file says about itself: its game, what goes in and comes out, where it is from. Needs no torch.

A card may come from anybody. What a program acts on is checked when it is read, and its game is made only from a
registered name with plain options; the rest is for people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameFactory, GameSpec
from keisei_lightning.training.recorded_game import make_recorded_game

__all__ = [
    "CARD_FORMAT",
    "CARD_KEY",
    "INPUTS",
    "OUTPUTS",
    "ExportCard",
    "ExportFormat",
    "FileFacts",
    "GameFacts",
    "PolicyFacts",
]

ExportFormat = Literal["onnx", "torch_export", "safetensors"]

CARD_FORMAT: Final = 1
"""Number of the present layout of a card."""

CARD_KEY: Final = "keisei_card"
"""Under which the card stands in the metadata of an exported file."""

INPUTS: Final = ("observation", "legal")
"""Names of what goes in: uint8 [n, *observation_shape] and bool [n, A]."""

OUTPUTS: Final = ("log_probs", "values")
"""Names of what comes out: float32 [n, A], -inf where a move is not legal, and float32 [n], in the mover's view."""


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What a card says about its file.

    Attributes:
        kind: ``"onnx"``, ``"torch_export"`` or ``"safetensors"``.
        opset: of the ONNX operators; None: it is no ONNX file.
        digest: SHA-256 of an ONNX file without its metadata, in hexadecimal digits; None: of another one.
        inputs: what goes in, in words, by name.
        outputs: what comes out, in words, by name.
    """

    kind: ExportFormat
    opset: int | None
    digest: str | None
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class GameFacts:
    """What a card says about its game.

    Attributes:
        name: for :func:`~keisei_lightning.games.game_factory`.
        options: keyword arguments of the game's maker.
        encoding: name of the encoder, which is inside of the graph.
        observation_shape: of one observation.
        num_actions: A.
    """

    name: str
    options: Mapping[str, Any]
    encoding: str
    observation_shape: tuple[int, ...]
    num_actions: int

    def make(self, *, path: str) -> tuple[GameFactory, GameSpec]:
        """Make the game: one that is registered here, with plain options.

        Args:
            path: of the file, for the message.

        Returns:
            What makes its boards, and its specification.

        Raises:
            ConfigError: there is no such game, it cannot be made, or it has other observations or actions.
        """
        game, spec = make_recorded_game(self.name, self.options, key=f"model={path}")
        for name, found, expected in (
            ("encoding", self.encoding, spec.encoding),
            ("observation_shape", self.observation_shape, tuple(spec.observation_shape)),
            ("num_actions", self.num_actions, spec.num_actions),
        ):
            if found != expected:
                raise ConfigError(f"model={path}: its {name} is {found}, the game's is {expected}")
        return game, spec


@dataclass(frozen=True, kw_only=True)
class PolicyFacts:
    """What a card says about its policy.

    Attributes:
        checkpoint: what was exported: a file, or the name of a published policy.
        model: what the network was made from.
        parameters: how many numbers it has learned.
        training: what is known of its training: ``global_step`` and ``epochs``, and where known ``plies``,
            ``minutes``, ``seed`` and ``command``.
        rating: in Elo points, where the checkpoint has one.
    """

    checkpoint: str
    model: Mapping[str, Any]
    parameters: int
    training: Mapping[str, Any]
    rating: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class ExportCard:
    """What an exported file says about itself.

    Attributes:
        file: about the file.
        game: about the game.
        policy: about the policy.
        check: the comparison of the file's own outputs with the module's, as figures.
        versions: of the libraries that wrote the file.
        date: of the export.
        format: layout of this card.
    """

    file: FileFacts
    game: GameFacts
    policy: PolicyFacts
    check: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    format: int = CARD_FORMAT

    def to_json(self) -> str:
        """As it is written."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, *, path: str) -> ExportCard:
        """Read a card, whoever wrote it.

        Args:
            text: as it is in the file.
            path: of the file, for the message.

        Raises:
            ConfigError: it is no card of this layout.
        """
        try:
            card = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _unreadable(path, f"its card is no JSON: {error}") from error
        if not isinstance(card, dict):
            raise _unreadable(path, "its card is no dictionary")
        if card.get("format") != CARD_FORMAT:
            reason = f"its card has format {card.get('format')}, this version reads format {CARD_FORMAT}"
            raise _unreadable(path, reason)
        _check_kinds(card, _CARD_KINDS, "", path)
        for section, kinds in _SECTION_KINDS.items():
            _check_kinds(card[section], kinds, f"{section}.", path)
        file, game, policy = (
            {name: card[section][name] for name in kinds} for section, kinds in _SECTION_KINDS.items()
        )
        shape = game["observation_shape"]
        if not shape or not all(type(size) is int and size > 0 for size in shape):
            raise _unreadable(path, "game.observation_shape of its card is no list of sizes")
        return cls(
            file=FileFacts(**file),
            game=GameFacts(**{**game, "observation_shape": tuple(shape)}),
            policy=PolicyFacts(**policy),
            **{name: card[name] for name in ("check", "versions", "date")},
        )


_CARD_KINDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("file", "game", "policy", "check", "versions"), dict),
    "date": str,
}
_SECTION_KINDS: Final[dict[str, dict[str, Any]]] = {
    "file": {"kind": str, "opset": int | None, "digest": str | None, "inputs": dict, "outputs": dict},
    "game": {"name": str, "options": dict, "encoding": str, "observation_shape": list, "num_actions": int},
    "policy": {"checkpoint": str, "model": dict, "parameters": int, "training": dict, "rating": dict | None},
}


def _check_kinds(values: Mapping[str, Any], kinds: Mapping[str, Any], section: str, path: str) -> None:
    """Refuse values of other types.

    Raises:
        ConfigError: for the first one.
    """
    for name, kind in kinds.items():
        value = values.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _unreadable(path, f"{section}{name} of its card is of type {type(value).__name__}")


def _unreadable(path: str, reason: str) -> ConfigError:
    return ConfigError(f"model={path}: cannot be read as an exported policy ({' '.join(reason.split())})")
