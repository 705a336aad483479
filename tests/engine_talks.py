"""Conversations with engines in this process: pipes, a thread, and a policy of a few lines."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from searches import uneven

from keisei_lightning.agents import Agent
from keisei_lightning.engine.channel import LineReader, LineWriter
from keisei_lightning.engine.program import Host, Program
from keisei_lightning.engine.settings import EngineSettings
from keisei_lightning.games import game_factory

__all__ = ["PATIENCE_S", "Talk", "agent_of", "talk_to"]

PATIENCE_S = 120.0
"""Only against a test that waits for ever."""


def agent_of(game: str, evaluate: Callable[..., Any] = uneven, **options: object) -> Agent:
    factory = game_factory(game, **options)
    return Agent(name="small", game=factory, spec=factory(1).spec, evaluator=lambda mirror: evaluate)


class Talk:
    """What is said to an engine, and what it says."""

    def __init__(self, to_engine: int, from_engine: int) -> None:
        self._to, self._from = to_engine, from_engine
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.heard: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def say(self, *lines: str) -> None:
        self.send("".join(f"{line}\n" for line in lines).encode())

    def send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._to, data) :]

    def hear(self, start: str) -> str:
        """The next line that begins so."""
        while True:
            line = self._lines.get(timeout=PATIENCE_S)
            assert line is not None, f"the engine ended before {start!r}: {self.heard[-5:]}"
            self.heard.append(line)
            if line.startswith(start):
                return line

    def rest(self) -> list[str]:
        """All lines until the engine's output ends."""
        lines = list(iter(lambda: self._lines.get(timeout=PATIENCE_S), None))
        self.heard += lines
        return lines

    def ask(self, line: str, start: str) -> str:
        self.say(line)
        return self.hear(start)

    def hang_up(self) -> None:
        if self._to >= 0:
            os.close(self._to)
            self._to = -1

    def _read(self) -> None:
        with os.fdopen(self._from, "rb") as stream:
            for line in stream:
                self._lines.put(line.decode().removesuffix("\n"))
        self._lines.put(None)


@contextmanager
def talk_to(
    program: type[Program],
    agent: Agent | Callable[[EngineSettings], Agent],
    settings: EngineSettings | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Talk]:
    """Context in which an engine runs in a thread; at its end the engine has ended too, in order."""
    (engine_in, to_engine), (from_engine, engine_out) = os.pipe(), os.pipe()
    reader = LineReader(engine_in)
    load = (lambda _: agent) if isinstance(agent, Agent) else agent
    host = Host(reader=reader, writer=LineWriter(engine_out, reader), load=load, clock=clock)
    engine = program(host, settings or EngineSettings())
    failures: list[BaseException] = []

    def run() -> None:
        try:
            engine.run()
        except BaseException as error:  # noqa: BLE001 - told by the test's thread
            failures.append(error)
        finally:
            os.close(engine_out)
            os.close(engine_in)

    thread = threading.Thread(target=run)
    thread.start()
    talk = Talk(to_engine, from_engine)
    try:
        yield talk
    finally:
        talk.hang_up()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert not engine.is_left_searching
    if failures:
        raise failures[0]
