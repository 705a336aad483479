"""Shogi on G boards: rules by rsshogi, arrays by NumPy.

Observation bytes and action labels are described in :mod:`keisei_lightning.games.shogi_codec`, whose layout constants
are exported here too.

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

The hot path costs one Python iteration a board (make the move, list the legal moves, hash); everything else is one
NumPy operation for all boards: the observations are a mirror of the boards that is updated from the moves, and the
legal moves' labels come from one table. What the rules library would have to be asked twice (the legal moves of the
position just reached, for the end of the game and for the mask) is kept.
"""

from __future__ import annotations

import random
from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rsshogi.core import Board, Move
from rsshogi.record import Record
from rsshogi.types import RepetitionState

from keisei_lightning.errors import GameError, IllegalActionError
from keisei_lightning.games.arrays import LegalMoves, OwnThread, as_actions, as_indices, check_options
from keisei_lightning.games.protocol import NO_MOVE, GameSpec, RenderFormat, StepResult
from keisei_lightning.games.shogi_codec import (
    CHECK_BYTE,
    HAND_LIMITS,
    MOVE_TYPES,
    NUM_ACTIONS,
    NUM_MOVE_TYPES,
    NUM_SQUARE_CODES,
    NUM_SQUARES,
    OBSERVATION_BYTES,
    PIECE_NAMES,
    PLY_BYTE,
    REPETITION_BYTE,
    advance,
    describe_label,
    label_table,
    mirror_sfen,
    mirror_symmetry,
)
from keisei_lightning.games.shogi_record import diagram, write_record
from keisei_lightning.games.shogi_rules import (
    CHECKMATE,
    DECLARATION,
    FOURTH,
    MAX_PLIES,
    NO_LEGAL_MOVE,
    PERPETUAL_CHECK,
    REPETITION,
    MoveCache,
    board_state,
    declarations,
    end_of,
    parse_sfen,
    random_opening,
)

__all__ = [
    "CHECK_BYTE",
    "DEFAULT_MAX_PLIES",
    "HAND_LIMITS",
    "MOVE_TYPES",
    "NUM_ACTIONS",
    "NUM_MOVE_TYPES",
    "NUM_SQUARES",
    "NUM_SQUARE_CODES",
    "OBSERVATION_BYTES",
    "OUTCOMES",
    "PIECE_NAMES",
    "PLY_BYTE",
    "REPETITION_BYTE",
    "Shogi",
    "make",
    "mirror_sfen",
]

