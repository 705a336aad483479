"""The contract between games and everything else: arrays in, arrays out, no torch.

A :class:`Game` is many boards of one game that advance together. It never chooses a move, never sees a network, and
writes observations and legal moves into arrays that its caller owns (a slot in shared memory, say), so that a ply
costs no allocation. Everything is from the *mover's* view: the observation, the action labels and the reward of the
player who has just moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NO_MOVE",
    "Game",
    "GameFactory",
    "GameSpec",
    "OpeningGame",
    "RenderFormat",
    "ResumableGame",
    "StepResult",
    "Symmetry",
]

NO_MOVE = -1
"""Action that leaves a board as it is (it sits this ply out, finished or not)."""

RenderFormat = Literal["text", "svg"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Symmetry:
    """A relabelling under which the rules do not change, such as the left-right mirror of a board.

    The transformed observation is ``observation.reshape(-1)[observation_index]``, the transformed legal-move mask is
    ``mask[action_index]``, so action ``a`` of the original is the ``j`` with ``action_index[j] == a``. Applying a
    mirror twice is the identity.

    Attributes:
        name: for example ``"mirror"``.
        observation_index: int64 [prod(observation_shape)].
        action_index: int64 [num_actions].
    """

    name: str
    observation_index: NDArray[np.int64]
    action_index: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GameSpec:
    """What a network and a buffer need to know of a game.

    Attributes:
        name: the name it is made by, such as ``"shogi"`` or ``"connect_four"``.
        num_actions: A, the number of action labels in the mover's view.
        observation_shape: shape of one observation; always uint8.
        max_plies: a game is over after this many plies at the latest.
        encoding: name of the encoder that turns an observation into float planes: ``"planes"`` (the observation already
            is [C, H, W] planes of small integers) or a game's own name (``"shogi"``).
        board_shape: (height, width) of the board as the network sees it; (1, n) for a game without a board.
        symmetries: relabellings under which the rules do not change.
    """

    name: str
    num_actions: int
    observation_shape: tuple[int, ...]
    max_plies: int
    encoding: str = "planes"
    board_shape: tuple[int, int] = (1, 1)
    symmetries: tuple[Symmetry, ...] = ()

    @property
    def mask_bytes(self) -> int:
        """Bytes of one bit-packed legal-move mask: ceil(A / 8)."""
        return math.ceil(self.num_actions / 8)

    @property
    def observation_bytes(self) -> int:
        """Bytes of one observation."""
        return math.prod(self.observation_shape)


class StepResult(NamedTuple):
    """What one ply did on each of the G boards.

    Attributes:
        reward: float32 [G], to the player who has just moved (+1 win, -1 loss, 0 else).
        terminated: bool [G], the game has ended by its rules, with this ply or before (a finished board stays
            ``True``, with reward 0, until it is reset).
        truncated: bool [G], the game was cut short and has no result (values must bootstrap); likewise.
    """

    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


@runtime_checkable
class Game(Protocol):
    """G boards of one two-player zero-sum perfect-information game.

    A finished board stays finished until :meth:`reset`; until then only :data:`NO_MOVE` is legal on it. A game is used
    by the thread that made it, and is never pickled: a :data:`GameFactory` makes it where it is played.
    """

    @property
    def spec(self) -> GameSpec:
        """The game's constant shape; the same for every instance of one factory."""
        ...

    @property
    def num_games(self) -> int:
        """G, the number of boards."""
        ...

    def seed(self, seed: int) -> None:
        """Seed the random openings (the only chance there is in a game)."""
        ...

    def reset(self, indices: NDArray[np.int64] | None = None) -> None:
        """Put the given boards (default: all) back to the start, then play their random opening plies, if any."""
        ...

    def observe(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], mover: NDArray[np.int8]) -> None:
        """Write the state of every board into the caller's arrays (any strides).

        Args:
            observation: uint8 [G, *observation_shape], the mover's view.
            legal: uint8 [G, ceil(A / 8)], bit-packed in ``np.packbits`` order (big-endian in a byte); all zero on a
                finished board.
            mover: int8 [G], the seat to move: 0 or 1.
        """
        ...

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Play one action on every board.

        Args:
            actions: int64 [G], labels in the mover's view, or :data:`NO_MOVE`.

        Raises:
            IllegalActionError: an action is not legal on its board. No board has moved then.
        """
        ...

    def position(self, index: int) -> str:
        """The position of one board in the game's own notation (SFEN for shogi), for :meth:`set_position`."""
        ...

    def set_position(self, index: int, position: str) -> None:
        """Put one board into a position given in the game's own notation; its history before that is empty.

        Raises:
            GameError: the notation cannot be read, or the position is already over.
        """
        ...

    def action_name(self, index: int, action: int) -> str:
        """An action of the mover on one board in the game's own notation (USI for shogi)."""
        ...

    def outcome(self, index: int) -> str:
        """How a board's game ended ("checkmate", "repetition", "max plies", ...); empty while it is going on."""
        ...

    def render(self, index: int, format: RenderFormat = "text") -> str:
        """Draw one board for a person."""
        ...

    def record(self, index: int) -> str:
        """The whole game of one board as a record that other programs read (KIF for shogi, a move list for others)."""
        ...


@runtime_checkable
class OpeningGame(Game, Protocol):
    """A game whose resets play random plies first.

    Optional: with it, a match can deal openings of its own instead of adding its plies to the game's.

    Attributes:
        opening_plies: a reset plays 0 to this many; it may be set.
    """

    opening_plies: int


@runtime_checkable
class ResumableGame(Game, Protocol):
    """A game that can tell and retell how its boards came to their positions.

    Optional: with it, a serial run that goes on from a checkpoint goes on with the games in flight, to the last bit.
    (A position alone does not tell which positions occurred before.) Without it, games begin anew.
    """

    def history(self, index: int) -> str:
        """One board's start position and all moves since, in the game's own notation, for :meth:`set_history`."""
        ...

    def set_history(self, index: int, history: str) -> None:
        """Put one board where :meth:`history` left it.

        Raises:
            GameError: the notation cannot be read, or a move in it is not legal.
        """
        ...


GameFactory = Callable[[int], Game]
"""Makes a game of the given number of boards. It must be picklable by cloudpickle: it is shipped to the workers."""
