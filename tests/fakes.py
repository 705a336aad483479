"""Hand-written stand-ins: a game small enough to check by head, and policies of a few numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from keisei_lightning.errors import GameError, IllegalActionError
from keisei_lightning.evaluation import Turn
from keisei_lightning.games import NO_MOVE, Game, GameSpec, RenderFormat, StepResult, Symmetry

__all__ = [
    "COUNTING_GOAL",
    "CountingGame",
    "MirrorGame",
    "TinyNetwork",
    "VersionNetwork",
    "counting_game",
    "turn_of",
]

COUNTING_GOAL = 10


class CountingGame:
    """Count to ``goal``: each move adds 1, 2 or 3 (never past the goal); who reaches it wins.

    Args:
        num_games: G.
        goal: where the count ends.
        truncate_after: cut games short after this many plies (0: never).
        before_step: called before every step: the place to misbehave.
        opening_plies: at most this many random moves at the start, each adding 1.
    """

    def __init__(
        self,
        num_games: int,
        *,
        goal: int = COUNTING_GOAL,
        truncate_after: int = 0,
        before_step: Callable[[int], None] = lambda step: None,
        opening_plies: int = 0,
    ) -> None:
        self.spec = GameSpec(
            name="counting", num_actions=3, observation_shape=(2, 1, 1), max_plies=goal, board_shape=(1, 1)
        )
        self.num_games, self._goal, self._truncate_after = num_games, goal, truncate_after
        self._before_step, self._steps = before_step, 0
        self.opening_plies = opening_plies
        self._rng = np.random.default_rng(0)
        self._count = np.zeros(num_games, np.int64)
        self._ply = np.zeros(num_games, np.int64)
        self._over = np.zeros(num_games, np.bool_)
        self._moves: list[list[int]] = [[] for _ in range(num_games)]

    def seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def reset(self, indices: NDArray[np.int64] | None = None) -> None:
        indices = np.arange(self.num_games) if indices is None else indices
        opening = self._rng.integers(0, self.opening_plies + 1, len(indices))
        self._count[indices] = self._ply[indices] = opening
        self._over[indices] = False
        for index in indices.tolist():
            self._moves[index] = []

    def _legal(self) -> NDArray[np.bool_]:
        left = self._goal - self._count
        return (np.arange(1, 4) <= left[:, None]) & ~self._over[:, None]

    def observe(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], mover: NDArray[np.int8]) -> None:
        observation[:, 0, 0, 0] = self._count
        observation[:, 1, 0, 0] = self._goal - self._count
        legal[:] = np.packbits(self._legal(), axis=1)
        mover[:] = self._ply % 2

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        self._before_step(self._steps)
        self._steps += 1
        moving = actions != NO_MOVE
        for index in np.flatnonzero(moving & ~self._legal()[np.arange(self.num_games), actions]):
            raise IllegalActionError(
                game="counting",
                ply=int(self._ply[index]),
                position=self.position(int(index)),
                move=str(actions[index]),
            )
        self._count[moving] += actions[moving] + 1
        self._ply[moving] += 1
        for index in np.flatnonzero(moving).tolist():
            self._moves[index].append(int(actions[index]) + 1)
        won = moving & (self._count == self._goal)
        cut = moving & ~won & (self._ply == self._truncate_after) if self._truncate_after else np.zeros_like(won)
        self._over |= won | cut
        return StepResult(won.astype(np.float32), won, cut)

    def position(self, index: int) -> str:
        return f"{self._count[index]} {self._ply[index] % 2}"

    def set_position(self, index: int, position: str) -> None:
        count, mover = map(int, position.split())
        if not 0 <= count < self._goal:
            raise GameError(f"counting: {position!r} is over")
        self._count[index], self._ply[index], self._over[index] = count, mover, False
        self._moves[index] = []

    def action_name(self, index: int, action: int) -> str:
        return f"+{action + 1}"

    def outcome(self, index: int) -> str:
        if not self._over[index]:
            return ""
        return "goal" if self._count[index] == self._goal else "cut short"

    def render(self, index: int, format: RenderFormat = "text") -> str:
        return self.position(index) if format == "text" else f"<svg><text>{self.position(index)}</text></svg>"

    def record(self, index: int) -> str:
        return " ".join(f"+{move}" for move in self._moves[index])


def counting_game(**options: object) -> Callable[[int], CountingGame]:
    """A factory of counting games that can be pickled."""
    return functools.partial(CountingGame, **options)  # type: ignore[arg-type]


class MirrorGame:
    """Fill a row of four cells in turn; the left half and the right half are alike. Who takes the last cell wins.

    Attributes:
        played: the actions of every step, as the game was given them.
    """

    def __init__(self, num_games: int) -> None:
        flip = np.arange(4)[::-1].copy()
        self.spec = GameSpec(
            name="mirror",
            num_actions=4,
            observation_shape=(1, 1, 4),
            max_plies=4,
            board_shape=(1, 4),
            symmetries=(Symmetry(name="mirror", observation_index=flip, action_index=flip),),
        )
        self.num_games = num_games
        self.played: list[NDArray[np.int64]] = []
        self._cells = np.zeros((num_games, 4), np.int8)  # 0 empty, else seat + 1

    def seed(self, seed: int) -> None:
        pass

    def reset(self, indices: NDArray[np.int64] | None = None) -> None:
        self._cells[slice(None) if indices is None else indices] = 0

    def _mover(self) -> NDArray[np.int8]:
        return ((self._cells != 0).sum(1) % 2).astype(np.int8)

    def observe(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], mover: NDArray[np.int8]) -> None:
        mover[:] = self._mover()
        own = self._cells == mover[:, None] + 1
        observation[:, 0, 0] = np.where(self._cells == 0, 0, np.where(own, 1, 2))
        legal[:] = np.packbits(self._cells == 0, axis=1)

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        self.played.append(actions.copy())
        rows = np.flatnonzero(actions != NO_MOVE)
        assert (self._cells[rows, actions[rows]] == 0).all()
        self._cells[rows, actions[rows]] = (self._mover() + 1)[rows]
        full = (self._cells != 0).all(1)
        return StepResult(full.astype(np.float32), full, np.zeros_like(full))

    def outcome(self, index: int) -> str:
        return "full" if self._cells[index].all() else ""


def turn_of(game: Game, indices: list[int] | None = None) -> Turn:
    """Some boards of a game, all by default, shown to whoever is to move."""
    chosen = np.arange(game.num_games) if indices is None else np.array(indices)
    observation = np.zeros((game.num_games, *game.spec.observation_shape), np.uint8)
    legal = np.zeros((game.num_games, game.spec.mask_bytes), np.uint8)
    game.observe(observation, legal, np.zeros(game.num_games, np.int8))
    return Turn(game=game, indices=chosen, observation=observation[chosen], legal=legal[chosen])


class TinyNetwork(nn.Module):
    """Observation [B, 2, 1, 1] -> (logits [B, 3], value [B, 1]): a linear map with a counter that tests can read."""

    def __init__(self, num_actions: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(2, num_actions + 1)
        self.register_buffer("scale", torch.tensor(0.1), persistent=False)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        out = self.linear(observation.flatten(1).float() * self.scale)
        return out[:, :-1], torch.tanh(out[:, -1:])


class VersionNetwork(nn.Module):
    """Plays evenly, and values every state at its one weight: a state value tells which weights gave it."""

    def __init__(self, num_actions: int = 3) -> None:
        super().__init__()
        self._num_actions = num_actions
        self.version = nn.Parameter(torch.zeros(()))

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        size = len(observation)
        return self.version.new_zeros(size, self._num_actions), self.version.expand(size, 1)
