"""A network that evaluates a position and its mirror image alike, whatever its weights are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import game_factory
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.models import ActorCritic, build_network, num_parameters
from keisei_lightning.models.equivariance import board_flip

GAMES = ["tic_tac_toe", "connect_four", "breakthrough", "shogi"]


def spec_of(game: str) -> GameSpec:
    return game_factory(game)(1).spec


def opinionated(spec: GameSpec, *, equivariant: bool, num_blocks: int = 2) -> nn.Module:
    torch.manual_seed(7)
    network = build_network(spec, kind="resnet", num_blocks=num_blocks, channels=8, equivariant=equivariant)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def positions(game: str, num_games: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Observations of games after different numbers of random plies, and their mirror images."""
    boards = game_factory(game, opening_plies=30)(num_games)
    boards.seed(5)
    boards.reset(None)
    spec = boards.spec
    observation = np.zeros((num_games, *spec.observation_shape), np.uint8)
    boards.observe(observation, np.zeros((num_games, spec.mask_bytes), np.uint8), np.zeros(num_games, np.int8))
    mirrored = observation.reshape(num_games, -1)[:, spec.symmetries[0].observation_index].reshape(observation.shape)
    return torch.from_numpy(observation), torch.from_numpy(mirrored)


@pytest.mark.parametrize("game", GAMES)
def test_the_mirror_image_gets_the_same_value_and_the_mirrored_logits(game: str) -> None:
    spec = spec_of(game)
    observation, mirrored = positions(game)
    with torch.no_grad():
        logits, value = opinionated(spec, equivariant=True)(observation)
        mirrored_logits, mirrored_value = opinionated(spec, equivariant=True)(mirrored)
        plain_logits, _ = opinionated(spec, equivariant=False)(observation)
        plain_mirrored, _ = opinionated(spec, equivariant=False)(mirrored)
    actions = torch.from_numpy(spec.symmetries[0].action_index)
    assert logits.std() > 0.05
    assert value.std() > 0.005
    scale = float(logits.abs().max())
    torch.testing.assert_close(mirrored_logits, logits[:, actions], atol=1e-5 * scale, rtol=1e-4)
    torch.testing.assert_close(mirrored_value, value, atol=1e-5, rtol=1e-4)
    assert (plain_mirrored - plain_logits[:, actions]).abs().max() > 0.01 * scale  # nothing that any network does


def test_gradients_reach_every_weight_and_those_of_mirror_images_are_equal() -> None:
    network = opinionated(spec_of("connect_four"), equivariant=True)
    observation, mirrored = positions("connect_four")
    gradients = []
    for given in (observation, mirrored):
        network.zero_grad()
        network(given)[1].square().sum().backward()
        gradients.append(
            {
                name: parameter.grad.clone()
                for name, parameter in network.named_parameters()
                if parameter.grad is not None
            }
        )
    assert {name for name, _ in network.named_parameters()} - gradients[0].keys() == {
        name for name, _ in network.named_parameters() if name.startswith("policy_head")
    }
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3)


def test_half_of_the_kernels_are_parameters_and_all_of_them_are_copied_by_name() -> None:
    spec = spec_of("connect_four")
    plain, tied = (opinionated(spec, equivariant=equivariant) for equivariant in (False, True))
    tower = [num_parameters(network.get_submodule("tower")) for network in (plain, tied)]
    assert tower[0] == 2 * tower[1]
    other = build_network(spec, kind="resnet", num_blocks=2, channels=8, equivariant=True)
    other.load_state_dict(tied.state_dict())
    observation, _ = positions("connect_four")
    with torch.no_grad():
        for ours, theirs in zip(ActorCritic(tied)(observation), ActorCritic(other)(observation), strict=True):
            assert torch.equal(ours, theirs)


def test_what_cannot_be_equivariant_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"model\.equivariant=true: must be false \(the symmetry of hex is no flip"):
        build_network(spec_of("hex"), equivariant=True)
    lopsided = replace(spec_of("tic_tac_toe"), symmetries=())
    with pytest.raises(ConfigError, match=r"model\.equivariant=true: must be false \(tic_tac_toe has no symmetry\)"):
        board_flip(lopsided)
    with pytest.raises(ConfigError, match=r"model\.equivariant=true: must be false with model\.kind=mlp"):
        build_network(spec_of("tic_tac_toe"), kind="mlp", equivariant=True)
    with pytest.raises(ConfigError, match=r"model\.channels=7: must be even with model\.equivariant=true"):
        build_network(spec_of("tic_tac_toe"), channels=7, equivariant=True)
    with pytest.raises(ConfigError, match="equivariant=1: must be true or false"):
        build_network(spec_of("tic_tac_toe"), equivariant=1)  # type: ignore[arg-type]
