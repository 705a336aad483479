import numpy as np
import pytest
import torch

from keisei_lightning.games import GameSpec, Symmetry, game_factory
from keisei_lightning.models import pack_mask, unpack_mask
from keisei_lightning.rl import TensorSymmetry

ROTATION = Symmetry(name="rotation", observation_index=np.array([1, 2, 0]), action_index=np.array([3, 0, 1, 2]))


def mirror_of(game: str) -> tuple[GameSpec, TensorSymmetry]:
    spec = game_factory(game)(1).spec
    return spec, TensorSymmetry.from_symmetry(spec.symmetries[0])


def test_each_part_moves_by_its_index():
    rotation = TensorSymmetry.from_symmetry(ROTATION)
    observation = torch.tensor([[10, 11, 12], [20, 21, 22]], dtype=torch.uint8)
    assert rotation.observation(observation).tolist() == [[11, 12, 10], [21, 22, 20]]
    mask = torch.tensor([True, False, False, True])
    assert rotation.action_mask(mask).tolist() == [True, True, False, False]
    assert rotation.action(torch.tensor([0, 3, -1])).tolist() == [1, 0, -1]


@pytest.mark.parametrize("game", ["connect_four", "shogi"])
def test_a_mirror_applied_twice_changes_nothing(game):
    spec, mirror = mirror_of(game)
    observation = torch.randint(0, 256, (3, 2, *spec.observation_shape), dtype=torch.uint8)
    mask = torch.rand(3, 2, spec.num_actions) < 0.3
    action = torch.randint(-1, spec.num_actions, (3, 2))
    assert torch.equal(mirror.observation(mirror.observation(observation)), observation)
    assert torch.equal(mirror.action_mask(mirror.action_mask(mask)), mask)
    assert torch.equal(mirror.action(mirror.action(action)), action)
    assert not torch.equal(mirror.observation(observation), observation)


@pytest.mark.parametrize("game", ["connect_four", "shogi"])
def test_a_legal_action_stays_legal_in_the_mirror(game):
    spec, mirror = mirror_of(game)
    mask = torch.rand(50, spec.num_actions) < 0.3
    action = torch.randint(0, spec.num_actions, (50,))
    legal_before = mask.gather(1, action[:, None])
    assert torch.equal(mirror.action_mask(mask).gather(1, mirror.action(action)[:, None]), legal_before)


def test_a_packed_mask_is_transformed_like_a_plain_one():
    spec, mirror = mirror_of("shogi")
    mask = torch.rand(4, 5, spec.num_actions) < 0.1
    packed = mirror.action_mask(pack_mask(mask))
    assert torch.equal(unpack_mask(packed, spec.num_actions), mirror.action_mask(mask))
