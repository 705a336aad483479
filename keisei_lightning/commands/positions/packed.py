"""Positions as the files of other trainers have them: written game by game, and read where a format holds games."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from keisei_lightning.commands.positions.replaying import Evaluation, Looked, Position
from keisei_lightning.errors import GameError
from keisei_lightning.games import Game, LabelledPosition, PackedGame, ReplayableGame, SavedGame

__all__ = ["LabelledGames", "as_packed", "game_of", "is_packed", "read_packed"]


def is_packed(game: Game, path: Path) -> bool:
    """Whether a file holds packed games that the game reads, by its ending."""
    return isinstance(game, PackedGame) and path.suffix.lower() in game.readable_formats


def read_packed(game: Game, path: Path, scale: float) -> list[list[LabelledPosition]]:
    """Games of a file, each with one position or more.

    Raises:
        GameError: with the file.
    """
    assert isinstance(game, PackedGame)
    try:
        return [each for each in game.unpack_games(path.read_bytes(), path.suffix.lower(), scale=scale) if each]
    except OSError as error:
        raise GameError(f"{path}: cannot be read ({error.strerror})") from error
    except GameError as error:
        raise GameError(f"{path}: {error}") from error


def game_of(game: ReplayableGame, positions: Sequence[LabelledPosition]) -> SavedGame:
    """The moves of a packed game.

    Args:
        game: has a board, which is put to its start.
        positions: of one game.
    """
    first = positions[0]
    game.set_position(0, first.position)
    mover = np.zeros(game.num_games, dtype=np.int8)
    spec = game.spec
    game.observe(
        np.zeros((game.num_games, *spec.observation_shape), dtype=np.uint8),
        np.zeros((game.num_games, spec.mask_bytes), dtype=np.uint8),
        mover,
    )
    seat = int(mover[0])
    return SavedGame(
        start=first.position,
        moves=tuple(each.move for each in positions),
        outcome=first.outcome,
        winner=None if first.result == 0 else seat if first.result > 0 else 1 - seat,
    )


class LabelledGames:
    """Evaluates positions of games whose file has their values and policies.

    Args:
        labels: positions of such games by the games' numbers; of others there is no evaluation.
    """

    def __init__(self, labels: Mapping[int, Sequence[LabelledPosition]]) -> None:
        self._labels = labels

    def __call__(self, game: ReplayableGame, looked: Looked) -> list[Evaluation | None]:
        """What the file says of some boards."""
        found = list[Evaluation | None]()
        for index, key, ply in zip(looked.indices.tolist(), looked.keys, looked.plies, strict=True):
            labelled = self._labels[key][ply] if key in self._labels else None
            if labelled is None or labelled.value is None or not labelled.policy:
                found.append(None)
                continue
            entries = {game.action_of(index, move): share for move, share in labelled.policy.items()}
            actions = sorted(entries)
            shares = np.array([entries[action] for action in actions], dtype=np.float32)
            found.append(Evaluation(labelled.value, np.array(actions, dtype=np.int64), shares))
        return found


def as_packed(board: ReplayableGame, positions: Sequence[Position], suffix: str, scale: float) -> bytes:
    """The content of a file.

    Args:
        board: of the game, a :class:`~keisei_lightning.games.PackedGame`; board 0 is put to other positions.
        positions: each game's one after the other.
        suffix: the format.
        scale: centipawns by which the odds of winning grow e-fold.
    """
    assert isinstance(board, PackedGame)
    games = groupby(positions, key=lambda position: position.game)
    return b"".join(board.pack_game([_labelled(board, each) for each in own], suffix, scale=scale) for _, own in games)


def _labelled(board: ReplayableGame, position: Position) -> LabelledPosition:
    value, policy, evaluation = None, None, position.evaluation
    if evaluation is not None:
        board.set_position(0, position.position)
        names = (board.action_name(0, action) for action in evaluation.actions.tolist())
        value, policy = evaluation.value, dict(zip(names, evaluation.policy.tolist(), strict=True))
    return LabelledPosition(
        position=position.position,
        move=position.move,
        value=value,
        result=position.result,
        outcome=position.outcome,
        policy=policy,
    )