DEFAULT_MAX_PLIES: Final = 320
"""The usual limit of computer shogi tournaments; a game between people takes about 110 plies."""
OUTCOMES: Final = (CHECKMATE, NO_LEGAL_MOVE, PERPETUAL_CHECK, REPETITION, DECLARATION, MAX_PLIES)
"""Every way a game can end."""
_CODE: Final = "I"  # of move codes in array(): 32 bits


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

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self, num_games: int, *, max_plies: int | None = None, opening_plies: int = 0, declaration: bool = True
    ) -> None:
        max_plies = DEFAULT_MAX_PLIES if max_plies is None else max_plies
        check_options(
            "shogi",
            {"num_games": (num_games, 1), "max_plies": (max_plies, 1), "opening_plies": (opening_plies, 0)},
            {"declaration": declaration},
        )
        self._spec = GameSpec(
            name="shogi",
            num_actions=NUM_ACTIONS,
            observation_shape=(OBSERVATION_BYTES,),
            max_plies=max_plies,
            encoding="shogi",
            board_shape=(9, 9),
            symmetries=(mirror_symmetry(),),
        )
        self.opening_plies = min(opening_plies, max_plies - 1)
        self._declaration = declaration
        self._labels = label_table().reshape(-1)  # at seat << 16 | move code
        self._moves = MoveCache()
        self._random = random.Random(0)
        self._thread = OwnThread("shogi")
        self._boards: list[Board] = []
        self._seen: list[dict[int, int]] = [{} for _ in range(num_games)]  # occurrences by position hash
        self._played: list[list[int]] = [[] for _ in range(num_games)]  # move codes since the start
        self._start: list[str] = [""] * num_games
        self._outcome: list[str] = [""] * num_games
        self._winner: list[int | None] = [None] * num_games
        self._state = np.zeros((num_games, OBSERVATION_BYTES), dtype=np.uint8)
        self._mover = np.zeros(num_games, dtype=np.int8)
        self._ply = np.zeros(num_games, dtype=np.int64)
        self._ended = np.zeros(num_games, dtype=np.bool_)
        self._legal = LegalMoves(num_games, NUM_ACTIONS, np.uint16)

    @property
    def spec(self) -> GameSpec:
        """The game's constant shape."""
        return self._spec

    @property
    def num_games(self) -> int:
        """G, the number of boards."""
        return len(self._seen)

    def seed(self, seed: int) -> None:
        """Seed the random openings."""
        self._random.seed(seed)

    def reset(self, indices: NDArray[np.int64] | None = None) -> None:
        """Put boards back to the start and play their random openings."""
        self._thread.check()
        named = as_indices(indices, self.num_games)
        if not self._boards:
            self._boards = [Board() for _ in range(self.num_games)]
            named = list(range(self.num_games))  # fresh boards have no state at all yet
        for index in named:
            self._place(index, Board())
            self._play_opening(index)
        self._refresh(named)

    def observe(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], mover: NDArray[np.int8]) -> None:
        """Write the state of every board into the caller's arrays."""
        self._ready()
        observation[...] = self._state
        self._legal.pack(legal)
        mover[...] = self._mover

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Play one action on every board."""
        self._ready()
        rows, labels = as_actions(actions, self.num_games)
        codes = self._legal.lookup(rows, labels)
        if not codes.all():
            self._refuse(int(rows[codes == 0][0]), int(labels[codes == 0][0]))
        reward = np.zeros(self.num_games, dtype=np.float32)
        if rows.size:
            occurrences, checks, moves, sizes = self._make_moves(rows.tolist(), codes.tolist())
            self._update(rows, codes, occurrences, checks)
            self._write_legal(rows, moves, sizes)
            reward[rows] = self._judge(rows, occurrences, np.array(sizes))
        return StepResult(reward, self._ended.copy(), np.zeros(self.num_games, dtype=np.bool_))

    def position(self, index: int) -> str:
        """SFEN of one board; its move number is the ply + 1."""
        board = self._board(index)
        return f"{board.to_sfen().rsplit(' ', 1)[0]} {self._ply[index] + 1}"

    def set_position(self, index: int, position: str) -> None:
        """Put one board into a position given as SFEN (or ``"startpos"``); a missing move number counts as 1.

        Raises:
            GameError: the SFEN cannot be read, the position is impossible, or it is already over.
        """
        self._board(index)
        board = parse_sfen(position)
        end = end_of(board, max_plies=self._spec.max_plies, declaration=self._declaration)
        if end:
            raise GameError(f"shogi: the position {position!r} is already over: {end}")
        self._place(index, board)
        self._refresh([index])

    def history(self, index: int) -> str:
        """One board's start position and all moves since, as in USI's ``position`` command: ``SFEN moves 7g7f ...``."""
        self._board(index)
        return " ".join([self._start[index], "moves", *(self._moves[code].to_usi() for code in self._played[index])])

    def set_history(self, index: int, history: str) -> None:
        """Put one board where :meth:`history` left it, with all occurrences of its positions.

        Raises:
            GameError: a move is not legal, or the SFEN cannot be read.
        """
        self._board(index)
        start, _, moves = history.partition(" moves")
        self._place(index, parse_sfen(start))
        for usi in moves.split():
            codes = [hash(move) for move in self._boards[index].legal_moves() if move.to_usi() == usi]
            if not codes:
                raise GameError(f"shogi: {usi!r} is not legal in {self.position(index)!r}, in the history {history!r}")
            self._make_moves([index], codes)
            self._ply[index] += 1
        self._refresh([index])

    def action_name(self, index: int, action: int) -> str:
        """USI of a legal action of one board's mover.

        Raises:
            IllegalActionError: the action is not legal on that board.
        """
        self._board(index)
        code = int(self._legal.lookup(np.array([index]), np.array([action]))[0])
        if code == 0:
            self._refuse(index, action)
        return self._moves[code].to_usi()

    def action_of(self, index: int, usi: str) -> int:
        """Action label of a legal move of one board's mover, given in USI: the inverse of :meth:`action_name`.

        Raises:
            IllegalActionError: the text is no USI move, or the move is not legal on that board.
        """
        self._board(index)
        try:
            code = hash(Move.from_usi(usi))
        except ValueError:
            code = 0
        label = int(self._labels[int(self._mover[index]) << 16 | code])
        # A label says where to, not where from: the legal move that has it must be this one.
        if code == 0 or self._legal.lookup(np.array([index]), np.array([label]))[0] != code:
            raise IllegalActionError(
                game="shogi", ply=int(self._ply[index]), position=self.position(index), move=repr(usi)
            )
        return label

    def mate_in_one(self, index: int) -> int:
        """Action label of a move of one board's mover that is checkmate; ``NO_MOVE`` where there is none."""
        board = self._board(index)
        move = None if self._ended[index] else board.solve_mate_in_one()
        return NO_MOVE if move is None else self.action_of(index, move.to_usi())

    def outcome(self, index: int) -> str:
        """How a board's game ended, one of :data:`OUTCOMES`; empty while it is going on."""
        self._board(index)
        return self._outcome[index]

    def render(self, index: int, format: RenderFormat = "text") -> str:
        """Draw one board: the usual Japanese diagram as text, or an SVG picture."""
        board = self._board(index)
        going_on = f"ply {self._ply[index]}, {('first', 'second')[self._mover[index]]} to move"
        return diagram(board, status=self._outcome[index] or going_on, format=format)

    def record(self, index: int) -> str:
        """The game of one board as KIF."""
        return str(self._record(index).to_kif())

    def csa(self, index: int) -> str:
        """The game of one board as CSA."""
        return str(self._record(index).to_csa())

    def usi(self, index: int) -> str:
        """The game of one board as USI's ``position`` command."""
        return str(self._record(index).to_usi_position())

    def _record(self, index: int) -> Record:
        self._board(index)
        return write_record(
            self._start[index], self._played[index], outcome=self._outcome[index], winner=self._winner[index]
        )

    def _ready(self) -> None:
        """Refuse another thread, and make the boards if there are none."""
        self._thread.check()
        if not self._boards:
            self.reset()

    def _board(self, index: int) -> Board:
        self._ready()
        return self._boards[as_indices(np.array([index]), self.num_games)[0]]

    def _refuse(self, index: int, action: int) -> None:
        raise IllegalActionError(
            game="shogi", ply=int(self._ply[index]), position=self.position(index), move=describe_label(action)
        )

    def _make_moves(
        self, rows: list[int], codes: list[int]
    ) -> tuple[NDArray[np.uint8], list[bool], array[int], list[int]]:
        """Make one move on each of n boards.

        Returns how often each new position occurred before (uint8 [n]), whether it is check, the codes of its legal
        moves, board after board, and how many they are.
        """
        boards, seen, played, moves = self._boards, self._seen, self._played, self._moves
        occurrences, checks = list[int](), list[bool]()
        # Straight into an array: no list keeps the numbers alive, so each takes the memory of the one before.
        legal, sizes = array(_CODE), list[int]()
        for row, code in zip(rows, codes, strict=True):
            board, positions = boards[row], seen[row]
            board.apply_move(moves[code])
            key = board.zobrist_hash()
            before = positions.get(key, 0)
            positions[key] = before + 1
            occurrences.append(before)
            played[row].append(code)
            checks.append(board.is_in_check())
            options = board.legal_moves()
            legal.extend(map(hash, options))  # a move's hash is its code, and hash() is quicker than int()
            sizes.append(len(options))
        return np.array(occurrences, dtype=np.uint8), checks, legal, sizes

    def _update(
        self, rows: NDArray[np.int64], codes: NDArray[np.int64], occurrences: NDArray[np.uint8], checks: list[bool]
    ) -> None:
        """Bring the arrays of the boards that moved up to date."""
        states = advance(self._state[rows], codes, self._mover[rows])
        self._mover[rows] ^= 1
        self._ply[rows] += 1
        states[:, REPETITION_BYTE] = occurrences
        states[:, CHECK_BYTE] = checks
        states[:, PLY_BYTE] = self._ply_byte(self._ply[rows])
        self._state[rows] = states

    def _ply_byte(self, ply: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.minimum(255, ply * 255 // self._spec.max_plies)

    def _write_legal(self, rows: NDArray[np.int64], codes: array[int], sizes: list[int]) -> None:
        moves = np.frombuffer(codes, dtype=np.uint32)
        labels = self._labels.take(np.repeat(self._mover[rows].astype(np.uint32) << 16, sizes) + moves)
        self._legal.write(rows, sizes, labels, moves)

    def _judge(
        self, rows: NDArray[np.int64], occurrences: NDArray[np.uint8], sizes: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """End the games that are over; returns the rewards to those who have just moved, float32 [n]."""
        ends: dict[int, tuple[str, int]] = {}  # first come, first served: the order is the order of precedence
        for at in np.flatnonzero(sizes == 0).tolist():
            ends[at] = (CHECKMATE if self._state[rows[at], CHECK_BYTE] else NO_LEGAL_MOVE, 1)
        for at in np.flatnonzero(occurrences >= FOURTH).tolist():
            ends.setdefault(at, self._fourfold(int(rows[at])))
        if self._declaration:
            for at in np.flatnonzero(declarations(self._state[rows], self._mover[rows])).tolist():
                ends.setdefault(at, (DECLARATION, -1))
        for at in np.flatnonzero(self._ply[rows] >= self._spec.max_plies).tolist():
            ends.setdefault(at, (MAX_PLIES, 0))
        reward = np.zeros(len(rows), dtype=np.float32)
        for at, (outcome, result) in ends.items():
            row = int(rows[at])
            just_moved = 1 - int(self._mover[row])
            self._outcome[row] = outcome
            self._winner[row] = {1: just_moved, 0: None, -1: 1 - just_moved}[result]
            reward[at] = result
        if ends:
            over = rows[list(ends)]
            self._ended[over] = True
            self._legal.clear(over)
        return reward

    def _fourfold(self, row: int) -> tuple[str, int]:
        """How a fourth occurrence ends; rsshogi's answer is from the view of the side to move."""
        state = self._boards[row].repetition_state()
        if state == RepetitionState.WIN:  # it was in check all the time
            return PERPETUAL_CHECK, -1
        if state == RepetitionState.LOSE:  # it gave check all the time
            return PERPETUAL_CHECK, 1
        return REPETITION, 0

    def _place(self, index: int, board: Board) -> None:
        """Begin a game on one board from a given position; :meth:`_refresh` must follow."""
        self._boards[index] = board
        self._seen[index] = {board.zobrist_hash(): 1}
        self._played[index] = []
        self._start[index] = board.to_sfen()
        self._outcome[index] = ""
        self._winner[index] = None
        self._ended[index] = False
        self._ply[index] = max(board.game_ply - 1, 0)

    def _refresh(self, indices: list[int]) -> None:
        """Read some boards into the arrays."""
        codes, sizes = array(_CODE), list[int]()
        for index in indices:
            board = self._boards[index]
            self._state[index] = board_state(board)
            self._state[index, REPETITION_BYTE] = self._seen[index][board.zobrist_hash()] - 1
            self._mover[index] = int(board.turn)
            options = board.legal_moves()
            codes.extend(map(hash, options))
            sizes.append(len(options))
        rows = np.array(indices, dtype=np.int64)
        self._state[rows, PLY_BYTE] = self._ply_byte(self._ply[rows])
        self._write_legal(rows, codes, sizes)

    def _play_opening(self, index: int) -> None:
        """Play the random opening of a board that :meth:`_place` has set up."""
        plies = self._random.randint(0, self.opening_plies)
        codes = random_opening(
            self._boards[index], self._seen[index], plies, self._random, declaration=self._declaration
        )
        self._played[index] += codes
        self._ply[index] += len(codes)


def make(num_games: int, *, max_plies: int | None = None, opening_plies: int = 0, declaration: bool = True) -> Shogi:
    """Make shogi by its options (the entry point of the game's name); see :class:`Shogi`."""
    return Shogi(num_games, max_plies=max_plies, opening_plies=opening_plies, declaration=declaration)
