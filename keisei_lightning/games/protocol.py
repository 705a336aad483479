"""The contract between a game and everything else: arrays in, arrays out, no torch.

A :class:`Game` is many boards of one game that advance together. It never chooses a move and never sees a network. It
writes observations and legal moves into arrays that its caller owns (in shared memory, say), so that a ply allocates
nothing. Everything is in the *mover's* view, that of the player to move: the observation and the action labels. The
reward is that of the player who has just moved. So one network plays both seats.

A game of your own, step by step:

1. Number the actions: labels 0 to A - 1, in the mover's view. Every label must mean the same move whenever it is legal.
2. Choose the observation: uint8, as small as it can be. Planes [C, H, W] of small integers need nothing else; any other
   layout names an encoder of its own (:attr:`GameSpec.encoding`, :mod:`keisei_lightning.models.encoder`).
3. Write the methods of :class:`Game`. :func:`~keisei_lightning.games.arrays.as_indices`,
   :func:`~keisei_lightning.games.arrays.as_actions`, :class:`~keisei_lightning.games.arrays.LegalMoves` and
   :func:`~keisei_lightning.games.svg.grid_svg` do the common parts.
4. Run :func:`~keisei_lightning.games.check.check_game` on it: it plays at random and names the first broken promise.
5. Register it (:mod:`keisei_lightning.games.registry`): ``keisei train env=own env.game=my_game`` trains it.
6. Add what else it can do. Each of these protocols is optional, and recognised by its methods:
   :class:`OpeningGame` (random openings), :class:`ResumableGame` (resumes in mid-game), :class:`CopyableGame` (is
   searched quickly), :class:`RecordedGame` (writes records that other programs read),
   :class:`~keisei_lightning.games.ReplayableGame` (reads records back),
   :class:`~keisei_lightning.games.PackedGame` (writes and reads other trainers' files), :class:`ClickableGame` (is
   played on its picture), :class:`DescribedGame` (says how its moves are made).

``examples/own_game.py`` is a complete game of 60 lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NO_MOVE",
    "ClickableGame",
    "CopyableGame",
    "DescribedGame",
    "Game",
    "GameFactory",
    "GameSpec",
    "OpeningGame",
    "RecordedGame",
    "RenderFormat",
    "ResumableGame",
    "SolvingGame",
    "StepResult",
    "Symmetry",
]

NO_MOVE = -1
"""Action that leaves a board as it is, finished or not."""

RenderFormat = Literal["text", "svg"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Symmetry:
    """A relabelling under which the rules do not change, such as the left-right mirror of a board.

    The transformed observation is ``observation.reshape(-1)[observation_index]`` and the transformed legal-move mask is
    ``mask[action_index]``: action ``a`` of the original is the ``j`` with ``action_index[j] == a``. Applying a mirror
    twice is the identity.

    Attributes:
        name: for example ``"mirror"``.
        observation_index: int64 [prod(observation_shape)], a permutation.
        action_index: int64 [num_actions], a permutation.
    """

    name: str
    observation_index: NDArray[np.int64]
    action_index: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GameSpec:
    """What a network and a buffer need to know of a game.

    Attributes:
        name: the name under which the game is registered, such as ``"connect_four"``. Checkpoints and rating tables
            carry it: a checkpoint is loaded for a game of the same name only.
        num_actions: A, the number of action labels in the mover's view.
        observation_shape: shape of one observation; its dtype is always uint8.
        max_plies: no game is longer than this: then it is a draw (``terminated``), or is cut short (``truncated``).
        encoding: name of the encoder that turns observations into float features of the squares. ``"planes"``: the
            observation already is [C, H, W] planes of small integers, and needs none of its own.
        board_shape: (height, width) of the board as the network sees it; (1, n) for a game without a board.
        symmetries: relabellings under which the rules do not change. A network can be made equivariant to the first of
            them if it flips the board, and the observation is planes or one byte for each square, row by row, followed
            by what belongs to no square.
        actions_by_square: label = ``move_type * height * width + square``, with the squares row by row. A network then
            reads the logits of a square's moves off the features of that square, which takes far fewer weights.
    """

    name: str
    num_actions: int
    observation_shape: tuple[int, ...]
    max_plies: int
    encoding: str = "planes"
    board_shape: tuple[int, int] = (1, 1)
    symmetries: tuple[Symmetry, ...] = ()
    actions_by_square: bool = False

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

    A board that has ended stays ``terminated`` or ``truncated``, with reward 0, until it is reset.

    Attributes:
        reward: float32 [G], to the player who has just moved: +1 win, -1 loss, 0 otherwise.
        terminated: bool [G], the game has ended by its rules.
        truncated: bool [G], the game was cut short and has no result; the learner bootstraps its value. Never both.
    """

    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


