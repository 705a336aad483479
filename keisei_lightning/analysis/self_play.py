"""Games that a policy plays against itself, ply by ply, with what it expected and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from keisei_lightning.errors import GameError
from keisei_lightning.games.protocol import NO_MOVE, Game, GameFactory
from keisei_lightning.models import ActorCritic, evaluation_mode

__all__ = ["PlayedPlies", "play_self"]

_BOARDS = 256


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlayedPlies:
    """All n plies of some games that have ended.

    Attributes:
        game: int64 [n], the number of the game.
        ply: int64 [n], of the game, from 0 (an opening's random plies are not counted).
        value: float64 [n], the result that the network expects for the mover, from -1 to 1.
        result: int8 [n], what came of it for the mover: 1, 0 or -1.
        action: int64 [n], the move that was played.
        position: of each ply before the move, in the game's own notation.
        observation: of each ply, the mover's view, as bytes.
    """

    game: NDArray[np.int64]
    ply: NDArray[np.int64]
    value: NDArray[np.float64]
    result: NDArray[np.int8]
    action: NDArray[np.int64]
    position: list[str]
    observation: list[bytes]

    @property
    def num_games(self) -> int:
        """How many games these are of."""
        return len(np.unique(self.game))


def play_self(
    actor_critic: ActorCritic,
    game: GameFactory,
    num_games: int,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda finished: None,
) -> PlayedPlies:
    """Let a policy play against itself; each move is drawn from the policy, as in training.

    Args:
        actor_critic: the policy; it stays as it is.
        game: makes the boards, with the openings that they were trained with.
        num_games: that are played to their end; one that is cut short (``truncated``) is left out.
        seed: of the moves and of the openings.
        progress: called with the number of games that have ended.

    Raises:
        GameError: the policy's probabilities are not finite, or a game continues beyond its ``max_plies``.
    """
    generator = torch.Generator(device=_device(actor_critic)).manual_seed(seed)
    parts: list[_Part] = []
    for begin in range(0, num_games, _BOARDS):
        board = game(min(_BOARDS, num_games - begin))
        board.seed(seed + begin)
        part = _Part(begin, board)
        with evaluation_mode(actor_critic), torch.inference_mode():
            while part.plays():
                part.play_ply(actor_critic, generator)
                progress(begin + part.num_ended)
        parts.append(part)
    kept = [row for part in parts for row in part.rows if not part.is_cut[row.board]]
    results = [parts[row.game // _BOARDS].result_of(row) for row in kept]
    return PlayedPlies(
        game=np.array([row.game for row in kept], dtype=np.int64),
        ply=np.array([row.ply for row in kept], dtype=np.int64),
        value=np.array([row.value for row in kept], dtype=np.float64),
        result=np.array(results, dtype=np.int8),
        action=np.array([row.action for row in kept], dtype=np.int64),
        position=[row.position for row in kept],
        observation=[row.observation for row in kept],
    )


def _device(actor_critic: ActorCritic) -> torch.device:
    return next((weight.device for weight in actor_critic.parameters()), torch.device("cpu"))


@dataclass(frozen=True, slots=True)
class _Row:
    """One ply."""

    board: int
    game: int
    ply: int
    mover: int
    value: float
    action: int
    position: str
    observation: bytes


class _Part:
    """Some boards, each of which plays one game.

    Args:
        first: number of the first game.
        board: the boards.
    """

    def __init__(self, first: int, board: Game) -> None:
        self._first, self._board = first, board
        spec, count = board.spec, board.num_games
        self._observation = np.zeros((count, *spec.observation_shape), dtype=np.uint8)
        self._legal = np.zeros((count, spec.mask_bytes), dtype=np.uint8)
        self._mover = np.zeros(count, dtype=np.int8)
        self._alive = np.ones(count, dtype=np.bool_)
        self._result = np.zeros(count, dtype=np.int8)  # for the player of seat 0
        self._plies = 0
        self.is_cut = np.zeros(count, dtype=np.bool_)
        self.rows: list[_Row] = []
        board.reset()

    @property
    def num_ended(self) -> int:
        return int((~self._alive).sum())

    def plays(self) -> bool:
        """Whether a game has not ended.

        Raises:
            GameError: it is longer than the game says.
        """
        spec = self._board.spec
        if self._alive.any() and self._plies > spec.max_plies:
            raise GameError(f"{spec.name}: a game continues beyond its {spec.max_plies} plies")
        return bool(self._alive.any())

    def play_ply(self, actor_critic: ActorCritic, generator: torch.Generator) -> None:
        self._board.observe(self._observation, self._legal, self._mover)
        rows = np.flatnonzero(self._alive)
        device = generator.device
        chosen, _, values = actor_critic.act(
            torch.from_numpy(self._observation[rows]).to(device),
            torch.from_numpy(self._legal[rows]).to(device),
            generator=generator,
        )
        moves = chosen.cpu().numpy().astype(np.int64)
        if (moves == NO_MOVE).any():
            position = self._board.position(int(rows[(moves == NO_MOVE).argmax()]))
            raise GameError(f"the network's logits of the legal moves are not finite in position {position}")
        for row, move, value in zip(rows.tolist(), moves.tolist(), values[:, 0].tolist(), strict=True):
            self.rows.append(
                _Row(
                    board=row,
                    game=self._first + row,
                    ply=self._plies,
                    mover=int(self._mover[row]),
                    value=value,
                    action=move,
                    position=self._board.position(row),
                    observation=self._observation[row].tobytes(),
                )
            )
        actions = np.full(self._board.num_games, NO_MOVE, dtype=np.int64)
        actions[rows] = moves
        reward, terminated, truncated = self._board.step(actions)
        signs = 1 - 2 * self._mover.astype(np.int8)
        ended = self._alive & (terminated | truncated)
        self._result[ended] = (np.sign(reward).astype(np.int8) * signs)[ended]
        self.is_cut |= self._alive & truncated & ~terminated
        self._alive &= ~ended
        self._plies += 1

    def result_of(self, row: _Row) -> int:
        """For the mover of a ply."""
        return int(self._result[row.board]) * (1 - 2 * row.mover)
