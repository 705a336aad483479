"""The course of one game: moves by their names, taken back, saved and continued."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from keisei_lightning.errors import GameError
from keisei_lightning.games.protocol import Game, GameFactory, OpeningGame

__all__ = ["GameSession", "PlayedMove", "saved_game"]

_VERSION: Final = 1
_MAX_CHARACTERS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class PlayedMove:
    """A move of a game.

    Attributes:
        seat: of the player who made it, 0 or 1.
        action: its label in that player's view.
        name: it in the game's own notation.
    """

    seat: int
    action: int
    name: str


class GameSession:
    """One board and all moves on it. It is used by one thread, which the game's board belongs to.

    Args:
        factory: makes the game.
        start: position to begin with, in the game's own notation; None: the game's own start, without random openings.

    Raises:
        GameError: the position cannot be read.

    Attributes:
        game: with one board; read only.
        moves: so far.
        mover: seat to move, 0 or 1.
        result: of the game so far for the player in seat 0: 1.0, 0.5 or 0.0; None: it goes on, or was cut short.
    """

    def __init__(self, factory: GameFactory, *, start: str | None = None) -> None:
        self.game: Game = factory(1)
        if isinstance(self.game, OpeningGame):
            self.game.opening_plies = 0
        self._start = start
        self._resigned = self._over = False
        self.result: float | None = None
        spec = self.game.spec
        self.observation = np.zeros((1, *spec.observation_shape), np.uint8)
        self.legal = np.zeros((1, spec.mask_bytes), np.uint8)
        self._mover = np.zeros(1, np.int8)
        self.moves: list[PlayedMove] = []
        self._back_to_start()

    @property
    def start(self) -> str | None:
        """Position in which the game began; None: the game's own start."""
        return self._start

    @property
    def mover(self) -> int:
        """The seat to move, 0 or 1."""
        return int(self._mover[0])

    @property
    def is_over(self) -> bool:
        """Whether no further move can be made."""
        return self._resigned or self._over

    @property
    def is_resigned(self) -> bool:
        """Whether a player has given up."""
        return self._resigned

    @property
    def outcome(self) -> str:
        """How the game ended, as a word or two; empty while it goes on."""
        return "resignation" if self._resigned else self.game.outcome(0)

    def legal_moves(self) -> dict[str, int]:
        """Legal actions by their names, in the order of their labels; none when the game is over."""
        if self.is_over:
            return {}
        labels = np.flatnonzero(np.unpackbits(self.legal[0], count=self.game.spec.num_actions))
        return {self.game.action_name(0, action): action for action in labels.tolist()}

    def play(self, action: int) -> PlayedMove:
        """Make a move.

        Args:
            action: its label in the mover's view.

        Raises:
            GameError: it is not legal, or the game is over.
        """
        if self.is_over:
            raise GameError(f"action {action}: the game is over ({self.outcome})")
        if not 0 <= action < self.game.spec.num_actions or not np.unpackbits(self.legal[0])[action]:
            raise GameError(f"action {action}: is not legal here; must be one of the legal moves")
        move = PlayedMove(self.mover, action, self.game.action_name(0, action))
        self._step(move)
        return move

    def play_name(self, name: str) -> PlayedMove:
        """Make a move that is given by its name.

        Raises:
            GameError: no legal move is called that, or the game is over.
        """
        if self.is_over:
            raise GameError(f"{name}: the game is over ({self.outcome})")
        action = self.legal_moves().get(name)
        if action is None:
            raise GameError(f"{name}: is not a legal move here; must be one of {_some(list(self.legal_moves()))}")
        return self.play(action)

    def undo(self, count: int = 1) -> None:
        """Take moves back, the last one first; a resignation counts as none.

        Raises:
            GameError: there are not so many.
        """
        if not 0 <= count <= len(self.moves):
            raise GameError(f"undo {count}: must be 0 to {len(self.moves)}, the moves so far")
        kept = self.moves[: len(self.moves) - count]
        self._back_to_start()
        for move in kept:
            self._step(move)

    def resign(self) -> None:
        """The player to move gives up.

        Raises:
            GameError: the game is over.
        """
        if self.is_over:
            raise GameError(f"resign: the game is over ({self.outcome})")
        self._resigned = True
        self.result = float(self.mover == 1)

    # ---- files

    def to_json(self, **notes: str) -> str:
        """The whole game as JSON, for :meth:`from_json`.

        Args:
            notes: kept beside it, such as the players' names.
        """
        return json.dumps(
            {
                "version": _VERSION,
                "game": self.game.spec.name,
                "start": self._start,
                "moves": [move.name for move in self.moves],
                "resigned": self._resigned,
                **notes,
            },
            indent=1,
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, factory: GameFactory, text: str) -> GameSession:
        """A game that :meth:`to_json` wrote. The text may come from anybody.

        Raises:
            GameError: it cannot be read, is of another game, or a move in it is not legal.
        """
        saved = _saved(text)
        session = cls(factory)
        name = session.game.spec.name
        if saved["game"] != name:
            raise GameError(f"saved game: game={saved['game']!r}; must be {name}")
        if saved["start"] is not None:
            session = cls(factory, start=saved["start"])
        for number, move in enumerate(saved["moves"], start=1):
            try:
                session.play_name(move)
            except GameError as error:
                raise GameError(f"saved game: move {number}: {error}") from error
        if saved["resigned"]:
            session.resign()
        return session

    # ---- inside

    def _back_to_start(self) -> None:
        self.game.reset(np.zeros(1, np.int64))
        if self._start is not None:
            self.game.set_position(0, self._start)
        self.moves.clear()
        self.result = None
        self._resigned = self._over = False
        self._look()

    def _step(self, move: PlayedMove) -> None:
        outcome = self.game.step(np.array([move.action], np.int64))
        self.moves.append(move)
        self._over = bool(outcome.terminated[0] or outcome.truncated[0])
        if outcome.terminated[0]:
            reward = float(outcome.reward[0])
            self.result = (1 + (reward if move.seat == 0 else -reward)) / 2
        self._look()

    def _look(self) -> None:
        self.game.observe(self.observation, self.legal, self._mover)


_FIELDS: Final[dict[str, tuple[type, ...]]] = {
    "version": (int,),
    "game": (str,),
    "start": (str, type(None)),
    "moves": (list,),
    "resigned": (bool,),
}


def saved_game(text: str) -> str:
    """The name of the game that :meth:`GameSession.to_json` wrote; nothing is made of it.

    Raises:
        GameError: it cannot be read.
    """
    return str(_saved(text)["game"])


def _saved(text: str) -> dict[str, Any]:
    """The fields of a saved game, each of its type."""
    if len(text) > _MAX_CHARACTERS:
        raise GameError(f"saved game: has {len(text)} characters; must be at most {_MAX_CHARACTERS}")
    try:
        saved = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GameError(f"saved game: cannot be read as JSON ({' '.join(str(error).split())})") from error
    if not isinstance(saved, dict):
        raise GameError(f"saved game: is a {type(saved).__name__}; must be a JSON object")
    for key, types in _FIELDS.items():
        if not isinstance(saved.get(key), types):
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
            raise GameError(f"saved game: {key}={saved.get(key)!r}; must be {wanted}")
    if saved["version"] != _VERSION:
        raise GameError(f"saved game: version={saved['version']}; must be {_VERSION}")
    if not all(isinstance(move, str) for move in saved["moves"]):
        raise GameError("saved game: moves must be names of moves")
    return saved


def _some(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