@runtime_checkable
class Game(Protocol):
    """G boards of one two-player zero-sum perfect-information game.

    ``MyGame(num_games, **options)`` makes one. Only the thread that made a game uses it, and a game is never pickled:
    its factory is, and makes the game where it is played. Two games with the same seed and the same actions stay equal.

    A finished board stays finished until :meth:`reset`, and only :data:`NO_MOVE` is legal on it. A board that is not
    finished has a legal action: a player who cannot move passes by a label of its own, or has lost. The methods that
    look at a board (:meth:`observe`, :meth:`position`, :meth:`action_name`, :meth:`outcome`, :meth:`render`,
    :meth:`record`) change nothing, and work on finished boards too.
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
        """Seed the random openings, the only chance in a game; nothing to do without any."""
        ...

    def reset(self, indices: NDArray[np.int64] | None = None) -> None:
        """Put the given boards (default: all) back to the start and play their random opening plies, if any.

        Args:
            indices: int64 [n]; may be empty. The other boards stay as they are.
        """
        ...

    def observe(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], mover: NDArray[np.int8]) -> None:
        """Write the state of every board into the caller's arrays: every byte, and nothing beside them.

        Args:
            observation: uint8 [G, *observation_shape], the mover's view; any strides.
            legal: uint8 [G, ceil(A / 8)], bit-packed as by ``np.packbits`` (the first action is the highest bit of the
                first byte), padding bits 0; all zero on a finished board; any strides.
            mover: int8 [G], the seat to move, 0 or 1; any strides.
        """
        ...

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Play one action on every board.

        Args:
            actions: int64 [G], labels in the mover's view, or :data:`NO_MOVE`; not to be changed.

        Raises:
            IllegalActionError: an action is not legal on its board, or no label at all. No board has moved then.
        """
        ...

    def position(self, index: int) -> str:
        """The position of one board in the game's own notation, for :meth:`set_position` (SFEN for shogi).

        It tells the seat to move. It need not tell how the game came to it.
        """
        ...

    def set_position(self, index: int, position: str) -> None:
        """Put one board into a position given in the game's own notation; its history before that is empty.

        Raises:
            GameError: the notation cannot be read, or the position is already over. The board stays as it was.
        """
        ...

    def action_name(self, index: int, action: int) -> str:
        """A legal action of the mover on one board in the game's own notation (USI for shogi).

        The legal actions of a board have different names.
        """
        ...

    def outcome(self, index: int) -> str:
        """How a board's game ended ("checkmate", "max plies", ...); empty while it is not over."""
        ...

    def render(self, index: int, format: RenderFormat = "text") -> str:
        """Draw one board for a person: lines of text, or one SVG element (well-formed XML)."""
        ...

    def record(self, index: int) -> str:
        """One board's game so far, from the position in which it began; every move is in it, and it is never empty."""
        ...


@runtime_checkable
class OpeningGame(Game, Protocol):
    """A game whose resets play random plies first.

    Optional. A match sets ``opening_plies`` to 0 and deals openings of its own, the same to both players, instead of
    adding its plies to the game's. In a run ``env.opening_plies`` is an option of the game's maker.

    Attributes:
        opening_plies: a reset plays 0 to this many; it may be set.
    """

    opening_plies: int


