"""Players of a league that tests can tell apart: each is made by a function that any process can import."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, EngineError
from keisei_lightning.evaluation import RESIGN, RandomPlayer, Turn
from keisei_lightning.games import NO_MOVE, GameSpec
from keisei_lightning.parallel import PlayerMember

__all__ = ["FAILS", "FIRST", "LEFTMOST", "QUITTER", "RANDOM", "UNSTARTABLE", "VOID", "hangs_once"]


class Answering:
    """Gives the same answer on every board: an action, ``RESIGN`` or ``NO_MOVE``; or fails.

    Args:
        answer: what it answers; None: it raises an error of an engine.
    """

    name = "answering"

    def __init__(self, answer: int | None) -> None:
        self._answer = answer

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        if self._answer is None:
            raise EngineError("the engine ended by SIGKILL")
        return np.full(len(turn.indices), self._answer, np.int64)


class Leftmost:
    """Plays the legal move of the smallest number, on a board that shows an empty cell."""

    name = "leftmost"

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        assert (turn.observation.reshape(len(turn.indices), -1) == 0).any(axis=1).all()
        return np.unpackbits(turn.legal, axis=1).argmax(axis=1).astype(np.int64)


class Unstartable:
    """An engine whose program is not there."""

    name = "unstartable"

    def start(self) -> None:
        raise ConfigError("player unstartable: command='nowhere': the engine cannot be started")

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        raise AssertionError("it was never started")


class HangsOnce:
    """Hangs at its first turn in whatever process, then plays as :class:`Leftmost`.

    Args:
        mark: a file that says that it has hung.
    """

    name = "hangs once"

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        if not self._mark.exists():
            self._mark.touch()
            time.sleep(3600)
        return Leftmost().choose(turn)


def hangs_once(mark: Path) -> PlayerMember:
    return PlayerMember("hangs once", functools.partial(_hangs_once, mark))


def _hangs_once(mark: Path, spec: GameSpec, seed: int) -> HangsOnce:
    return HangsOnce(mark)


def _first(spec: GameSpec, seed: int) -> Answering:
    return Answering(0)


def _quitter(spec: GameSpec, seed: int) -> Answering:
    return Answering(RESIGN)


def _void(spec: GameSpec, seed: int) -> Answering:
    return Answering(NO_MOVE)


def _fails(spec: GameSpec, seed: int) -> Answering:
    return Answering(None)


def _random(spec: GameSpec, seed: int) -> RandomPlayer:
    return RandomPlayer(spec.num_actions, seed)


def _leftmost(spec: GameSpec, seed: int) -> Leftmost:
    return Leftmost()


def _unstartable(spec: GameSpec, seed: int) -> Unstartable:
    return Unstartable()


FIRST = PlayerMember("first", _first)
"""Always plays action 0."""
QUITTER = PlayerMember("quitter", _quitter)
VOID = PlayerMember("void", _void)
FAILS = PlayerMember("fails", _fails)
RANDOM = PlayerMember("random", _random)
LEFTMOST = PlayerMember("leftmost", _leftmost)
UNSTARTABLE = PlayerMember("unstartable", _unstartable)
