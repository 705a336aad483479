"""A two-player board game as a TorchRL environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor
from torchrl.data import Binary, Bounded, Categorical, Composite
from torchrl.envs import EnvBase

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.games.protocol import NO_MOVE, GameFactory, RenderFormat
from keisei_lightning.models import LegalCategorical, unpack_mask

__all__ = ["BoardGameEnv", "random_policy"]


class BoardGameEnv(EnvBase):
    """G boards of one game that advance together, one ply at a step, both players by the same policy.

    =================== ============================ ===================================================================
    key                 shape, dtype                 meaning
    =================== ============================ ===================================================================
    observation         [G, *observation_shape] u8   the mover's view
    action_mask         [G, A] bool                  legal moves (bit-packed uint8 [G, ceil(A / 8)] with
                                                     ``packed_action_mask=True``); none on a finished board
    mover               [G] int8                     seat to move, 0 or 1
    action              [G] int64                    label in the mover's view
    next / reward       [G, 1] float32               to the player who has just moved
    next / done         [G, 1] bool                  terminated or truncated
    next / terminated   [G, 1] bool                  the game ended by its rules
    next / truncated    [G, 1] bool                  the game was cut short and has no result
    =================== ============================ ===================================================================

    A finished board stays as it is until it is reset, whatever action it is given. The action specification knows the
    present legal moves, and so do its copies in this process (a ``TransformedEnv``'s, a ``RandomPolicy``'s): what is
    drawn from it is legal. TorchRL's ``SerialEnv`` and ``ParallelEnv`` make specifications of their own, which do not:
    use :func:`random_policy` with them.

    Args:
        game: makes the game.
        num_games: number of boards, G.
        packed_action_mask: eight actions in a byte, in ``np.packbits`` order.
        seed: seed of the random openings.
        device: where tensors are put; the game itself is NumPy.

    Raises:
        ConfigError: the number of boards is below 1.
    """

    batch_locked = True

    def __init__(
        self,
        game: GameFactory,
        num_games: int = 1,
        *,
        packed_action_mask: bool = False,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if num_games < 1:
            raise ConfigError(f"num_games={num_games}: must be 1 or more")
        super().__init__(device=device, batch_size=torch.Size([num_games]))
        self._game = game(num_games)
        self.spec_of_game = self._game.spec
        self._packed = packed_action_mask
        self._terminated = np.zeros(num_games, dtype=np.bool_)
        self._truncated = np.zeros(num_games, dtype=np.bool_)
        self._make_specs()
        if seed is not None:
            self.set_seed(seed)

    def _make_specs(self) -> None:
        """Describe every key; see the class."""
        spec, (num_games,) = self.spec_of_game, self.batch_size

        def integers(*shape: int, low: int, high: int, dtype: torch.dtype) -> Bounded:
            return Bounded(low=low, high=high, shape=(num_games, *shape), dtype=dtype, device=self.device)

        flags = Binary(n=1, shape=(num_games, 1), dtype=torch.bool, device=self.device)
        mask = Binary(n=spec.num_actions, shape=(num_games, spec.num_actions), dtype=torch.bool, device=self.device)
        packed = integers(spec.mask_bytes, low=0, high=255, dtype=torch.uint8)
        self.observation_spec = Composite(
            observation=integers(*spec.observation_shape, low=0, high=255, dtype=torch.uint8),
            action_mask=packed if self._packed else mask,
            mover=integers(low=0, high=1, dtype=torch.int8),
            shape=self.batch_size,
        )
        legal = torch.ones(num_games, spec.num_actions, dtype=torch.bool, device=self.device)
        self.action_spec = _LegalActions(
            spec.num_actions, shape=self.batch_size, dtype=torch.int64, device=self.device, mask=legal
        )
        self.reward_spec = Bounded(low=-1.0, high=1.0, shape=(num_games, 1), dtype=torch.float32, device=self.device)
        self.done_spec = Composite(
            done=flags.clone(), terminated=flags.clone(), truncated=flags.clone(), shape=self.batch_size
        )

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        """The array on the environment's device; shared with it on the CPU."""
        return torch.from_numpy(array).to(self.device)

    def _observe(self) -> dict[str, Tensor]:
        """The state of all boards in fresh tensors; the action specification follows."""
        spec, (num_games,) = self.spec_of_game, self.batch_size
        observation = np.empty((num_games, *spec.observation_shape), dtype=np.uint8)
        legal = np.empty((num_games, spec.mask_bytes), dtype=np.uint8)
        mover = np.empty(num_games, dtype=np.int8)
        self._game.observe(observation, legal, mover)
        packed = self._tensor(legal)
        mask = unpack_mask(packed, spec.num_actions)
        terminated, truncated = (self._tensor(x[:, None].copy()) for x in (self._terminated, self._truncated))
        done = terminated | truncated
        # A finished board takes any action: a row without a legal one would make a random draw fail for all boards.
        if self.action_spec.mask is None:  # after a move to another device
            self.action_spec.update_mask(mask | done)
        else:
            torch.logical_or(mask, done, out=self.action_spec.mask)
        return {
            "observation": self._tensor(observation),
            "action_mask": packed if self._packed else mask,
            "mover": self._tensor(mover),
            "done": done,
            "terminated": terminated,
            "truncated": truncated,
        }

    def _reset(self, tensordict: TensorDictBase | None, **kwargs: Any) -> TensorDict:
        """Start new games on all boards, or on those that ``_reset`` names."""
        chosen = None if tensordict is None else tensordict.get("_reset", None)
        boards = np.ones(self.batch_size, dtype=np.bool_) if chosen is None else _rows(chosen)
        self._game.reset(np.flatnonzero(boards).astype(np.int64))
        self._terminated[boards] = self._truncated[boards] = False
        return TensorDict(self._observe(), batch_size=self.batch_size, device=self.device)

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        """Play one ply on every unfinished board, or on those of them that ``_step`` names."""
        chosen = tensordict.get("_step", None)
        idle = self._terminated | self._truncated
        if chosen is not None:
            idle |= ~_rows(chosen)
        action = np.where(idle, NO_MOVE, tensordict.get("action").cpu().numpy())
        for index in np.flatnonzero(~idle & (action < 0))[:1].tolist():  # of logits that are not finite
            raise GameError(
                f"{self.spec_of_game.name}: action {action[index]} on a board that is not over, in position "
                f"{self.position(index)}; must be from 0 to {self.spec_of_game.num_actions - 1}"
            )
        result = self._game.step(action)
        self._terminated = np.where(idle, self._terminated, result.terminated)
        self._truncated = np.where(idle, self._truncated, result.truncated)
        reward = np.where(idle, np.float32(0.0), result.reward)[:, None].astype(np.float32)
        state = {**self._observe(), "reward": self._tensor(reward)}
        return TensorDict(state, batch_size=self.batch_size, device=self.device)

    def _set_seed(self, seed: int | None) -> None:
        """Seed the random openings."""
        if seed is not None:
            self._game.seed(seed)

    def position(self, index: int) -> str:
        """The position of one board in the game's own notation (SFEN for shogi)."""
        return self._game.position(index)

    def render(self, index: int = 0, format: RenderFormat = "text") -> str:
        """Draw one board for a person, as text or SVG."""
        return self._game.render(index, format)


class _LegalActions(Categorical):
    """An action specification whose copies follow the boards too: they share the mask, which is written in place.

    TorchRL's own copies the mask, and a ``TransformedEnv`` draws from the copy that it made at the start.
    """

    def clone(self) -> _LegalActions:
        """A copy with the same mask, not with a copy of it."""
        return type(self)(self.space.n, shape=self.shape, device=self.device, dtype=self.dtype, mask=self.mask)


def _rows(chosen: Tensor) -> NDArray[np.bool_]:
    """The boards that TorchRL names, bool [G] or [G, 1], as bool [G]."""
    rows: NDArray[np.bool_] = chosen.reshape(-1).cpu().numpy()
    return rows


def random_policy(num_actions: int) -> TensorDictModule:
    """A policy that plays legal moves uniformly: ``action_mask``, boolean or bit-packed, to ``action``.

    Args:
        num_actions: A.
    """

    def draw(action_mask: Tensor) -> Tensor:
        logits = torch.zeros(*action_mask.shape[:-1], num_actions, device=action_mask.device)
        return LegalCategorical(logits, action_mask).sample()

    return TensorDictModule(draw, in_keys=["action_mask"], out_keys=["action"])