@runtime_checkable
class ResumableGame(Game, Protocol):
    """A game that can store and restore how its boards came to their positions.

    Optional. With it, a serial run that resumes from a checkpoint resumes the games in flight too, to the last bit: a
    position alone does not tell which positions occurred before. Without it, games begin anew.
    """

    def history(self, index: int) -> str:
        """One board's start position and all moves since, in the game's own notation, for :meth:`set_history`."""
        ...

    def set_history(self, index: int, history: str) -> None:
        """Put one board where :meth:`history` left it: position, record and everything that later moves depend on.

        Raises:
            GameError: the notation cannot be read, or a move in it is not legal.
        """
        ...


@runtime_checkable
class CopyableGame(Game, Protocol):
    """A game whose boards are copied in no more time than a ply takes, for a search that tries moves.

    Optional. Without it a search plays the moves of a line anew for each position that it looks at.
    """

    def copy_boards(self, indices: NDArray[np.int64]) -> list[Any]:
        """Some boards as they are now, with all that later moves depend on; moves on them do not change the copies.

        They are data without a thread or a process, and may be put on boards of any game of the same maker and options.

        Args:
            indices: int64 [n], the boards.
        """
        ...

    def put_boards(self, indices: NDArray[np.int64], boards: Sequence[Any]) -> None:
        """Put some boards where others were when :meth:`copy_boards` copied them; a copy can be put again.

        Args:
            indices: int64 [n], the boards, each once.
            boards: n copies.
        """
        ...


@runtime_checkable
class SolvingGame(Game, Protocol):
    """A game that finds forced wins by a search of its own, such as mates.

    Optional. A tree search asks it before it asks the network.
    """

    def find_wins(self, indices: NDArray[np.int64], max_nodes: int) -> NDArray[np.int64]:
        """Actions of the movers on some boards that win by force, int64 [n]; :data:`NO_MOVE` where none was found.

        Args:
            indices: int64 [n], the boards.
            max_nodes: positions to look at for each.
        """
        ...


@runtime_checkable
class RecordedGame(Game, Protocol):
    """A game whose records other programs read, with the players' names in them.

    Optional. An evaluation writes these files; without them it writes :meth:`~Game.record` as text.
    """

    def record_files(self, index: int, *, players: tuple[str, str], outcome: str) -> Mapping[str, str]:
        """One board's game as files.

        Args:
            index: the board.
            players: names of the players in seat 0 and seat 1.
            outcome: how the game ended: as :meth:`~Game.outcome` says, ``"resignation"`` (of the player to move) or
                ``"void"`` (stopped without a result).

        Returns:
            Text by the ending of the file's name, such as ``{".kifu": "..."}``; written as UTF-8. The first one is also
            what a training run keeps of its last evaluation game.
        """
        ...


@runtime_checkable
class ClickableGame(Game, Protocol):
    """A game whose picture a person can play on.

    Optional. In the SVG of :meth:`~Game.render`, squares and the mover's pieces in hand carry an attribute
    ``data-part`` with a name; several elements may carry the same. Their middle is in ``data-x`` and ``data-y``, in the
    units of the view box. A class ``turned`` on the svg element turns the board by half a turn.
    """

    def move_parts(self, index: int, action: int) -> tuple[str, ...]:
        """The parts that a person clicks, in order, to make a legal action on one board: ("7g", "7f"), ("P*", "5e").

        Legal actions may have the same parts (a move with and without promotion): :meth:`~Game.action_name` tells them
        apart. An action without a place on the board, such as a pass, has none: ``()``.
        """
        ...


@runtime_checkable
class DescribedGame(Game, Protocol):
    """A game whose moves can be made in more than one way, by a compiled library or without it, say.

    Optional. ``keisei games`` and ``keisei bench`` print it.
    """

    @property
    def implementation(self) -> str:
        """How moves are made here, such as ``"moves by the compiled kernel"``."""
        ...


GameFactory = Callable[[int], Game]
"""Makes a game of the given number of boards. It must be picklable by cloudpickle: it is shipped to the workers."""
