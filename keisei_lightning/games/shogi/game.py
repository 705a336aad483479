"""Shogi on G boards: legal moves and results.

Observation bytes and action labels are described in :mod:`keisei_lightning.games.shogi.codec`.

A game ends, in this order of precedence:

==================== =======================================================================================
outcome              result
==================== =======================================================================================
``checkmate``        the side to move is in check without a legal move, and loses
``no legal move``    the side to move is not in check but has no legal move, and loses (there is no stalemate)
``perpetual check``  a position occurs for the fourth time, and one side gave check with every move since its first
                     occurrence: that side loses
``repetition``       any other fourth occurrence of a position (board, hands and side to move): draw
``declaration``      the side to move satisfies the 27-point entering-king rule, and wins. It is claimed
                     automatically, as soon as it holds: the reward of the player who has just moved is -1
``max plies``        ``max_plies`` plies have been played: draw. It is part of the rules here (the ply is part of the
                     observation), so the board is ``terminated``, not ``truncated``
==================== =======================================================================================

Moves are made and found by :mod:`keisei_lightning.games.shogi.kernel` where it is compiled, and else by rsshogi, which
also reads and writes positions and games; both play alike, number by number.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rsshogi.core import Board, Move
from rsshogi.record import Record

from keisei_lightning.errors import ConfigError, GameError, IllegalActionError
from keisei_lightning.games.arrays import OwnThread, as_actions, as_indices, check_options
from keisei_lightning.games.protocol import NO_MOVE, GameSpec, RenderFormat, StepResult
from keisei_lightning.games.shogi.boards import LibraryBoards, ShogiBoards
from keisei_lightning.games.shogi.codec import (
    CHECK_BYTE,
    NUM_ACTIONS,
    OBSERVATION_BYTES,
    PLY_BYTE,
    REPETITION_BYTE,
    describe_label,
    label_table,
    mirror_symmetry,
)
from keisei_lightning.games.shogi.drawing import diagram
from keisei_lightning.games.shogi.kernel import KernelBoards, load_kernel, why_no_kernel
from keisei_lightning.games.shogi.record import finish_record, write_csa, write_record
from keisei_lightning.games.shogi.rules import (
    CHECKMATE,
    DECLARATION,
    FOURTH,
    MAX_PLIES,
    NO_LEGAL_MOVE,
    PERPETUAL_CHECK,
    REPETITION,
    declarations,
    end_of,
    fourfold_end,
    parse_history,
    parse_sfen,
    random_opening,
)

__all__ = ["DEFAULT_MAX_PLIES", "OUTCOMES", "Shogi"]

DEFAULT_MAX_PLIES: Final = 320
"""The usual limit of computer shogi tournaments; a game between people takes about 110 plies."""
OUTCOMES: Final = (CHECKMATE, NO_LEGAL_MOVE, PERPETUAL_CHECK, REPETITION, DECLARATION, MAX_PLIES)
"""Every way a game can end."""


class Shogi:
    """G boards of shogi that advance together; a :class:`~keisei_lightning.games.protocol.Game`.

    The boards are made by the first call that needs them and belong to the thread that makes it.

    Args:
        num_games: G.
        max_plies: a game is drawn after this many plies (counted from the SFEN's move number after
            :meth:`set_position`).
        opening_plies: each reset plays uniformly 0 to this many uniformly random legal plies, passing over those that
            would end the game.
        declaration: whether a win by entering-king declaration exists.
        kernel: whether moves are made and found by the compiled library; None: where there is one.

    Raises:
        ConfigError: an option is out of range, or there is no compiled library.
    """

    def __init__(
        self,
        num_games: int,
        *,
        max_plies: int | None = None,
        opening_plies: int = 0,
        declaration: bool = True,
        kernel: bool | None = None,
    ) -> None:
        max_plies = DEFAULT_MAX_PLIES if max_plies is None else max_plies
        check_options(
            "shogi",
            {"num_games": (num_games, 1), "max_plies": (max_plies, 1), "opening_plies": (opening_plies, 0)},
            {"declaration": declaration} | ({} if kernel is None else {"kernel": kernel}),
        )
        if kernel and (reason := why_no_kernel()):
            raise ConfigError(f"shogi: kernel=True, but there is no compiled library: {reason}")
        self._kernel = None if kernel is False else load_kernel()
        self._spec = GameSpec(
            name="shogi",
            num_actions=NUM_ACTIONS,
            observation_shape=(OBSERVATION_BYTES,),
            max_plies=max_plies,
            encoding="shogi",
            actions_by_square=True,
            board_shape=(9, 9),
            symmetries=(mirror_symmetry(),),
        )
        self.opening_plies = min(opening_plies, max_plies - 1)
        self._declaration = declaration
        self._random = random.Random(0)
        self._thread = OwnThread("shogi")
        self._num_games = num_games
        self._made: ShogiBoards | None = None
        self._outcome: list[str] = [""] * num_games
        self._winner: list[int | None] = [None] * num_games
        self._ply = np.zeros(num_games, dtype=np.int64)
        self._ended = np.zeros(num_games, dtype=np.bool_)

    @property
    def spec(self) -> GameSpec:
        """The game's constant shape."""
        return self._spec

    @property
    def num_games(self) -> int:
        """G, the number of boards."""
        return self._num_games

    def seed(self, seed: int) -> None:
        """Seed the random openings."""
        self._random.seed(seed)

    def reset(self, indices: NDArray[np.int64] | None = None) -> None:
        """Put boards back to the start and play their random openings."""
        self._thread.check()
        named = as_indices(indices, self.num_games)
        if self._made is None:
            self._made = self._make_boards()
            named = list(range(self.num_games))  # fresh boards have no state at all yet
        for index in named:
            self._begin(index, Board(), self._draw_opening())

    def observe(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], mover: NDArray[np.int8]) -> None:
        """Write the state of every board into the caller's arrays."""
        boards = self._boards
        observation[...] = boards.state
        boards.write_masks(legal)
        mover[...] = boards.mover

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Play one action on every board."""
        boards = self._boards
        rows, labels = as_actions(actions, self.num_games)
        codes = boards.lookup(rows, labels)
        if not codes.all():
            self._refuse(int(rows[codes == 0][0]), int(labels[codes == 0][0]))
        reward = np.zeros(self.num_games, dtype=np.float32)
        if rows.size:
            sizes = boards.advance(rows, codes)
            self._ply[rows] += 1
            boards.state[rows, PLY_BYTE] = self._ply_byte(self._ply[rows])
            reward[rows] = self._finish_games(rows, sizes)
        return StepResult(reward, self._ended.copy(), np.zeros(self.num_games, dtype=np.bool_))

    def position(self, index: int) -> str:
        """SFEN of one board; its move number is the ply + 1."""
        return f"{self._board(index).to_sfen().rsplit(' ', 1)[0]} {self._ply[index] + 1}"

    def set_position(self, index: int, position: str) -> None:
        """Put one board into a position given as SFEN (or ``"startpos"``); a missing move number counts as 1.

        Raises:
            GameError: the SFEN cannot be read, the position is impossible, or it is already over.
        """
        index = self._index(index)
        board = parse_sfen(position)
        end = end_of(board, max_plies=self._spec.max_plies, declaration=self._declaration)
        if end:
            raise GameError(f"shogi: the position {position!r} is already over: {end}")
        self._begin(index, board)

    def history(self, index: int) -> str:
        """One board's start position and all moves since, as in USI's ``position`` command: ``SFEN moves 7g7f ...``."""
        boards, index = self._boards, self._index(index)
        return " ".join([boards.start[index], "moves", *(Move(code).to_usi() for code in boards.played(index))])

    def set_history(self, index: int, history: str) -> None:
        """Put one board where :meth:`history` left it, with all occurrences of its positions.

        Raises:
            GameError: a move is not legal, or the SFEN cannot be read.
        """
        self._begin(self._index(index), *parse_history(history))

    def copy_boards(self, indices: NDArray[np.int64]) -> list[Any]:
        """Some boards as they are, for :meth:`put_boards`: bytes of their positions, moves and legal moves."""
        boards, rows = self._boards, as_indices(indices, self.num_games)
        return [
            (copy, self._outcome[row], self._winner[row], int(self._ply[row]), bool(self._ended[row]))
            for row, copy in zip(rows, boards.copy(np.array(rows, np.int64)), strict=True)
        ]

    def put_boards(self, indices: NDArray[np.int64], boards: Sequence[Any]) -> None:
        """Put some boards where others were when :meth:`copy_boards` copied them."""
        rows = as_indices(indices, self.num_games)
        self._boards.put(np.array(rows, np.int64), [copy for copy, *_ in boards])
        for row, board in zip(rows, boards, strict=True):
            _, self._outcome[row], self._winner[row], self._ply[row], self._ended[row] = board

    def action_name(self, index: int, action: int) -> str:
        """USI of a legal action of one board's mover.

        Raises:
            IllegalActionError: the action is not legal on that board.
        """
        index = self._index(index)
        code = int(self._boards.lookup(np.array([index]), np.array([action]))[0])
        if code == 0:
            self._refuse(index, action)
        return str(Move(code).to_usi())

    def action_of(self, index: int, usi: str) -> int:
        """Action label of a legal move of one board's mover, given in USI: the inverse of :meth:`action_name`.

        Raises:
            IllegalActionError: the text is no USI move, or the move is not legal on that board.
        """
        boards, index = self._boards, self._index(index)
        try:
            code = hash(Move.from_usi(usi))
        except ValueError:
            code = 0
        label = int(label_table()[boards.mover[index], code])
        # A label says where to, not where from: the legal move that has it must be this one.
        if code == 0 or boards.lookup(np.array([index]), np.array([label]))[0] != code:
            raise IllegalActionError(
                game="shogi", ply=int(self._ply[index]), position=self.position(index), move=repr(usi)
            )
        return label

    def mate_in_one(self, index: int) -> int:
        """Action label of a move of one board's mover that is checkmate; ``NO_MOVE`` where there is none."""
        board = self._board(index)
        move = None if self._ended[index] else board.solve_mate_in_one()
        return NO_MOVE if move is None else self.action_of(index, move.to_usi())

    def find_wins(self, indices: NDArray[np.int64], max_nodes: int) -> NDArray[np.int64]:
        """Labels of moves of some boards' movers that win by force, int64 [n]; ``NO_MOVE`` where none was found.

        Mates by checks alone, by proof-number search; where there is no compiled library, mates in one.

        Args:
            indices: int64 [n], the boards.
            max_nodes: positions to look at for each.
        """
        boards, rows = self._boards, np.array(as_indices(indices, self.num_games), np.int64)
        # A mate that takes more plies than are left is none.
        found = boards.find_mates(rows, max_nodes, self._spec.max_plies - self._ply[rows])
        return np.where(self._ended[rows], NO_MOVE, found)

    def move_parts(self, index: int, action: int) -> tuple[str, ...]:
        """What a person clicks to make a legal action: ("7g", "7f"), or a piece in hand and a square, ("P*", "5e")."""
        return (usi := self.action_name(index, action))[:2], usi[2:4]

    def outcome(self, index: int) -> str:
        """How a board's game ended, one of :data:`OUTCOMES`; empty while it is not over."""
        return self._outcome[self._index(index)]

    def render(self, index: int, format: RenderFormat = "text") -> str:
        """Draw one board: the usual Japanese diagram as text, or an SVG picture."""
        board, outcome = self._board(index), self._outcome[index]
        status = outcome or f"{('first', 'second')[self._boards.mover[index]]} to move"
        return diagram(board, status=f"ply {self._ply[index]}, {status}", format=format, over=bool(outcome))

    @property
    def implementation(self) -> str:
        """What makes the moves: the compiled kernel; or rsshogi, with the reason."""
        if self._kernel is not None:
            return "moves by the compiled kernel"
        return f"moves by rsshogi ({why_no_kernel() or 'kernel=false'}), at a third of the compiled kernel's speed"

    def record(self, index: int) -> str:
        """The game of one board as KIF."""
        return str(self._record(index).to_kif())

    def record_files(self, index: int, *, players: tuple[str, str], outcome: str) -> Mapping[str, str]:
        """The game of one board as KIF and CSA, with the players' names and its end.

        The ending ``.kifu`` says UTF-8; ``.kif`` would say Shift JIS, which lacks letters of other alphabets.
        """
        record = self._record(index)
        finish_record(record, players, outcome=outcome, loser=int(self._boards.mover[index]))
        return {".kifu": str(record.to_kif()), ".csa": write_csa(record)}

    def csa(self, index: int) -> str:
        """The game of one board as CSA."""
        return write_csa(self._record(index))

    def usi(self, index: int) -> str:
        """The game of one board as USI's ``position`` command."""
        return str(self._record(index).to_usi_position())

    def _record(self, index: int) -> Record:
        boards, index = self._boards, self._index(index)
        return write_record(
            boards.start[index], boards.played(index), outcome=self._outcome[index], winner=self._winner[index]
        )

    def _make_boards(self) -> ShogiBoards:
        return LibraryBoards(self.num_games) if self._kernel is None else KernelBoards(self.num_games, self._kernel)

    @property
    def _boards(self) -> ShogiBoards:
        """The boards; another thread is refused, and where there are none they are made."""
        self._thread.check()
        if self._made is None:
            self.reset()
        assert self._made is not None
        return self._made

    def _index(self, index: int) -> int:
        """A board's index, once another thread and an index that there is not are refused."""
        self._thread.check()
        return as_indices(np.array([index]), self.num_games)[0]

    def _board(self, index: int) -> Board:
        return self._boards.board(self._index(index))

    def _refuse(self, index: int, action: int) -> None:
        raise IllegalActionError(
            game="shogi", ply=int(self._ply[index]), position=self.position(index), move=describe_label(action)
        )

    def _ply_byte(self, ply: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.minimum(255, ply * 255 // self._spec.max_plies)

    def _finish_games(self, rows: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.float32]:
        """End the games that are over.

        Args:
            rows: int64 [n], the boards that moved.
            sizes: int64 [n], how many legal moves each has now.

        Returns:
            The rewards to the players who have just moved, float32 [n].
        """
        boards = self._boards
        states, movers = boards.state[rows], boards.mover[rows]
        ends: dict[int, tuple[str, int]] = {}  # the first entry of a board counts: this is the order of precedence
        for at in np.flatnonzero(sizes == 0).tolist():
            ends[at] = (CHECKMATE if states[at, CHECK_BYTE] else NO_LEGAL_MOVE, 1)
        for at in np.flatnonzero(states[:, REPETITION_BYTE] >= FOURTH).tolist():
            ends.setdefault(at, fourfold_end(boards.board(int(rows[at]))))
        if self._declaration:
            for at in np.flatnonzero(declarations(states, movers)).tolist():
                ends.setdefault(at, (DECLARATION, -1))
        for at in np.flatnonzero(self._ply[rows] >= self._spec.max_plies).tolist():
            ends.setdefault(at, (MAX_PLIES, 0))
        reward = np.zeros(len(rows), dtype=np.float32)
        for at, (outcome, result) in ends.items():
            row = int(rows[at])
            just_moved = 1 - int(movers[at])
            self._outcome[row] = outcome
            self._winner[row] = {1: just_moved, 0: None, -1: 1 - just_moved}[result]
            reward[at] = result
        if ends:
            over = rows[list(ends)]
            self._ended[over] = True
            boards.clear_moves(over)
        return reward

    def _begin(self, index: int, board: Board, codes: Sequence[int] = ()) -> None:
        """Begin a game on one board, from a position and some moves from there."""
        boards = self._boards
        self._outcome[index] = ""
        self._winner[index] = None
        self._ended[index] = False
        self._ply[index] = max(board.game_ply - 1, 0) + len(codes)
        boards.begin(index, board, codes)
        boards.state[index, PLY_BYTE] = self._ply_byte(self._ply[index])

    def _draw_opening(self) -> list[int]:
        """The moves of a random opening."""
        board, plies = Board(), self._random.randint(0, self.opening_plies)
        return random_opening(board, {board.zobrist_hash(): 1}, plies, self._random, declaration=self._declaration)
