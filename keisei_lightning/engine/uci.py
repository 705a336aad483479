"""What USI and UGI share, as descendants of UCI: options, readiness, searches and what is told of them."""

from __future__ import annotations

import contextlib
import math
import queue
import re
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from typing_extensions import override

import keisei_lightning
from keisei_lightning.engine.clock import Limits, Task
from keisei_lightning.engine.program import Host, Program
from keisei_lightning.engine.settings import EngineSettings, option_lines, with_option
from keisei_lightning.play import Analysis, RankedMove
from keisei_lightning.play.analysis import AnyPosition

__all__ = ["UciProgram", "centipawns", "info_lines", "limits_of", "read_numbers"]

_SCALE: Final = 600.0
"""Centipawns by which the odds of winning grow e-fold: the constant of Ponanza, which shogi programs convert by."""
_LEAST_ODDS: Final = 1e-3
_KEEP_ALIVE_S: Final = 5.0


class UciProgram(Program):
    """An engine in the manner of UCI; a protocol adds its words."""

    greeting: str
    """The word that the protocol begins with; ``ok`` behind it ends the answer."""

    def __init__(self, host: Host, settings: EngineSettings) -> None:
        super().__init__(host, settings)
        self._asked_ready: queue.SimpleQueue[None] = queue.SimpleQueue()

    @override
    def handle(self, line: str) -> bool:
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word == "quit":
            return True
        if word == self.greeting:
            self._greet()
        elif word == "isready":
            self._answer_ready()
        elif word == "setoption":
            self._set_option(rest)
        elif word in ("stop", "gameover"):
            self._stop_all()
        elif word == "ponderhit":
            for task in self._tasks:
                task.ponder_hit()
        elif word == "go":
            self.begin_search(rest.split())
        elif word:
            self.handle_own(word, rest)
        return False

    @abstractmethod
    def handle_own(self, word: str, rest: str) -> None:
        """Answer a word of the protocol's own, or complain of it."""

    @abstractmethod
    def begin_search(self, words: Sequence[str]) -> None:
        """Submit a search.

        Args:
            words: of the command ``go``.
        """

    @override
    def complain(self, text: str) -> None:
        self._writer.write(f"info string {text}"[:2000])

    def _greet(self) -> None:
        self._writer.write(
            f"id name keisei-lightning {keisei_lightning.__version__}",
            "id author the keisei-lightning authors",
            *option_lines(self._settings),
            f"{self.greeting}ok",
        )

    def _answer_ready(self) -> None:
        if self._tasks and self._thinker.is_ready:  # in the midst of a search
            self._writer.write("readyok")
            return
        settings = self._settings
        self._asked_ready.put(None)

        def answer() -> None:
            with self._kept_alive():
                self.prepare(settings)

        self.submit(answer)

    @override
    def prepare(self, settings: EngineSettings) -> bool:
        has_changed = super().prepare(settings)
        # Also those who asked behind a search that waits for its policy, and may only end by a command of theirs.
        # Not those who ask again once they have heard it: what they wait for is another policy.
        for _ in range(self._asked_ready.qsize()):
            self._asked_ready.get_nowait()
            self._writer.write("readyok")
        return has_changed

    @contextlib.contextmanager
    def _kept_alive(self) -> Iterator[None]:
        """Context in which empty lines are written, so that nobody takes the engine for dead."""
        is_over = threading.Event()

        def tick() -> None:
            while not is_over.wait(_KEEP_ALIVE_S):
                self._writer.write("")

        thread = threading.Thread(target=tick, name="keep alive", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def _set_option(self, text: str) -> None:
        found = re.fullmatch(r"name\s+(.+?)(?:\s+value(?:\s+(.*))?)?", text)
        if not found:
            self.complain(f"setoption {text}: must be setoption name NAME value VALUE")
            return
        self._settings = with_option(self._settings, found[1], (found[2] or "").strip())

    def search(self, position: AnyPosition, task: Task, settings: EngineSettings) -> tuple[Analysis, RankedMove]:
        """Search a position, and tell what is found.

        Returns:
            What was found, and the move to play.
        """
        analysis = self._thinker.think(
            position, task, settings, lambda found: self._writer.write(*info_lines(found)), self.complain
        )
        self._writer.write(*info_lines(analysis))
        return analysis, self._thinker.choose(analysis, settings)


def info_lines(analysis: Analysis) -> list[str]:
    """What is found, as lines ``info ...``; one for each variation, the best one first."""
    told = [move for move in analysis.moves if move.variation] or [analysis.moves[0]]
    elapsed_ms = round(analysis.elapsed_s * 1000)
    speed = round(analysis.visits / analysis.elapsed_s) if analysis.elapsed_s > 0 else 0
    return [
        f"info depth {max(len(move.variation), 1)} nodes {analysis.visits} nps {speed} time {elapsed_ms} "
        f"score {score_of(analysis, move, is_best=number == 1)}{f' multipv {number}' if len(told) > 1 else ''} "
        f"pv {' '.join(move.variation or (move.name,))}"
        for number, move in enumerate(told, start=1)
    ]


def score_of(analysis: Analysis, move: RankedMove, *, is_best: bool) -> str:
    """A score as ``cp N``, or as ``mate +`` or ``mate -``, whose length is not known.

    Args:
        analysis: of the position.
        move: whose score it is.
        is_best: it is the move that is played, whose exact value is the position's.
    """
    if is_best and analysis.result in (1, -1):
        return "mate +" if analysis.result == 1 else "mate -"
    value = analysis.value if move.value is None or is_best else move.value
    return f"cp {centipawns((value + 1) / 2)}"


def centipawns(expected_score: float) -> int:
    r"""An expected score p as programs show it: :math:`600 \ln(p / (1 - p))`, from -4144 to 4144.

    Args:
        expected_score: from 0 to 1; it is held between 0.001 and 0.999.
    """
    p = min(max(expected_score, _LEAST_ODDS), 1 - _LEAST_ODDS)
    return round(_SCALE * math.log(p / (1 - p)))


def read_numbers(words: Sequence[str], known: Sequence[str], complain: Callable[[str], None]) -> dict[str, int]:
    """Numbers behind known words, such as ``btime 1000 wtime 2000``; what cannot be read is complained of.

    Args:
        words: of a command.
        known: those with a number behind them.
        complain: gets a line for each that has none.
    """
    numbers: dict[str, int] = {}
    for word, value in zip(words, [*words, ""][1:], strict=True):
        if word not in known:
            continue
        try:
            numbers[word] = max(-(10**12), min(int(value), 10**12))
        except ValueError:
            complain(f"go {word} {value}: must be a whole number")
    return numbers


def limits_of(numbers: dict[str, int], words: Sequence[str], *, clocks: tuple[str, str, str, str]) -> Limits:
    """Limits as a command ``go`` tells them.

    Args:
        numbers: of :func:`read_numbers`; milliseconds and counts.
        words: all of the command.
        clocks: words of the two clocks, and of the two increments.
    """
    clock = [numbers.get(word) for word in clocks]
    nodes = numbers.get("nodes")
    depth = numbers.get("depth")
    if nodes is None and depth is not None:
        nodes = 100 * min(max(depth, 1), 10_000)
    move_time = numbers.get("movetime")
    return Limits(
        nodes=None if nodes is None else min(max(nodes, 0), 1_000_000),
        move_time_s=None if move_time is None else move_time / 1000,
        clock_s=None if clock[:2] == [None, None] else ((clock[0] or 0) / 1000, (clock[1] or 0) / 1000),
        increment_s=(max(clock[2] or 0, 0) / 1000, max(clock[3] or 0, 0) / 1000),
        byoyomi_s=max(numbers.get("byoyomi", 0), 0) / 1000,
        pondering="ponder" in words,
        until_stopped="infinite" in words,
    )
