"""Encoders by name: ours, a program's, and those of other packages."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from installed_packages import installed
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameSpec
from keisei_lightning.models import Encoder, PlanesEncoder, build_encoder, build_network, register_encoder
from keisei_lightning.models.encoder import ENCODERS

SPEC = GameSpec(
    name="nibbles", num_actions=18, observation_shape=(9,), max_plies=9, encoding="nibbles", board_shape=(3, 3)
)


class NibblesEncoder(Encoder):
    """A byte for each square, one feature for each half of it."""

    def __init__(self) -> None:
        super().__init__(num_features=2, is_embedding=False)

    def forward(self, observation: Tensor) -> Tensor:
        return torch.stack([observation & 15, observation >> 4], dim=1).float().view(-1, 2, 3, 3)


def make_encoder(spec: GameSpec, *, num_features: int) -> NibblesEncoder:
    if spec.observation_shape != (9,):
        raise ConfigError(f"observation_shape={spec.observation_shape}: must be (9,)")
    return NibblesEncoder()


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENCODERS, "_registered", {})


@pytest.mark.parametrize("kind", ["mlp", "resnet"])
def test_a_program_brings_the_encoder_of_its_game(kind: str) -> None:
    register_encoder("nibbles", make_encoder)
    network = build_network(SPEC, kind=kind, num_blocks=1, channels=8)  # type: ignore[arg-type]
    observation = torch.randint(256, (5, 9), dtype=torch.uint8)
    logits, value = network(observation)
    assert (logits.shape, value.shape) == ((5, 18), (5, 1))
    encoded = network.encoder(observation)
    assert torch.equal(encoded[:, 0] + 16 * encoded[:, 1], observation.view(5, 3, 3).float())


def test_other_packages_bring_encoders_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, ENCODERS, EntryPoint("nibbles", f"{__name__}:make_encoder", ENCODERS.group))
    assert isinstance(build_encoder(SPEC, num_features=8), NibblesEncoder)


def test_an_encoder_that_does_not_fit_its_game_is_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        build_encoder(SPEC, num_features=8)
    assert caught.value.errors == (
        "spec.encoding='nibbles' of game 'nibbles': encoder nibbles: there is none; must be one of planes, shogi",
    )
    register_encoder("nibbles", make_encoder)
    wide = GameSpec(name="wide", num_actions=9, observation_shape=(10,), max_plies=9, encoding="nibbles")
    with pytest.raises(ConfigError, match=r"game 'wide': observation_shape=\(10,\): must be \(9,\)"):
        build_encoder(wide, num_features=8)
    register_encoder("nibbles", lambda spec, *, num_features: nn.Identity())  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="of game 'nibbles': makes a Identity; must make an Encoder"):
        build_encoder(SPEC, num_features=8)


def test_the_built_in_encoders_are_the_entry_points_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"][ENCODERS.group] == ENCODERS._built_in


@pytest.mark.parametrize(("by_square", "head"), [(True, "SquarePolicyHead"), (False, "LinearPolicyHead")])
def test_the_layout_of_the_actions_chooses_the_policy_head(by_square: bool, head: str) -> None:
    spec = GameSpec(
        name="planes",
        num_actions=18,
        observation_shape=(2, 3, 3),
        max_plies=9,
        board_shape=(3, 3),
        actions_by_square=by_square,
    )
    assert isinstance(build_encoder(spec, num_features=8), PlanesEncoder)
    network = build_network(spec, num_blocks=1, channels=8)
    assert type(network.policy_head).__name__ == head
    assert network(torch.zeros(2, 2, 3, 3, dtype=torch.uint8))[0].shape == (2, 18)
