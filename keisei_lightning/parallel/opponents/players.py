"""Opponents that are players: scripts, searches and engines, which choose moves in the worker that plays the games.

A player's moves are a part of the environment. A player that fails (its engine crashes, or answers with an illegal
move) costs the games that waited for it, and never the worker. This module knows no torch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, KeiseiError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.games.turns import Player, PlayerFactory, Turn, ask_player, closing_player, start_player
from keisei_lightning.parallel.supervision.heartbeats import IDLE_BEAT_S

__all__ = ["PlayerMember", "PlayerTable", "check_players", "player_id", "player_number"]

_FIRST_PLAYER = -2
"""Stands for the first player where a snapshot's version is expected; -1 is the learner."""

_log = logging.getLogger(__name__)


def player_id(number: int) -> int:
    """What stands for a player where a snapshot's version is expected: -2, -3, ..."""
    return _FIRST_PLAYER - number


def player_number(identity: int) -> int | None:
    """Which player an identity stands for; None: the learner or a frozen policy."""
    return _FIRST_PLAYER - identity if identity <= _FIRST_PLAYER else None


@dataclass(frozen=True, slots=True)
class PlayerMember:
    """A player of a league.

    It is pickled by cloudpickle, so that a factory may be a function of a script or a notebook.

    Attributes:
        name: in tables and metrics; different from those of the other members.
        make: makes it, in every process that plays games.
    """

    name: str
    make: PlayerFactory

    def __reduce__(self) -> tuple[Callable[[str, bytes], PlayerMember], tuple[str, bytes]]:
        return _unpickled, (self.name, cloudpickle.dumps(self.make))


def _unpickled(name: str, make: bytes) -> PlayerMember:
    return PlayerMember(name, cloudpickle.loads(make))


def check_players(members: Sequence[PlayerMember], spec: GameSpec) -> None:
    """Make and start every player once, and close it: a wrong engine is told before any worker starts.

    Args:
        members: of a league.
        spec: the game.

    Raises:
        ConfigError: with a line for each error.
    """
    errors: list[str] = []
    for member in members:
        try:
            with closing_player(member.make(spec, 0)) as player:
                start_player(player)
        except ConfigError as error:
            errors += error.errors
    if errors:
        raise ConfigError(errors)


class PlayerTable:
    """The players of one group of a worker's boards. Each is made when it is first to move.

    A player that holds a process (has a ``close()``) is kept; others are made anew for each rollout, so that their
    random streams follow from the rollout's seed alone, and a resumed run plays what the whole one would have played.

    Args:
        members: of the league.
        patience_s: heartbeats are sent for a player that thinks, for so many seconds at most: then it counts as hung.
    """

    def __init__(self, members: Sequence[PlayerMember], *, patience_s: float) -> None:
        self._members, self._patience_s = members, patience_s
        self._made: dict[int, Player] = {}
        self._seed = 0

    def begin_rollout(self, seed: int) -> None:
        """Begin the random streams of a rollout."""
        self._seed = seed
        self._made = {number: player for number, player in self._made.items() if hasattr(player, "close")}

    def choose(self, number: int, turn: Turn, beat: Callable[[], None]) -> NDArray[np.int64] | None:
        """Let a player choose.

        Args:
            number: which player.
            turn: the boards that wait for its move.
            beat: sends a heartbeat.

        Returns:
            int64 [n], as :func:`~keisei_lightning.games.turns.ask_player`; None: it has failed, and its games are void.
        """
        member = self._members[number]
        try:
            if number not in self._made:
                stream = np.random.SeedSequence(self._seed, spawn_key=(number,))
                self._made[number] = member.make(turn.game.spec, int(stream.generate_state(1)[0]))
            with _beating(beat, self._patience_s):
                return ask_player(self._made[number], turn)
        except KeiseiError as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            _log.warning("opponent %s: %s; %d games are void", member.name, what, len(turn.indices))
            self._close(self._made.pop(number, None))
            return None

    def close(self) -> None:
        """End the players' processes; may be repeated."""
        made, self._made = self._made, {}
        for player in made.values():
            self._close(player)

    @staticmethod
    def _close(player: Player | None) -> None:
        if player is not None:
            with closing_player(player):
                pass


@contextmanager
def _beating(beat: Callable[[], None], seconds: float) -> Iterator[None]:
    """Context in which a thread sends heartbeats, for so many seconds at most."""
    is_over = threading.Event()

    def run() -> None:
        for _ in range(int(seconds / IDLE_BEAT_S)):
            if is_over.wait(IDLE_BEAT_S):
                return
            beat()

    thread = threading.Thread(target=run, name="keisei-opponent-heartbeats", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
