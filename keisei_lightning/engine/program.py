"""What engines of all protocols share: a thread that reads, a thread that searches, and an orderly end."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from keisei_lightning.engine.channel import LineReader, LineWriter
from keisei_lightning.engine.clock import Limits, Task
from keisei_lightning.engine.settings import EngineSettings
from keisei_lightning.engine.thinker import Load, Thinker
from keisei_lightning.errors import ConfigError, KeiseiError

__all__ = ["Host", "Program"]

_LOOK_EVERY_S: Final = 0.1

_LEAVE_S: Final = 2.0
"""How long an end waits for the step of a search that is under way, or for a policy that is being loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """What an engine runs in.

    Attributes:
        reader: commands.
        writer: answers.
        load: reads policies.
        clock: seconds; injected by tests.
    """

    reader: LineReader
    writer: LineWriter
    load: Load
    clock: Callable[[], float] = time.monotonic


class Program(ABC):
    """An engine. :meth:`run` ends with the input, with ``quit``, or when nobody reads its output any more.

    Args:
        host: what it runs in.
        settings: at first.
    """

    patience_s = 60.0
    """How long the end of the input waits for answers that are still due before it stops them."""

    def __init__(self, host: Host, settings: EngineSettings) -> None:
        self._reader, self._writer, self._settings = host.reader, host.writer, settings
        self._thinker = Thinker(host.load, host.clock)
        self._tasks: list[Task] = []  # that are not answered; both threads only append and remove
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        # A daemon: torch's import, or a step of a search, cannot be interrupted, and must not keep an end waiting.
        self._thread = threading.Thread(target=self._work, name="search", daemon=True)
        self._failure: ConfigError | None = None
        self.is_left_searching = False
        """Whether the search thread could not be ended."""

    def run(self) -> None:
        """Answer commands until there are no more.

        Raises:
            ConfigError: the policy of the command line cannot be read.
        """
        self._thread.start()
        try:
            has_quit = any(self._handle(line) for line in self._reader.lines())
            self._jobs.put(None)
            if not has_quit and not any(task.is_open_ended for task in self._tasks):
                self._wait_for_answers()
        finally:
            self._stop_all()
            self._jobs.put(None)
            self._thread.join(_LEAVE_S)
            self.is_left_searching = self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    @abstractmethod
    def handle(self, line: str) -> bool:
        """Answer a line, or submit what answers it; returns whether to quit."""

    @abstractmethod
    def complain(self, text: str) -> None:
        """Tell the program at the other end what is wrong."""

    def release(self) -> None:
        """Drop all boards, in the search thread, which they belong to."""
        self._thinker.release()

    def submit(self, job: Callable[[], object]) -> None:
        """Let the search thread do something, after all that it was given before."""
        self._jobs.put(job)

    def new_task(self, limits: Limits) -> Task:
        """A search that is asked for now; one before it that only a command ends is stopped, and answers first."""
        for before in list(self._tasks):
            if before.is_open_ended:
                before.stop()
        task = self._thinker.task(limits, self._settings)
        self._tasks.append(task)
        return task

    def end_task(self, task: Task) -> None:
        """Note that a task is answered."""
        self._tasks.remove(task)

    def prepare(self, settings: EngineSettings) -> bool:
        """Make the policy ready; to be called by the search thread. One that cannot be read leaves that of before.

        Returns:
            Whether the boards of before are no longer those of the game.

        Raises:
            ConfigError: it cannot be read, and there was none before: that ends the program.
        """
        try:
            return self._thinker.prepare(settings)
        except ConfigError as error:
            if self._thinker.is_ready:
                self._tell(error)
                self._settings = self._thinker.settings
                return False
            self._failure = error
            self._reader.close()
            raise

    def _wait_for_answers(self) -> None:
        for _ in range(round(self.patience_s / _LOOK_EVERY_S)):
            self._thread.join(_LOOK_EVERY_S)
            if not self._thread.is_alive() or self._writer.has_failed:
                return

    def _stop_all(self) -> None:
        for task in list(self._tasks):
            task.stop()

    def _handle(self, line: str | None) -> bool:
        try:
            if line is None:
                self.complain("a line is too long, and dropped")
                return False
            return self.handle(line.strip())
        except Exception as error:  # noqa: BLE001 - whatever a line says, the next one is read
            self._tell(error)
            return False

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:  # noqa: BLE001 - likewise
                self._tell(error)
        self.release()

    def _tell(self, error: Exception) -> None:
        if isinstance(error, ConfigError):
            for line in error.errors:
                self.complain(line)
            return
        if isinstance(error, KeiseiError):
            self.complain(str(error))
            return
        traceback.print_exception(error)
        self.complain(f"{type(error).__name__}: {error}")
