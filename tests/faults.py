"""Faults made on purpose: what happens, at which point of a worker's life, and in which of its passes.

::

    fault = Fault("SIGKILL", at="half a header", passing=3, once=path)
    collector = SelfPlayCollector(faulty_game(fault), ...)

The game is the counting game of ``fakes.py``; a worker that makes it suffers the fault. No part of the package knows
of this: a factory that runs in a worker may wrap what it finds there.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import multiprocessing
import os
import pickle
import random
import signal
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from fakes import CountingGame
from numpy.typing import NDArray

from keisei_lightning.games import StepResult

__all__ = [
    "POINTS",
    "EndlessGame",
    "Fault",
    "StuckGame",
    "chaotic_game",
    "crashing_game",
    "deaf_game",
    "faulty_game",
    "game_that_fails_to_boot",
    "misbehave",
    "misbehaves_first",
]

POINTS = ("adopting", "ply", "payload done", "header unsent", "half a header", "header sent")
"""Where a worker can be caught: in the order of one rollout. All but the last lose the rollout."""


class UnshowableError(Exception):
    """Its message cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no message")


def misbehave(how: str) -> None:
    """Do it, now, in this process."""
    match how:
        case "ValueError":
            raise ValueError("the game is broken on purpose")
        case "KeyError":
            raise KeyError("broken on purpose")
        case "long message":
            raise ValueError("x" * 10_000_000)
        case "unpicklable":
            error = ValueError("cannot be pickled")
            error.hook = lambda: None  # type: ignore[attr-defined]
            raise error
        case "unshowable":
            raise UnshowableError
        case "SystemExit":
            raise SystemExit(0)
        case "os._exit":
            os._exit(0)
        case "SIGSEGV" | "SIGABRT" | "SIGBUS" | "SIGKILL" | "SIGSTOP":
            os.kill(os.getpid(), signal.Signals[how])
        case "hang in Python":
            while True:
                pass
        case "hang in C":
            ctypes.PyDLL(None).sleep(1000)  # PyDLL keeps the GIL
        case "sleep":
            time.sleep(1000)
        case "ignore SIGTERM and sleep":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1000)
        case _:
            raise AssertionError(how)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a worker.

    Attributes:
        how: see :func:`misbehave`.
        at: where, one of :data:`POINTS`.
        passing: in which pass of that point (1: the first) and in every later one, if it gets so far.
        once: path of a file that does not exist; only the first process to get there misbehaves, and makes it.
        log: path of a file; who misbehaves writes a line into it before: its process id and where it was.
    """

    how: str
    at: str = "ply"
    passing: int = 1
    once: str = ""
    log: str = ""


class _Trap:
    """Counts the passes of a point; in the fault's own, it notes that, does what comes first, and misbehaves."""

    def __init__(self, fault: Fault) -> None:
        self._fault, self._passed = fault, 0

    def pass_by(self, *_: object, first: Callable[[], None] = lambda: None) -> None:
        fault = self._fault
        self._passed += 1
        if self._passed < fault.passing or not misbehaves_first(fault.once):
            return
        if fault.log:
            descriptor = os.open(fault.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(descriptor, f"{os.getpid()} {fault.at}\n".encode())
            os.close(descriptor)
        first()
        misbehave(fault.how)


def misbehaves_first(path: str) -> bool:
    """Whether this caller is the first of all processes (the file is made by it); always so without a path."""
    if not path:
        return True
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        return True
    return False


def _in_a_worker() -> bool:
    return multiprocessing.parent_process() is not None


def faulty_game(fault: Fault, **options: Any) -> Callable[[int], CountingGame]:
    """A factory of counting games (with these options) whose workers suffer a fault."""
    return functools.partial(_make_faulty_game, fault=fault, options=options)


def _make_faulty_game(num_games: int, *, fault: Fault, options: dict[str, Any]) -> CountingGame:
    if not _in_a_worker():
        return CountingGame(num_games, **options)
    trap = _Trap(fault)
    if fault.at == "ply":
        return CountingGame(num_games, before_step=trap.pass_by, **options)
    _set(trap, fault.at)
    return CountingGame(num_games, **options)


def chaotic_game(log: str, *, how: str = "SIGKILL", max_rollouts: int = 4) -> Callable[[int], CountingGame]:
    """A factory of counting games whose every worker, in every life, ends at a point drawn for it, after some rollouts.

    Args:
        log: see :class:`Fault`.
        how: see :func:`misbehave`.
        max_rollouts: how many rollouts a life lasts at most.
    """
    return functools.partial(_make_chaotic_game, log=log, how=how, max_rollouts=max_rollouts)


def _make_chaotic_game(num_games: int, *, log: str, how: str, max_rollouts: int) -> CountingGame:
    drawn = random.Random(os.getpid())
    at = drawn.choice(POINTS)
    per_rollout = {"ply": 6, "adopting": 3}.get(at, 1)  # so that all points come about equally late
    fault = Fault(how, at=at, passing=drawn.randint(1, max_rollouts * per_rollout), log=log)
    return _make_faulty_game(num_games, fault=fault, options={})


def crashing_game(how: str, *, at: int = 0, once: str = "") -> Callable[[int], CountingGame]:
    """A factory of counting games whose step ``at`` (0: the first), and any later one, misbehaves, wherever it is."""
    return functools.partial(_make_crashing_game, fault=Fault(how, passing=at + 1, once=once))


def _make_crashing_game(num_games: int, *, fault: Fault) -> CountingGame:
    return CountingGame(num_games, before_step=_Trap(fault).pass_by)


def deaf_game(*, after: int, once: str) -> Callable[[int], CountingGame]:
    """A factory of counting games; the first worker to adopt a version beyond this many adopts no other after it."""
    return functools.partial(_make_deaf_game, after=after, once=once)


def _make_deaf_game(num_games: int, *, after: int, once: str) -> CountingGame:
    from keisei_lightning.parallel.memory.weights import WeightReader

    adopt, deaf = WeightReader.adopt, [False]

    def adopt_at_first(self: WeightReader) -> int:
        deaf[0] = deaf[0] or (self.version >= after and misbehaves_first(once))
        return self.version if deaf[0] else adopt(self)

    if _in_a_worker():
        WeightReader.adopt = adopt_at_first  # type: ignore[method-assign]
    return CountingGame(num_games)


def game_that_fails_to_boot(num_games: int) -> CountingGame:
    """A factory that works in the learner and fails in a worker."""
    if _in_a_worker():
        raise ImportError("no module named 'only_on_your_machine'")
    return CountingGame(num_games)


# ---- games that break their contract


class StuckGame(CountingGame):
    """After three plies there is no legal move, and the game goes on."""

    def observe(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], mover: NDArray[np.int8]) -> None:
        super().observe(observation, legal, mover)
        legal[self._ply >= 3] = 0


