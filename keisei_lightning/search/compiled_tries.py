"""Tries by the compiled library: ``kernel.c`` beside this file, built when the package is installed."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError
from keisei_lightning.search.forest import Floats, Forest, Ints
from keisei_lightning.search.selection import FIRST_PLAY_REDUCTION, LEAST_VISITS, Gumbel, Puct, Selection
from keisei_lightning.system.compiled import load_library, why_no_library

__all__ = ["CompiledTries", "why_not_compiled"]

_SOURCE: Final = Path(__file__).with_name("kernel.c")
_NODE_COLUMNS: Final = ("parent", "first", "count", "mover", "value", "low", "high")
_EDGE_COLUMNS: Final = ("node", "child", "log_prior", "prior", "visits", "total", "pending", "low", "high")


class _Forest(ctypes.Structure):
    """Addresses of a forest's columns, as in the C file."""

    _fields_ = tuple(
        (name, ctypes.c_void_p) for name in (*_NODE_COLUMNS, *(f"edge_{column}" for column in _EDGE_COLUMNS))
    )


class _Selection(ctypes.Structure):
    """A selection, as in the C file."""

    _fields_ = (
        ("is_gumbel", ctypes.c_int64),
        ("exploration", ctypes.c_double),
        ("reduction", ctypes.c_double),
        ("least_visits", ctypes.c_double),
        ("value_scale", ctypes.c_double),
        ("width", ctypes.c_int64),
        ("noise", ctypes.c_void_p),
        ("visits_before", ctypes.c_void_p),
        ("schedule_of", ctypes.c_void_p),
        ("num_steps", ctypes.c_int64),
        ("schedules", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
    )


def why_not_compiled() -> str:
    """Why there is no compiled library, in a few words; empty where there is one."""
    return why_no_library(_SOURCE)


class CompiledTries:
    """See :class:`~keisei_lightning.search.tries.Tries`.

    Args:
        forest: the trees.
        selection: how an edge is chosen: by :class:`Gumbel` or :class:`Puct`.

    Raises:
        ConfigError: there is no compiled library.
    """

    def __init__(self, forest: Forest, selection: Selection) -> None:
        if reason := why_not_compiled():
            raise ConfigError(f"compiled tries of a search: {reason}")
        assert isinstance(selection, Gumbel | Puct)
        self._forest, self._selection, self._functions = forest, selection, _functions()
        self._moves, self._addresses = (-1, -1), _Forest()

    def find_leaves(self, roots: Ints, trees: Ints) -> Ints:
        """See :class:`~keisei_lightning.search.tries.Tries`."""
        roots, trees = np.ascontiguousarray(roots), np.ascontiguousarray(trees)
        leaves = np.empty(len(roots), np.int64)
        scratch = np.empty(self._forest.most_edges)
        selection = self._selection
        if isinstance(selection, Gumbel):
            how = _Selection(
                is_gumbel=1,
                least_visits=LEAST_VISITS,
                value_scale=selection.value_scale,
                width=selection.noise.shape[1],
                noise=selection.noise.ctypes.data,
                visits_before=selection.visits_before.ctypes.data,
                schedule_of=selection.schedule_of.ctypes.data,
                num_steps=selection.schedules.shape[1],
                schedules=selection.schedules.ctypes.data,
                scratch=scratch.ctypes.data,
            )
        else:
            how = _Selection(exploration=selection.exploration, reduction=FIRST_PLAY_REDUCTION)
        self._functions.search_find_leaves(
            self._columns(), how, len(roots), roots.ctypes.data, trees.ctypes.data, leaves.ctypes.data
        )
        return leaves

    def back_up(self, leaves: Ints, values: Floats, movers: NDArray[np.int8], results: NDArray[np.int8]) -> None:
        """See :class:`~keisei_lightning.search.tries.Tries`."""
        arrays = (
            np.ascontiguousarray(leaves, np.int64),
            np.ascontiguousarray(values, np.float64),
            np.ascontiguousarray(movers, np.int8),
            np.ascontiguousarray(results, np.int8),
        )
        self._functions.search_back_up(self._columns(), len(leaves), *(array.ctypes.data for array in arrays))

    def _columns(self) -> _Forest:
        nodes, edges = self._forest.nodes, self._forest.edges
        if self._moves != (nodes.moves, edges.moves):
            self._moves = nodes.moves, edges.moves
            self._addresses = _Forest(
                *(getattr(nodes, name).ctypes.data for name in _NODE_COLUMNS),
                *(getattr(edges, name).ctypes.data for name in _EDGE_COLUMNS),
            )
        return self._addresses


@cache
def _functions() -> ctypes.CDLL:
    library = load_library(_SOURCE)
    pointer, int64 = ctypes.c_void_p, ctypes.c_int64
    forest, selection = ctypes.POINTER(_Forest), ctypes.POINTER(_Selection)
    library.search_find_leaves.argtypes = [forest, selection, int64, pointer, pointer, pointer]
    library.search_back_up.argtypes = [forest, int64, pointer, pointer, pointer, pointer]
    library.search_find_leaves.restype = library.search_back_up.restype = None
    return library
