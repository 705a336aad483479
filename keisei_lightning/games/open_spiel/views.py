"""How OpenSpiel's observation tensors and actions are seen by the mover.

Many of OpenSpiel's tensors are absolute: plane 0 is the first player's whoever is to move. A network that plays both
seats learns the game once if it sees *own* and *opponent's* stones instead. For the games below that is done exactly:

================== =============================================================================================
game               the second player's view
================== =============================================================================================
tic_tac_toe, mnk,  own stones, opponent's stones, empty
connect_four,
othello
hex                the board transposed, so that the mover always joins top and bottom; the planes of the two
                   players change places (4 empty; the mover's stones 5 loose, 6 joined to the bottom, 7 joined to the
                   top, 8 the winning one; the opponent's 3, 2, 1, 0 likewise); actions transposed. Square
                   boards only
breakthrough       the board turned top to bottom, so that the mover always moves down; own, opponent's, empty;
                   actions likewise
================== =============================================================================================

Every other game (and these where OpenSpiel lays out its tensor otherwise, which is looked for) keeps the tensor that
OpenSpiel gives for the mover, with one constant plane added: 0 where the first player moves, 1 where the second does.
So nothing is lost, but nothing is gained from the two sides being alike.

A tensor of shape [n] becomes [1, 1, n], of [h, w] becomes [1, h, w], and of more than three axes [-1, h, w].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyspiel
from numpy.typing import NDArray

from keisei_lightning.games.open_spiel.drawings import Planes
from keisei_lightning.games.protocol import Symmetry

__all__ = ["SeatView", "seat_view"]

Index = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SeatView:
    """Maps between OpenSpiel's numbering and the mover's.

    Attributes:
        shape: observation shape [C, H, W].
        observation_index: int64 [2, C * H * W], by seat: where each entry comes from, in OpenSpiel's flat tensor with
            the seat to move appended.
        to_label: int64 [2, A], by seat: action label of each of OpenSpiel's actions.
        symmetries: relabellings in the mover's view.
        stones: planes of the first player's tensor with the two players' stones; empty where that is unknown.
    """

    shape: tuple[int, int, int]
    observation_index: Index
    to_label: Index
    symmetries: tuple[Symmetry, ...] = ()
    stones: Planes = ()

    def turn(self, tensors: NDArray[np.uint8], movers: NDArray[np.int8]) -> NDArray[np.uint8]:
        """Observations in the mover's view.

        Args:
            tensors: uint8 [G, n + 1], OpenSpiel's flat tensors with the seat to move appended.
            movers: int8 [G], the seat to move.

        Returns:
            uint8 [G, C, H, W].
        """
        views = tensors[:, self.observation_index[0]]
        second = np.flatnonzero(movers == 1)
        views[second] = tensors[second][:, self.observation_index[1]]
        return views.reshape(len(tensors), *self.shape)


def seat_view(game: Any) -> SeatView:
    """The mover's view of an OpenSpiel game.

    Args:
        game: a ``pyspiel.Game`` that provides observation tensors.
    """
    build = _KNOWN.get(game.get_type().short_name)
    known = None if build is None else build(game)
    return _plain_view(game) if known is None else known


def _tensor_index(game: Any) -> Index:
    """Index of OpenSpiel's flat tensor as [C, H, W]."""
    shape: list[int] = list(game.observation_tensor_shape())
    index: Index = np.arange(math.prod(shape), dtype=np.int64)
    if len(shape) < 3:
        return index.reshape([1] * (3 - len(shape)) + shape)
    if len(shape) == 3 and game.observation_tensor_layout() == pyspiel.TensorLayout.HWC:
        return index.reshape(shape).transpose(2, 0, 1)
    return index.reshape([-1, *shape[-2:]])


def _plain_view(game: Any) -> SeatView:
    """OpenSpiel's own tensor and a plane for the seat."""
    index = _tensor_index(game)
    seat_plane = np.full((1, *index.shape[1:]), index.size)
    index = np.concatenate([index, seat_plane])
    return SeatView(
        shape=(index.shape[0], index.shape[1], index.shape[2]),
        observation_index=np.stack([index.reshape(-1)] * 2),
        to_label=np.stack([np.arange(game.num_distinct_actions())] * 2),
    )


def _stone_planes(game: Any) -> list[tuple[int, int, int]] | None:
    """Planes of (first player, second player, empty) in each seat's tensor, seen from the first two moves.

    None where the tensor is no stack of three planes of which each move adds to just one.
    """
    if len(game.observation_tensor_shape()) != 3 or game.observation_tensor_shape()[0] != 3:
        return None
    planes: list[tuple[int, int, int]] = []
    for seat in (0, 1):
        state = game.new_initial_state()
        gained: list[int] = []
        for _ in range(2):
            before = _planes(game, state, seat)
            state.apply_action(state.legal_actions()[0])
            gains = np.flatnonzero((_planes(game, state, seat) > before).any(axis=(1, 2)))
            gained += gains.tolist()
        if len(gained) != 2 or gained[0] == gained[1]:
            return None
        planes.append((gained[0], gained[1], 3 - sum(gained)))
    return planes


def _planes(game: Any, state: Any, seat: int) -> NDArray[np.float64]:
    return np.array(state.observation_tensor(seat)).reshape(game.observation_tensor_shape())


