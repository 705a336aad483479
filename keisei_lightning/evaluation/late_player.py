"""A player that reads what it plays by when it starts, since that may take seconds."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.players import Player, Turn

__all__ = ["LatePlayer"]


class LatePlayer(ABC):
    """Makes another player when it starts, and plays as that one.

    Args:
        name: name in tables and metrics.
        deterministic: whether it always chooses the same move in a position.
    """

    def __init__(self, *, name: str, deterministic: bool) -> None:
        self._name, self._deterministic = name, deterministic
        self._player: Player | None = None

    @property
    def name(self) -> str:
        """A short word for tables and metric names."""
        return self._name

    @property
    def deterministic(self) -> bool:
        """Whether it always chooses the same move in a position."""
        return self._deterministic

    @abstractmethod
    def make_player(self) -> Player:
        """Read what is to be read.

        Raises:
            ConfigError: it cannot be read, or is of another game; its lines need not name the player.
        """

    def start(self) -> None:
        """Make the player.

        Raises:
            ConfigError: see :meth:`make_player`; each line names this player.
        """
        try:
            self._player = self.make_player()
        except ConfigError as error:
            raise ConfigError([f"player {self._name}: {line}" for line in error.errors]) from error

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """See :meth:`~keisei_lightning.evaluation.Player.choose`."""
        if self._player is None:
            self.start()
        assert self._player is not None
        return self._player.choose(turn)
