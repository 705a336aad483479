"""Fixed sets of positions labelled by a perfect solver: how often does a player choose an optimal one?

In a match a player meets only the positions that it and its opponent reach. A labelled set has the same positions for
every player, and measures how far a player is from perfect play, not only who is stronger.

A set is a CSV file with one position a row:

=================== ============================================================================================
column              content
=================== ============================================================================================
position            in the game's own notation, for ``set_position`` (OpenSpiel's action numbers from the start)
quiet               1 where neither the mover could win at once nor the opponent, were it his turn; else 0
value_0, value_1, … for each action label the result for the mover (1, 0 or -1) if that action is played and both
                    sides play perfectly from there; empty where it is illegal
=================== ============================================================================================

A move is optimal if none has a better result: a slower win is as good as a quick one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation.players import Player, Turn, ask_player
from keisei_lightning.evaluation.results import wilson_interval
from keisei_lightning.evaluation.solvers import PolicyFunction, check_probabilities
from keisei_lightning.games.protocol import Game, GameFactory

__all__ = ["ILLEGAL", "LabelledPositions", "OptimalShare", "Share", "load_positions", "share_optimal"]

ILLEGAL: Final = -2
"""Stands in the values where an action is illegal: worse than a loss."""

_RESULTS: Final = {"1": 1, "0": 0, "-1": -1, "": ILLEGAL}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledPositions:
    """Positions with the result of each move.

    Attributes:
        turn: n boards, one for each position in the file's order, as a player gets them.
        values: int8 [n, A], the mover's result after each action; :data:`ILLEGAL` where it is illegal.
        quiet: bool [n], neither side threatens to win at once.
    """

    turn: Turn
    values: NDArray[np.int8]
    quiet: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def optimal(self) -> NDArray[np.bool_]:
        """The actions with the best result, bool [n, A]."""
        return np.asarray(self.values == self.values.max(axis=1, keepdims=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A proportion of positions.

    Attributes:
        count: positions with an optimal move; for a policy that draws its moves the expected number.
        total: all positions, at least 1.
    """

    count: float
    total: int

    @property
    def value(self) -> float:
        """The proportion: count / total."""
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval, with the positions as a sample; see :func:`~keisei_lightning.evaluation.wilson_interval`.

        For an expected number it is wider than it needs to be.
        """
        return wilson_interval(self.value, self.total)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} of {self.total} (95 % interval {low:.1%} to {high:.1%})"


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimalShare:
    """How often a player chose an optimal move.

    Attributes:
        all: share of all positions.
        quiet: share of the quiet positions; None where the set has none.
    """

    all: Share
    quiet: Share | None

    def __str__(self) -> str:
        return f"optimal {self.all}" + (f"; quiet positions {self.quiet}" if self.quiet is not None else "")


def load_positions(path: str | Path, game: GameFactory) -> LabelledPositions:
    """Read a set and put its positions on boards.

    Args:
        path: a CSV file as described in :mod:`keisei_lightning.evaluation.positions`.
        game: makes the boards, such as ``game_factory("connect_four")``.

    Returns:
        The set.

    Raises:
        ConfigError: there is no such file, it has other columns, or a row is illegal; the message has its line.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as a set of positions ({error}); must be a CSV file") from error
    if not rows:
        raise ConfigError(f"{path}: has no positions; must have one at least")
    board = game(len(rows))
    values = np.full((len(rows), board.spec.num_actions), ILLEGAL, dtype=np.int8)
    quiet = np.zeros(len(rows), dtype=np.bool_)
    for index, row in enumerate(rows):
        if errors := list(_row_errors(row, board, index)):
            raise ConfigError([f"{path}, line {index + 2}: {error}" for error in errors])
        quiet[index] = row["quiet"] == "1"
        values[index] = [_RESULTS[row[f"value_{action}"]] for action in range(board.spec.num_actions)]
    turn = _look(board)
    legal = np.unpackbits(turn.legal, axis=1, count=board.spec.num_actions).astype(np.bool_)
    for index in np.flatnonzero((legal != (values != ILLEGAL)).any(axis=1))[:1].tolist():
        actions = np.flatnonzero(legal[index]).tolist()
        raise ConfigError(f"{path}, line {index + 2}: values must be given for just the legal actions, {actions}")
    return LabelledPositions(turn=turn, values=values, quiet=quiet)


def share_optimal(player: Player | PolicyFunction, positions: LabelledPositions) -> OptimalShare:
    """How often a player, or a policy, chooses an optimal move.

    Args:
        player: chooses one move for each position; or a policy, whose share is the exact expectation over its draws.
        positions: see :func:`load_positions`.

    Returns:
        The share of positions with an optimal choice.

    Raises:
        GameError: the player returned no legal move in some position.
        ValueError: the policy returned no probabilities [n, A] of the legal moves.
    """
    optimal = positions.optimal
    if isinstance(player, Player):
        actions = ask_player(player, positions.turn)
        chosen = np.arange(optimal.shape[1]) == actions[:, None]
        for index in np.flatnonzero(actions < 0)[:1].tolist():
            position = positions.turn.game.position(index)
            raise GameError(f"player {player.name}: gives no action ({actions[index]}) in position {position}")
        right = (chosen & optimal).any(axis=1).astype(np.float64)
    else:
        turn = positions.turn
        given = player(turn.observation, turn.legal)
        probabilities = check_probabilities(given, positions.values != ILLEGAL, game=turn.game.spec.name)
        right = (probabilities * optimal).sum(axis=1)
    return OptimalShare(
        all=Share(count=float(right.sum()), total=len(right)),
        quiet=_share_of(right[positions.quiet]),
    )


def _share_of(right: NDArray[np.float64]) -> Share | None:
    return Share(count=float(right.sum()), total=len(right)) if len(right) else None


def _row_errors(row: dict[str, str], board: Game, index: int) -> Iterator[str]:
    """Errors of a row; if there are none, its position is on the board."""
    columns = ["position", "quiet", *(f"value_{action}" for action in range(board.spec.num_actions))]
    if sorted(map(str, row)) != sorted(columns) or None in row.values():
        yield f"columns={','.join(map(str, row))}: must be {','.join(columns)}, each filled in"
        return
    if row["quiet"] not in ("0", "1"):
        yield f"quiet={row['quiet']}: must be 0 or 1"
    for column in columns[2:]:
        if row[column] not in _RESULTS:
            yield f"{column}={row[column]}: must be 1, 0, -1, or empty for an illegal action"
    try:
        board.set_position(index, row["position"])
    except GameError as error:
        yield f"position={row['position']}: {error}"


def _look(board: Game) -> Turn:
    """All boards of a game, as a player gets them."""
    observation = np.zeros((board.num_games, *board.spec.observation_shape), dtype=np.uint8)
    legal = np.zeros((board.num_games, board.spec.mask_bytes), dtype=np.uint8)
    board.observe(observation, legal, np.zeros(board.num_games, dtype=np.int8))
    return Turn(game=board, indices=np.arange(board.num_games), observation=observation, legal=legal)
