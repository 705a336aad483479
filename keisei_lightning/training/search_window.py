"""The newest positions that were searched, and minibatches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict

from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.models.transfers import to_device
from keisei_lightning.search import Found

__all__ = ["SearchWindow"]


class SearchWindow:
    """Keeps positions with what searches found of them, on the CPU; the oldest ones make room for new ones.

    A policy is kept as the probabilities of the legal moves alone: shogi has 2187 labels, and some 100 legal moves.

    Args:
        spec: of the game.
        size: how many positions are kept.
    """

    def __init__(self, spec: GameSpec, size: int) -> None:
        self._spec, self._size = spec, size
        self.clear()

    def clear(self) -> None:
        """Forget all positions."""
        spec = self._spec
        self._observation = np.zeros((0, *spec.observation_shape), np.uint8)
        self._legal = np.zeros((0, spec.mask_bytes), np.uint8)
        self._value = np.zeros(0, np.float32)
        self._policies: list[NDArray[np.float32]] = []  # by the labels of the legal moves

    def __len__(self) -> int:
        return len(self._policies)

    def add(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], found: Sequence[Found]) -> None:
        """Add positions.

        Args:
            observation: uint8 [n, *observation_shape].
            legal: uint8 [n, ceil(A / 8)], bit-packed.
            found: of each, n.
        """
        values = np.array([each.value for each in found], np.float32)
        self._observation = np.concatenate([self._observation, observation])[-self._size :]
        self._legal = np.concatenate([self._legal, legal])[-self._size :]
        self._value = np.concatenate([self._value, values])[-self._size :]
        policies = [each.policy[np.argsort(each.actions)].astype(np.float32) for each in found]
        self._policies = [*self._policies, *policies][-self._size :]

    def take(self, rows: NDArray[np.int64], device: torch.device) -> TensorDict:
        """Some of the positions.

        Args:
            rows: int64 [m], numbers of positions; the oldest one is 0.
            device: where they are to be.

        Returns:
            TensorDict [m] with ``observation``, ``action_mask`` (bit-packed), ``policy`` float32 [m, A] and ``value``
            float32 [m, 1].
        """
        legal = self._legal[rows]
        policy = np.zeros((len(rows), self._spec.num_actions), np.float32)
        mask = np.unpackbits(legal, axis=1, count=self._spec.num_actions).view(np.bool_)
        policy[mask] = np.concatenate([self._policies[row] for row in rows.tolist()])
        columns: dict[str, NDArray[Any]] = {
            "observation": self._observation[rows],
            "action_mask": legal,
            "policy": policy,
            "value": self._value[rows, None],
        }
        return TensorDict(
            {key: to_device(torch.from_numpy(column), device) for key, column in columns.items()},
            batch_size=len(rows),
        )

    def state_dict(self) -> dict[str, Any]:
        """Tensors, for a checkpoint."""
        flat = np.concatenate([np.zeros(0, np.float32), *self._policies])
        columns: dict[str, NDArray[Any]] = {
            "observation": self._observation,
            "legal": self._legal,
            "value": self._value,
            "policy": flat,
        }
        return {key: torch.from_numpy(column.copy()) for key, column in columns.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state_dict`; of one with more positions the newest stay."""
        keep = slice(-self._size, None)
        legal = state["legal"].numpy()
        ends = np.cumsum(np.unpackbits(legal, axis=1).sum(axis=1, dtype=np.int64))
        self._observation = state["observation"].numpy()[keep].copy()
        self._legal, self._value = legal[keep].copy(), state["value"].numpy()[keep].copy()
        policies: list[NDArray[np.float32]] = np.split(state["policy"].numpy().copy(), ends[:-1])
        self._policies = policies[keep] if len(legal) else []
