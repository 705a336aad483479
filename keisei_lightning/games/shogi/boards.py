"""What moves on G boards of shogi: positions, legal moves and observations as arrays, ply by ply.

:class:`LibraryBoards` asks rsshogi, one Python iteration a board; everything else is one NumPy operation for all
boards. :class:`~keisei_lightning.games.shogi.kernel.KernelBoards` does the same, compiled, in a fraction of the time
where the installation had a C compiler. Both give the same numbers. Results are the business of
:class:`~keisei_lightning.games.shogi.game.Shogi`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rsshogi.core import Board
from typing_extensions import override

from keisei_lightning.games.arrays import LegalMoves
from keisei_lightning.games.protocol import NO_MOVE
from keisei_lightning.games.shogi.codec import (
    CHECK_BYTE,
    NUM_ACTIONS,
    OBSERVATION_BYTES,
    PLY_BYTE,
    REPETITION_BYTE,
    advance,
    label_table,
)
from keisei_lightning.games.shogi.rules import MoveCache, board_state, parse_sfen

__all__ = ["LibraryBoards", "ShogiBoards"]

_CODE: Final = "I"  # of move codes in array(): 32 bits
_HIGHEST_CODE: Final = (1 << 16) - 1  # see label_table


_left_boards: Final[deque[tuple[int, list[Any]]]] = deque()
"""Boards that another thread than their own found to be garbage, each with its own thread."""


def _free_left_boards() -> None:
    """Free those that belong to this thread."""
    for _ in range(len(_left_boards)):
        owner, boards = _left_boards.popleft()
        if owner != threading.get_ident():
            _left_boards.append((owner, boards))


class ShogiBoards(ABC):
    """G boards that advance together. They belong to the thread that makes them.

    Args:
        num_games: G.

    Attributes:
        state: uint8 [G, 98], observations in the mover's view; the caller writes the byte of the ply.
        mover: int8 [G], the seat to move.
        start: SFEN that each board began with.
    """

    _boards: list[Any]  # rsshogi's, or what holds them

    def __init__(self, num_games: int) -> None:
        self.state = np.zeros((num_games, OBSERVATION_BYTES), np.uint8)
        self.mover = np.zeros(num_games, np.int8)
        self.start = [""] * num_games
        self._owner = threading.get_ident()
        _free_left_boards()

    def __del__(self) -> None:
        """Leave rsshogi's boards to their own thread: no other can free them, and any may collect garbage."""
        if hasattr(self, "_boards") and threading.get_ident() != self._owner:
            _left_boards.append((self._owner, self._boards))

    @abstractmethod
    def begin(self, index: int, board: Board, codes: Sequence[int] = ()) -> None:
        """Begin a game on one board.

        Args:
            index: which.
            board: the position to begin with; it is kept, and moved.
            codes: moves to make at once; they count for repetitions and belong to :meth:`played`.
        """

    @abstractmethod
    def advance(self, rows: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Make one legal move on each of n boards.

        Args:
            rows: int64 [n], the boards, each at most once.
            codes: int64 [n], move codes.

        Returns:
            int64 [n]: how many legal moves each has then.
        """

    @abstractmethod
    def lookup(self, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Move codes of action labels, int64 [n]; 0 where the action is illegal or no label at all."""

    @abstractmethod
    def write_masks(self, legal: NDArray[np.uint8]) -> None:
        """Write the legal moves of every board into uint8 [G, 274], bit-packed in ``np.packbits`` order."""

    @abstractmethod
    def clear_moves(self, rows: NDArray[np.int64]) -> None:
        """Leave some boards without a legal move: their games are over."""

    @abstractmethod
    def find_mates(self, rows: NDArray[np.int64], max_nodes: int, max_plies: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels of moves with which the movers of some boards mate by force, int64 [n]; ``NO_MOVE``: none was found.

        Args:
            rows: int64 [n], the boards.
            max_nodes: positions to look at for each.
            max_plies: int64 [n], the longest mate.
        """

    @abstractmethod
    def copy(self, rows: NDArray[np.int64]) -> list[Any]:
        """Some boards as they are, for :meth:`put`."""

    @abstractmethod
    def put(self, rows: NDArray[np.int64], boards: Sequence[Any]) -> None:
        """Put some boards where others were when :meth:`copy` copied them."""

    @abstractmethod
    def played(self, index: int) -> list[int]:
        """Codes of all moves of one board since it began."""

    @abstractmethod
    def board(self, index: int) -> Board:
        """One board as rsshogi's, with its history; not to be moved."""


_CODE_BITS = 0xFFFF


class LibraryBoards(ShogiBoards):
    """The boards as rsshogi plays them.

    The observations are a mirror of the boards that is updated from the moves, and the legal moves' labels come from
    one table. What the library would have to be asked twice (the legal moves of the position just reached, for the end
    of the game and for the mask) is kept.
    """

    def __init__(self, num_games: int) -> None:
        super().__init__(num_games)
        self._labels = label_table().reshape(-1)  # at seat << 16 | move code
        self._moves = MoveCache()
        self._boards: list[Board] = [Board() for _ in range(num_games)]
        self._seen: list[dict[int, int]] = [{} for _ in range(num_games)]  # occurrences by position hash
        self._played: list[list[int]] = [[] for _ in range(num_games)]
        self._legal = LegalMoves(num_games, NUM_ACTIONS, highest=_HIGHEST_CODE)

    @override
    def begin(self, index: int, board: Board, codes: Sequence[int] = ()) -> None:
        self.start[index] = board.to_sfen()
        self._boards[index] = board
        self._seen[index] = {board.zobrist_hash(): 1}
        self._played[index] = []
        for code in codes:
            self._make_move(index, code)
        self.state[index] = board_state(board)
        self.state[index, REPETITION_BYTE] = self._seen[index][board.zobrist_hash()] - 1
        self.mover[index] = int(board.turn)
        options = board.legal_moves()
        self._write_legal(np.array([index]), array(_CODE, map(hash, options)), [len(options)])

    def _make_move(self, index: int, code: int) -> int:
        """Make a move; returns how often the new position occurred before."""
        board, seen = self._boards[index], self._seen[index]
        board.apply_move(self._moves[code])
        key = board.zobrist_hash()
        before = seen.get(key, 0)
        seen[key] = before + 1
        self._played[index].append(code)
        return before

    @override
    def advance(self, rows: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        occurrences, checks = list[int](), list[bool]()
        # Straight into an array: no list keeps the numbers alive, so each takes the memory of the one before.
        legal, sizes = array(_CODE), list[int]()
        for row, code in zip(rows.tolist(), codes.tolist(), strict=True):
            occurrences.append(self._make_move(row, code))
            board = self._boards[row]
            checks.append(board.is_in_check())
            options = board.legal_moves()
            legal.extend(map(hash, options))  # a move's hash is its code, and hash() is quicker than int()
            sizes.append(len(options))
        states = advance(self.state[rows], codes, self.mover[rows])
        states[:, REPETITION_BYTE] = np.array(occurrences, dtype=np.uint8)
        states[:, CHECK_BYTE] = checks
        self.state[rows] = states
        self.mover[rows] ^= 1
        self._write_legal(rows, legal, sizes)
        return np.array(sizes)

    def _write_legal(self, rows: NDArray[np.int64], codes: array[int], sizes: list[int]) -> None:
        moves = np.frombuffer(codes, dtype=np.uint32)
        labels = self._labels.take(np.repeat(self.mover[rows].astype(np.uint32) << 16, sizes) + moves)
        self._legal.write(rows, sizes, labels, moves)

    @override
    def lookup(self, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._legal.lookup(rows, labels)

    @override
    def write_masks(self, legal: NDArray[np.uint8]) -> None:
        self._legal.pack(legal)

    @override
    def clear_moves(self, rows: NDArray[np.int64]) -> None:
        self._legal.clear(rows)

    @override
    def find_mates(self, rows: NDArray[np.int64], max_nodes: int, max_plies: NDArray[np.int64]) -> NDArray[np.int64]:
        found = [self._boards[row].solve_mate_in_one() for row in rows.tolist()]  # rsshogi knows no longer one
        labels = [
            # The solver's moves tell their pieces too, above the code.
            NO_MOVE if move is None else int(label_table()[self.mover[row], hash(move) & _CODE_BITS])
            for row, move in zip(rows.tolist(), found, strict=True)
        ]
        return np.where(max_plies > 0, np.array(labels, np.int64), NO_MOVE)

    @override
    def copy(self, rows: NDArray[np.int64]) -> list[Any]:
        # Data alone: rsshogi's boards belong to a thread. So putting it plays the game again.
        return [
            (self.start[row], tuple(self._played[row]), int(self.state[row, PLY_BYTE]), self._legal.row(row))
            for row in rows.tolist()
        ]

    @override
    def put(self, rows: NDArray[np.int64], boards: Sequence[Any]) -> None:
        for row, (start, codes, ply_byte, legal) in zip(rows.tolist(), boards, strict=True):
            self.begin(row, parse_sfen(start), codes)
            self.state[row, PLY_BYTE] = ply_byte
            self._legal.put_row(row, legal)  # none where the game is over

    @override
    def played(self, index: int) -> list[int]:
        return self._played[index]

    @override
    def board(self, index: int) -> Board:
        return self._boards[index]
