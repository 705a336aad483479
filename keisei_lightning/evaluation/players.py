"""Players: whoever chooses a move when asked with arrays, a network or a die.

A player never sees a game, only observations and legal moves, both from the mover's view. NumPy in, NumPy out, so that
a player may be a network on an accelerator, a script, or an engine behind a pipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from keisei_lightning.games.protocol import NO_MOVE

if TYPE_CHECKING:
    from keisei_lightning.models.actor_critic import ActorCritic

__all__ = ["Player", "PolicyPlayer", "RandomPlayer"]


@runtime_checkable
class Player(Protocol):
    """Chooses moves for many boards at once."""

    @property
    def name(self) -> str:
        """A short word for tables and metric names, such as ``"random"``."""
        ...

    def choose(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Choose one legal move on each of n boards.

        Args:
            observation: uint8 [n, *observation_shape], the mover's view.
            legal: uint8 [n, ceil(A / 8)], bit-packed in ``np.packbits`` order.

        Returns:
            int64 [n]: action labels in the mover's view; :data:`~keisei_lightning.games.NO_MOVE` where nothing is
            legal.
        """
        ...


class RandomPlayer:
    """Plays uniformly among the legal moves.

    Args:
        num_actions: A, the number of action labels.
        seed: of its own random stream; no other stream is touched.
        name: for tables and metric names.
    """

    def __init__(self, num_actions: int, seed: int = 0, *, name: str = "random") -> None:
        self._num_actions = num_actions
        self._rng = np.random.default_rng(seed)
        self._name = name

    @property
    def name(self) -> str:
        """A short word for tables and metric names."""
        return self._name

    def choose(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Choose uniformly; see :meth:`Player.choose`. The observation is not looked at."""
        rows, columns = np.nonzero(np.unpackbits(legal, axis=-1, count=self._num_actions))
        counts = np.bincount(rows, minlength=len(legal))
        first = np.cumsum(counts) - counts
        # A draw from [0, 1) is below 1, but its product with the count may round up to the count.
        nth = np.minimum((self._rng.random(len(legal)) * counts).astype(np.int64), np.maximum(counts - 1, 0))
        actions = np.full(len(legal), NO_MOVE, dtype=np.int64)
        some = counts > 0
        actions[some] = columns[(first + nth)[some]]
        return actions


class PolicyPlayer:
    """Plays what a network says: its most likely move, or a sample of its policy.

    The network's mode (training or evaluation) and the global random streams are left as they are; it runs where its
    parameters lie.

    Args:
        actor_critic: the network with its policy and value.
        greedy: the most likely move; otherwise a sample.
        seed: of its own random stream (samples only).
        name: for tables and metric names.
    """

    def __init__(self, actor_critic: ActorCritic, *, greedy: bool = True, seed: int = 0, name: str = "policy") -> None:
        self._actor_critic = actor_critic
        self._greedy = greedy
        self._name = name
        self._device = next((p.device for p in actor_critic.parameters()), torch.device("cpu"))
        self._generator = torch.Generator(device=self._device).manual_seed(seed)

    @property
    def name(self) -> str:
        """A short word for tables and metric names."""
        return self._name

    def choose(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8]) -> NDArray[np.int64]:
        """One forward pass over all boards; see :meth:`Player.choose`."""
        with torch.inference_mode():
            action, _, _ = self._actor_critic.act(
                torch.from_numpy(np.ascontiguousarray(observation)).to(self._device),
                torch.from_numpy(np.ascontiguousarray(legal)).to(self._device),
                generator=self._generator,
                greedy=self._greedy,
            )
        chosen: NDArray[np.int64] = action.cpu().numpy().astype(np.int64, copy=False)
        return chosen
