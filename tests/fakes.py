"""Hand-written stand-ins: a game small enough to check by head, a policy of two numbers, and games that misbehave."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from keisei_lightning.errors import GameError, IllegalActionError
from keisei_lightning.games import NO_MOVE, GameSpec, RenderFormat, StepResult

__all__ = ["CountingGame", "TinyNetwork", "counting_game", "crashing_game"]


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
        goal: int = 10,
        truncate_after: int = 0,
        before_step: Callable[[int], None] = lambda step: None,
        opening_plies: int = 0,
    ) -> None:
        self.spec = GameSpec(
            name="counting", num_actions=3, observation_shape=(2, 1, 1), max_plies=goal, board_shape=(1, 1)
        )
        self.num_games, self._goal, self._truncate_after = num_games, goal, truncate_after
        self._before_step, self._steps = before_step, 0
        self._opening_plies = opening_plies
        self._rng = np.random.default_rng(0)
        self._count = np.zeros(num_games, np.int64)
        self._ply = np.zeros(num_games, np.int64)
        self._over = np.zeros(num_games, np.bool_)
        self._moves: list[list[int]] = [[] for _ in range(num_games)]

    def seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def reset(self, indices: NDArray[np.int64] | None = None) -> None:
        indices = np.arange(self.num_games) if indices is None else indices
        opening = self._rng.integers(0, self._opening_plies + 1, len(indices))
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


def _misbehave(step: int, *, how: str, at: int) -> None:
    if step < at:
        return
    match how:
        case "ValueError":
            raise ValueError("the game is broken on purpose")
        case "KeyError":
            raise KeyError("broken on purpose")
        case "long message":
            raise ValueError("x" * 10_000_000)
        case "unpicklable":
            error = ValueError("cannot be pickled")
            error.hook = lambda: None  # type: ignore[attr-defined]
            raise error
        case "SystemExit":
            raise SystemExit(0)
        case "os._exit":
            os._exit(0)
        case "SIGSEGV":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang in Python":
            while True:
                pass
        case "hang in C":
            ctypes.PyDLL(None).sleep(1000)  # PyDLL keeps the GIL
        case "sleep":
            time.sleep(1000)
        case "ignore SIGTERM and sleep":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1000)
        case _:
            raise AssertionError(how)


def crashing_game(how: str, *, at: int = 0) -> Callable[[int], CountingGame]:
    """A factory of games whose step ``at`` (and any later one) misbehaves."""
    return counting_game(before_step=functools.partial(_misbehave, how=how, at=at))


class TinyNetwork(nn.Module):
    """Observation [B, 2, 1, 1] -> (logits [B, 3], value [B, 1]): a linear map with a counter that tests can read."""

    def __init__(self, num_actions: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(2, num_actions + 1)
        self.register_buffer("scale", torch.tensor(0.1), persistent=False)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        out = self.linear(observation.flatten(1).float() * self.scale)
        return out[:, :-1], torch.tanh(out[:, -1:])