class EndlessGame(CountingGame):
    """Nobody ever wins."""

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        step = super().step(actions)
        self._count[:], self._over[:] = 0, False
        return step._replace(terminated=np.zeros_like(step.terminated), reward=np.zeros_like(step.reward))


# ---- points inside the package


def _set(trap: _Trap, at: str) -> None:
    """Wrap the point in this process, which is a worker's and ends with it."""
    from keisei_lightning.parallel.memory.weights import WeightReader
    from keisei_lightning.parallel.playing.rollout import RolloutPlayer

    match at:
        case "adopting":
            steps = WeightReader._adopt_in_steps

            def adopt_in_steps(self: WeightReader) -> Iterator[None]:
                for step in steps(self):
                    trap.pass_by()
                    yield step

            WeightReader._adopt_in_steps = adopt_in_steps  # type: ignore[method-assign]
        case "payload done":
            play = RolloutPlayer.play

            def play_and_pass(self: RolloutPlayer, *args: Any, **kwargs: Any) -> Any:
                result = play(self, *args, **kwargs)
                trap.pass_by()
                return result

            RolloutPlayer.play = play_and_pass  # type: ignore[method-assign]
        case "header unsent" | "half a header" | "header sent":
            _set_at_header(trap, at)
        case _:
            raise AssertionError(at)


def _set_at_header(trap: _Trap, at: str) -> None:
    from keisei_lightning.parallel.supervision.messages import RolloutHeader

    send = Connection.send

    def send_and_pass(self: Connection[Any, Any], message: object) -> None:
        if not isinstance(message, RolloutHeader):
            send(self, message)
            return
        if at == "half a header":
            trap.pass_by(first=functools.partial(_send_half, self, message))
        elif at == "header unsent":
            trap.pass_by()
        send(self, message)
        if at == "header sent":
            trap.pass_by()

    Connection.send = send_and_pass  # type: ignore[method-assign]


def _send_half(connection: Connection[Any, Any], message: object) -> None:
    body = pickle.dumps(message)
    whole = struct.pack("!i", len(body)) + body
    os.write(connection.fileno(), whole[: len(whole) // 2])