def _alike_view(game: Any, *, symmetries: Callable[[int, int], Sequence[Symmetry]] | None = None) -> SeatView | None:
    """Games in which the two sides differ only in who moves first: own stones, opponent's stones, empty."""
    planes = _stone_planes(game)
    if planes is None:
        return None
    index = _tensor_index(game)
    _, height, width = index.shape
    (first, second, empty), (first_there, second_there, empty_there) = planes
    return SeatView(
        shape=(3, height, width),
        observation_index=np.stack(
            [index[[first, second, empty]].reshape(-1), index[[second_there, first_there, empty_there]].reshape(-1)]
        ),
        to_label=np.stack([np.arange(game.num_distinct_actions())] * 2),
        symmetries=() if symmetries is None else tuple(symmetries(height, width)),
        stones=((first,), (second,)),
    )


def _symmetry(name: str, squares: Index, actions: Index, planes: Sequence[int]) -> Symmetry:
    """A symmetry that moves squares (an index [H * W]), actions and planes."""
    observation_index = np.array(planes)[:, None] * squares.size + squares[None, :]
    return Symmetry(name=name, observation_index=observation_index.reshape(-1), action_index=actions)


def _column_mirror(height: int, width: int) -> list[Symmetry]:
    """Left-right mirror where an action is a column."""
    squares = np.arange(height * width).reshape(height, width)[:, ::-1].reshape(-1)
    return [_symmetry("mirror", squares, np.arange(width)[::-1].copy(), range(3))]


def _square_mirror(height: int, width: int) -> list[Symmetry]:
    """Left-right mirror where an action is a square."""
    squares = np.arange(height * width).reshape(height, width)[:, ::-1].reshape(-1)
    return [_symmetry("mirror", squares, squares, range(3))]


def _othello_turns(height: int, width: int) -> list[Symmetry]:
    """What leaves othello's start as it is: half a turn, and the two diagonals. The last action is the pass."""
    board = np.arange(height * width).reshape(height, width)
    moved = {"rotation": board[::-1, ::-1], "transpose": board.T, "antitranspose": board[::-1, ::-1].T}
    return [
        _symmetry(name, squares.reshape(-1), np.append(squares.reshape(-1), board.size), range(3))
        for name, squares in moved.items()
    ]


# Hex: planes of the player who joins top and bottom, and of the one who joins left and right.
_HEX_STONE, _HEX_BOTTOM, _HEX_TOP, _HEX_WINNING = 5, 6, 7, 8
_HEX_OTHERS = (0, 1, 2, 3)
_HEX_SECOND_VIEW = (8, 7, 6, 5, 4, 3, 2, 1, 0)
_HEX_HALF_TURN = (0, 2, 1, 3, 4, 5, 7, 6, 8)


def _hex_view(game: Any) -> SeatView | None:
    """Hex: the second player, who joins left and right, sees the board transposed."""
    index = _tensor_index(game)
    planes, height, width = index.shape
    if planes != 9 or height != width or height < 2 or game.get_parameters().get("swap"):
        return None
    state = game.new_initial_state()
    for action, plane in ((0, _HEX_TOP), (width, _HEX_OTHERS[1])):  # a corner, then the square below it
        before = _planes(game, state, 0)
        state.apply_action(action)
        if np.flatnonzero((_planes(game, state, 0) > before).any(axis=(1, 2))).tolist() != [plane]:
            return None
    squares = np.arange(height * width)
    transposed = squares.reshape(height, width).T.reshape(-1)
    return SeatView(
        shape=(planes, height, width),
        observation_index=np.stack([index.reshape(-1), index[list(_HEX_SECOND_VIEW)].transpose(0, 2, 1).reshape(-1)]),
        to_label=np.stack([squares, transposed]),
        symmetries=(_symmetry("rotation", squares[::-1].copy(), squares[::-1].copy(), _HEX_HALF_TURN),),
        stones=((_HEX_STONE, _HEX_WINNING, _HEX_TOP, _HEX_BOTTOM), _HEX_OTHERS),
    )


def _breakthrough_view(game: Any) -> SeatView | None:
    """Breakthrough: the second player, who moves up, sees the board turned top to bottom.

    An action is [row, column, direction, capture] with directions 0..2 for the first player (down left, down, down
    right) and 3..5 for the second (up left, up, up right).
    """
    index = _tensor_index(game)
    planes, height, width = index.shape
    start = _planes(game, game.new_initial_state(), 0)
    expected = np.zeros_like(start)
    expected[0, :2], expected[1, -2:], expected[2, 2:-2] = 1, 1, 1
    if planes != 3 or not np.array_equal(start, expected) or game.num_distinct_actions() != height * width * 12:
        return None
    actions = np.arange(height * width * 12).reshape(height, width, 6, 2)
    turned = actions[::-1][:, :, [3, 4, 5, 0, 1, 2]].reshape(-1)
    mirrored = actions[:, ::-1][:, :, [2, 1, 0, 5, 4, 3]].reshape(-1)
    squares = np.arange(height * width).reshape(height, width)[:, ::-1].reshape(-1)
    return SeatView(
        shape=(3, height, width),
        observation_index=np.stack([index.reshape(-1), index[[1, 0, 2]][:, ::-1].reshape(-1)]),
        to_label=np.stack([actions.reshape(-1), turned]),
        symmetries=(_symmetry("mirror", squares, mirrored, range(3)),),
        stones=((0,), (1,)),
    )


_KNOWN: dict[str, Callable[[Any], SeatView | None]] = {
    "breakthrough": _breakthrough_view,
    "connect_four": lambda game: _alike_view(game, symmetries=_column_mirror),
    "hex": _hex_view,
    "mnk": lambda game: _alike_view(game, symmetries=_square_mirror),
    "othello": lambda game: _alike_view(game, symmetries=_othello_turns),
    "tic_tac_toe": lambda game: _alike_view(game, symmetries=_square_mirror),
}
