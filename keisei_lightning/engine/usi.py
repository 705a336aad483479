"""USI, the Universal Shogi Interface (http://hgm.nubati.net/usi.html): what shogi programs speak with engines.

What is a matter of choice:

- ``go`` with ``nodes`` or the option ``Simulations`` searches so many positions, as the player ``search`` does.
  ``depth N`` counts as 100 N positions. Without any limit it searches until ``stop``.
- Scores are ``600 ln(p / (1 - p))`` of the expected score p; a proven win or loss is ``mate +`` or ``mate -``.
- A second ``go`` waits for the answer to the first, and ends it where nothing else would.
- ``go`` without a position that could be read, or without a legal move, is answered by ``resign``.
- A win by the 27-point entering-king rule is declared (``bestmove win``) as soon as it is there.
- ``go mate`` answers ``nomate`` where no move gives check, and ``timeout`` where no mate was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from typing_extensions import override

from keisei_lightning.agents import Agent
from keisei_lightning.engine.clock import Limits, Task
from keisei_lightning.engine.mate import gives_check, mating_line
from keisei_lightning.engine.program import Host
from keisei_lightning.engine.settings import EngineSettings
from keisei_lightning.engine.uci import UciProgram, limits_of, read_numbers
from keisei_lightning.engine.usi_position import UsiPosition
from keisei_lightning.errors import ConfigError, GameError

__all__ = ["UsiProgram"]

_CLOCKS: Final = ("btime", "wtime", "binc", "winc")
_NUMBERS: Final = (*_CLOCKS, "byoyomi", "movetime", "nodes", "depth")


class UsiProgram(UciProgram):
    """An engine that speaks USI; see the module's text."""

    greeting = "usi"

    def __init__(self, host: Host, settings: EngineSettings) -> None:
        super().__init__(replace(host, load=lambda asked: _shogi_player(host.load(asked))), settings)
        self._position: UsiPosition | None = None
        self._text: str | None = "startpos"
        """Of the last command ``position``; None: it could not be read."""

    @override
    def handle_own(self, word: str, rest: str) -> None:
        if word == "usinewgame":
            self.submit(self._thinker.new_game)
        elif word == "position":
            settings = self._settings
            self.submit(lambda: self._set_position(rest, settings))
        else:
            self.complain(f"{word[:200]}: no such command")

    @override
    def begin_search(self, words: Sequence[str]) -> None:
        settings = self._settings
        limits = limits_of(read_numbers(words, _NUMBERS, self.complain), words, clocks=_CLOCKS)
        is_mate = "mate" in words
        if is_mate:
            limits = _mate_limits(words)
        elif not limits.is_timed and limits.nodes is None and settings.simulations is None:
            limits = replace(limits, until_stopped=True)
        only = list(words[words.index("searchmoves") + 1 :]) if "searchmoves" in words else []
        task = self.new_task(limits)

        def search() -> None:
            # Whatever goes wrong, the program at the other end waits for this word.
            answer = "checkmate timeout" if is_mate else "bestmove resign"
            try:
                answer = self._mate(task, settings) if is_mate else self._best_move(task, settings, only)
            finally:
                self.end_task(task)
                self._writer.write(answer)

        self.submit(search)

    @override
    def release(self) -> None:
        self._position = None
        super().release()

    def _set_position(self, text: str, settings: EngineSettings) -> UsiPosition:
        """Put the board into a position, and make it ready.

        Raises:
            ConfigError: the policy cannot be read, or plays another game.
            GameError: the position cannot be read.
        """
        self._text = None
        if self.prepare(settings) or self._position is None:
            self._position = UsiPosition(self._thinker.game)
        self._position.set(text)
        self._text = text
        return self._position

    def _current(self, settings: EngineSettings) -> UsiPosition:
        if self._text is None:
            raise GameError("there is no position: the last one could not be read")
        if self.prepare(settings) or self._position is None:
            return self._set_position(self._text, settings)
        self._position.look()
        return self._position

    def _best_move(self, task: Task, settings: EngineSettings, only: Sequence[str]) -> str:
        position = self._current(settings)
        position.keep(only)
        if position.is_over or position.is_declared:
            task.wait_for_release()
            return "bestmove resign" if position.is_over else "bestmove win"
        analysis, move = self.search(position, task, settings)
        if analysis.expected_score < settings.resign_value:
            return "bestmove resign"
        reply = move.variation[1:2]
        return f"bestmove {move.name}" + "".join(f" ponder {name}" for name in reply)

    def _mate(self, task: Task, settings: EngineSettings) -> str:
        position = self._current(settings)
        task.begin(position.mover)
        game = position.game
        if not gives_check(game, self._thinker.game):
            return "checkmate nomate"
        line = mating_line(game, self._thinker.game, lambda: not task.is_over)
        return f"checkmate {' '.join(line)}" if line else "checkmate timeout"


def _shogi_player(agent: Agent) -> Agent:
    """An agent that plays shogi.

    Raises:
        ConfigError: it plays another game.
    """
    if agent.spec.name != "shogi":
        raise ConfigError(f"checkpoint={agent.name}: plays {agent.spec.name}; USI is a protocol of shogi alone")
    return agent


def _mate_limits(words: Sequence[str]) -> Limits:
    """Limits of ``go mate MILLISECONDS`` or ``go mate infinite``."""
    after = words[words.index("mate") + 1 :][:1]
    if after and after[0].isascii() and after[0].isdecimal():
        return Limits(move_time_s=min(int(after[0]), 10**12) / 1000)
    return Limits(until_stopped=True)
