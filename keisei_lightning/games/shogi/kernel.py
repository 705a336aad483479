"""Boards of shogi whose every ply is compiled: ``kernel.c`` beside this file, without a Python object a ply.

The library is built by ``pip install`` where there is a C compiler (``hatch_build.py``). Without it, or where it was
built from other source than lies here, :func:`load_kernel` says so and the boards are rsshogi's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rsshogi.core import Board
from typing_extensions import override

from keisei_lightning.games.shogi.boards import ShogiBoards
from keisei_lightning.games.shogi.codec import NUM_ACTIONS
from keisei_lightning.games.shogi.rules import MoveCache, board_state, parse_sfen
from keisei_lightning.system.compiled import load_library, why_no_library

__all__ = ["Kernel", "KernelBoards", "load_kernel", "why_no_kernel"]

_SOURCE: Final = Path(__file__).with_suffix(".c")
_MASK_BYTES: Final = (NUM_ACTIONS + 7) // 8
_MATE_ENTRY: Final = np.dtype([("key", np.uint64), ("phi", np.uint32), ("delta", np.uint32)])
_MOVE_BYTES: Final = 10  # of a copy, for each move since the start
_FIRST_CAPACITY: Final = 320  # moves of a game; more when one is longer


@dataclass(frozen=True, slots=True)
class Kernel:
    """The compiled library.

    Attributes:
        functions: of the C file, by name.
        position_bytes: of one board in the memory that it is given.
        copy_bytes: of a copy of a board without a move; each move adds :data:`_MOVE_BYTES`.
    """

    functions: ctypes.CDLL
    position_bytes: int
    copy_bytes: int


@cache
def load_kernel() -> Kernel | None:
    """The compiled library, ready for use; None where there is none (see :func:`why_no_kernel`)."""
    if why_no_kernel():
        return None
    library = load_library(_SOURCE)
    pointer, int64 = ctypes.c_void_p, ctypes.c_int64
    library.shogi_prepare.restype = library.shogi_copy_bytes.restype = int64
    library.shogi_begin.argtypes = [pointer, int64, pointer, ctypes.c_int32, pointer, int64]
    library.shogi_look_up.argtypes = library.shogi_advance.argtypes = [pointer, int64, pointer, pointer, pointer]
    library.shogi_copy.argtypes = library.shogi_put.argtypes = [pointer, int64, pointer, pointer, pointer]
    library.shogi_find_mates.argtypes = [pointer, int64, pointer, pointer, int64, pointer, int64, pointer]
    for function in ("begin", "look_up", "advance", "copy", "put", "find_mates"):
        getattr(library, f"shogi_{function}").restype = None
    return Kernel(library, library.shogi_prepare(), library.shogi_copy_bytes())


def why_no_kernel() -> str:
    """Why there is no compiled library, in a few words; empty where there is one."""
    return why_no_library(_SOURCE)


class _Boards(ctypes.Structure):
    """The arrays' addresses, as in the C file."""

    _fields_ = (
        ("positions", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("codes", ctypes.c_void_p),
        ("played", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
        ("state", ctypes.c_void_p),
        ("mover", ctypes.c_void_p),
        ("mask", ctypes.c_void_p),
    )


class KernelBoards(ShogiBoards):
    """The boards as the compiled library plays them; an rsshogi board is made where somebody asks for one.

    Args:
        num_games: G.
        kernel: from :func:`load_kernel`.
    """

    def __init__(self, num_games: int, kernel: Kernel) -> None:
        super().__init__(num_games)
        self._functions = kernel.functions
        self._positions = np.zeros((num_games, kernel.position_bytes), np.uint8)
        self._keys = np.zeros((num_games, _FIRST_CAPACITY + 1), np.uint64)
        self._codes = np.zeros((num_games, _FIRST_CAPACITY), np.uint16)
        self._num_played = np.zeros(num_games, np.int32)
        self._mask = np.zeros((num_games, _MASK_BYTES), np.uint8)
        # And how many moves have been made on it; None: it is not made yet.
        self._boards: list[tuple[Board, int] | None] = [None] * num_games
        self._copy_bytes = kernel.copy_bytes
        self._moves = MoveCache()
        self._bind()

    def _bind(self) -> None:
        arrays: dict[str, NDArray[Any]] = {
            "positions": self._positions,
            "keys": self._keys,
            "codes": self._codes,
            "played": self._num_played,
            "state": self.state,
            "mover": self.mover,
            "mask": self._mask,
        }
        addresses = {name: array.ctypes.data for name, array in arrays.items()}
        self._struct = _Boards(capacity=self._codes.shape[1], **addresses)
        self._address = ctypes.addressof(self._struct)

    def _reserve(self, num_moves: int) -> None:
        """Make room for games of so many moves."""
        more = num_moves - self._codes.shape[1]
        if more > 0:
            more = max(more, self._codes.shape[1])
            self._codes = np.pad(self._codes, ((0, 0), (0, more)))
            self._keys = np.pad(self._keys, ((0, 0), (0, more)))
            self._bind()

    @override
    def begin(self, index: int, board: Board, codes: Sequence[int] = ()) -> None:
        self.start[index], self._boards[index] = board.to_sfen(), (board, 0)
        self._reserve(len(codes))
        start, moves = board_state(board), np.array(codes, np.uint16)
        self._functions.shogi_begin(
            self._address, index, start.ctypes.data, int(board.turn), moves.ctypes.data, len(moves)
        )

    @override
    def advance(self, rows: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        self._reserve(int(self._num_played.max()) + 1)
        return self._ask(self._functions.shogi_advance, rows, codes)

    @override
    def find_mates(self, rows: NDArray[np.int64], max_nodes: int, max_plies: NDArray[np.int64]) -> NDArray[np.int64]:
        rows, max_plies = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(max_plies, np.int64)
        # Four entries for each node, so that few are overwritten.
        table, labels = np.empty(1 << (4 * max_nodes).bit_length(), _MATE_ENTRY), np.empty(len(rows), np.int64)
        self._functions.shogi_find_mates(
            self._address,
            len(rows),
            rows.ctypes.data,
            max_plies.ctypes.data,
            max_nodes,
            table.ctypes.data,
            len(table),
            labels.ctypes.data,
        )
        return labels

    @override
    def lookup(self, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._ask(self._functions.shogi_look_up, rows, labels)

    def _ask(
        self, function: Callable[..., None], rows: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Call a function of the library with one number for each of some boards; its results, int64 [n]."""
        rows, numbers = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(numbers, np.int64)
        results = np.empty(len(rows), np.int64)
        function(self._address, len(rows), rows.ctypes.data, numbers.ctypes.data, results.ctypes.data)
        return results

    @override
    def write_masks(self, legal: NDArray[np.uint8]) -> None:
        legal[...] = self._mask

    @override
    def clear_moves(self, rows: NDArray[np.int64]) -> None:
        self._mask[rows] = 0

    @override
    def copy(self, rows: NDArray[np.int64]) -> list[Any]:
        rows = np.ascontiguousarray(rows, np.int64)
        ends = np.cumsum(self._copy_bytes + _MOVE_BYTES * self._num_played[rows].astype(np.int64))
        starts, blocks = np.append(0, ends[:-1]), np.empty(ends[-1], np.uint8)
        self._functions.shogi_copy(self._address, len(rows), rows.ctypes.data, starts.ctypes.data, blocks.ctypes.data)
        data, start = blocks.tobytes(), self.start
        return [
            (start[row], data[first:end])
            for row, first, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True)
        ]

    @override
    def put(self, rows: NDArray[np.int64], boards: Sequence[Any]) -> None:
        rows, sizes = np.ascontiguousarray(rows, np.int64), np.array([len(block) for _, block in boards])
        self._reserve((int(sizes.max()) - self._copy_bytes) // _MOVE_BYTES)
        starts, blocks = np.cumsum(sizes) - sizes, b"".join([block for _, block in boards])
        self._functions.shogi_put(self._address, len(rows), rows.ctypes.data, starts.ctypes.data, blocks)
        for row, (start, _) in zip(rows.tolist(), boards, strict=True):
            self.start[row], self._boards[row] = start, None

    @override
    def played(self, index: int) -> list[int]:
        played: list[int] = self._codes[index, : self._num_played[index]].tolist()
        return played

    @override
    def board(self, index: int) -> Board:
        board, known = self._boards[index] or (parse_sfen(self.start[index]), 0)
        codes = self.played(index)
        for code in codes[known:]:
            board.apply_move(self._moves[code])
        self._boards[index] = board, len(codes)
        return board
