"""A game's symmetries applied to stored plies.

Transform plies when they are collected: a policy that is not itself symmetric gives the mirrored move of the mirrored
position another probability, so a mirrored ply with the original log-probability would be a wrong PPO ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from keisei_lightning.games.protocol import Symmetry
from keisei_lightning.models import pack_mask, unpack_mask

__all__ = ["TensorSymmetry"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TensorSymmetry:
    """A :class:`~keisei_lightning.games.protocol.Symmetry` as index tensors on a device.

    Attributes:
        name: for example ``"mirror"``.
        observation_index: int64 [prod(observation_shape)]: which value of the original each new value is.
        action_index: int64 [A]: which action of the original each new action is.
        new_action: int64 [A]: the inverse, what each action of the original becomes.
    """

    name: str
    observation_index: Tensor
    action_index: Tensor
    new_action: Tensor

    @classmethod
    def from_symmetry(cls, symmetry: Symmetry, *, device: torch.device | str = "cpu") -> TensorSymmetry:
        """Copy a game's symmetry to a device."""
        action_index = torch.as_tensor(symmetry.action_index, dtype=torch.int64, device=device)
        return cls(
            name=symmetry.name,
            observation_index=torch.as_tensor(symmetry.observation_index, dtype=torch.int64, device=device),
            action_index=action_index,
            new_action=action_index.argsort(),
        )

    def observation(self, observation: Tensor) -> Tensor:
        """Transform observations [..., *observation_shape] of any dtype."""
        flat = observation.reshape(-1, self.observation_index.numel())
        return flat.index_select(1, self.observation_index).view(observation.shape)

    def action_mask(self, mask: Tensor) -> Tensor:
        """Transform masks, bool [..., A] or bit-packed uint8 [..., ceil(A / 8)]; the result is like its input."""
        if mask.dtype == torch.bool:
            return mask.index_select(-1, self.action_index)
        return pack_mask(unpack_mask(mask, self.action_index.numel()).index_select(-1, self.action_index))

    def action(self, action: Tensor) -> Tensor:
        """Transform actions, int64 of any shape; ``NO_MOVE`` stays as it is."""
        return torch.where(action < 0, action, self.new_action[action.clamp(min=0)])
