"""Games that are played again, many at once, and every position of them on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import GameError
from keisei_lightning.games import NO_MOVE, ReplayableGame, SavedGame

__all__ = ["Evaluation", "Evaluator", "Looked", "Position", "positions_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """Some boards of a game that wait for a move, as a network sees them.

    Attributes:
        indices: int64 [n], the boards.
        keys: the numbers of the n games that are played on them.
        plies: moves of those games before these positions.
        observation: uint8 [n, *observation_shape].
        legal: uint8 [n, ceil(A / 8)], bit-packed.
        mover: int8 [n].
    """

    indices: NDArray[np.int64]
    keys: Sequence[int]
    plies: Sequence[int]
    observation: NDArray[np.uint8]
    legal: NDArray[np.uint8]
    mover: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one position is worth to its mover, from -1 to 1, and how likely its legal moves are, by their labels."""

    value: float
    actions: NDArray[np.int64]
    policy: NDArray[np.float32]


class Evaluator(Protocol):
    """Evaluates positions, all at once."""

    def __call__(self, game: ReplayableGame, looked: Looked) -> Sequence[Evaluation | None]:
        """An evaluation of each of some boards of a game; None where it has none."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """A position of a game that was played.

    Attributes:
        game: number of the game.
        ply: moves of the record before it.
        position: in the game's own notation.
        observation: uint8 [*observation_shape].
        mover: seat to move.
        move: name of the move that was played.
        action: its label.
        result: of the game to the mover: 1, 0 or -1.
        outcome: how the game ended.
        evaluation: None: nobody has evaluated it.
    """

    game: int
    ply: int
    position: str
    observation: NDArray[np.uint8]
    mover: int
    move: str
    action: int
    result: int
    outcome: str
    evaluation: Evaluation | None


def positions_of(
    board: ReplayableGame,
    games: Sequence[SavedGame],
    evaluate: Evaluator | None,
    complain: Callable[[int, str], None],
) -> Iterator[list[Position]]:
    """Positions of games, some of each at once.

    Args:
        board: plays them again, as many at once as it has boards.
        games: that have a result.
        evaluate: says what positions are worth; None: nobody does.
        complain: is told the number of a game, and why its further positions are left out.

    Yields:
        Positions, each game's in their order.
    """
    waiting = list(range(len(games) - 1, -1, -1))
    on_board: list[tuple[int, int] | None] = [None] * board.num_games  # a game, and how many moves of it were played
    spec = board.spec
    observation = np.zeros((board.num_games, *spec.observation_shape), dtype=np.uint8)
    legal = np.zeros((board.num_games, spec.mask_bytes), dtype=np.uint8)
    mover = np.zeros(board.num_games, dtype=np.int8)
    while True:
        actions = np.full(board.num_games, NO_MOVE, dtype=np.int64)
        for index in range(board.num_games):
            actions[index] = _next_action(board, games, on_board, waiting, index, complain)
        rows = np.flatnonzero(actions != NO_MOVE)
        if not rows.size:
            return
        board.observe(observation, legal, mover)
        playing = [on_board[row] for row in rows.tolist()]
        looked = Looked(
            indices=rows,
            keys=[at[0] for at in playing if at is not None],
            plies=[at[1] for at in playing if at is not None],
            observation=observation[rows],
            legal=legal[rows],
            mover=mover[rows],
        )
        evaluations = evaluate(board, looked) if evaluate is not None else [None] * len(rows)
        found = []
        for row, at, evaluation in zip(rows.tolist(), playing, evaluations, strict=True):
            assert at is not None
            found.append(_position(board, games, at, row, int(actions[row]), observation, mover, evaluation))
            on_board[row] = (at[0], at[1] + 1)
        board.step(actions)
        yield found


def _next_action(
    board: ReplayableGame,
    games: Sequence[SavedGame],
    on_board: list[tuple[int, int] | None],
    waiting: list[int],
    index: int,
    complain: Callable[[int, str], None],
) -> int:
    """The next move of one board's game, or the first of the next game that waits; ``NO_MOVE`` where none does."""
    while True:
        at = on_board[index]
        if at is None or at[1] == len(games[at[0]].moves):
            if not waiting:
                on_board[index] = None
                return NO_MOVE
            number = waiting.pop()
            on_board[index] = None
            try:
                board.set_position(index, games[number].start)
            except GameError as error:
                complain(number, str(error))
                continue
            on_board[index] = at = (number, 0)
        number, ply = at
        if ply == len(games[number].moves):
            continue
        if over := board.outcome(index):
            complain(number, f"{len(games[number].moves) - ply} moves are behind the game's end here ({over})")
        else:
            try:
                return board.action_of(index, games[number].moves[ply])
            except GameError as error:
                complain(number, f"move {ply + 1}: {error}")
        on_board[index] = None


def _position(
    board: ReplayableGame,
    games: Sequence[SavedGame],
    at: tuple[int, int],
    row: int,
    action: int,
    observation: NDArray[np.uint8],
    mover: NDArray[np.int8],
    evaluation: Evaluation | None,
) -> Position:
    saved, seat = games[at[0]], int(mover[row])
    return Position(
        game=at[0],
        ply=at[1],
        position=board.position(row),
        observation=observation[row].copy(),
        mover=seat,
        move=saved.moves[at[1]],
        action=action,
        result=0 if saved.winner is None else 1 if saved.winner == seat else -1,
        outcome=saved.outcome,
        evaluation=evaluation,
    )
