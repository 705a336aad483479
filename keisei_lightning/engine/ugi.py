"""UGI, the Universal Game Interface (https://github.com/kz04px/cutegames/blob/master/ugi.md): UCI for any game.

A program says ``ugi``, ``isready``, ``uginewgame``, ``position startpos|fen POSITION [moves MOVE ...]``, ``go`` with
``p1time``, ``p2time``, ``p1inc``, ``p2inc``, ``movetime``, ``nodes``, ``depth`` or ``infinite``, ``stop``, ``quit``;
and ``query gameover|p1turn|result``, which is answered by ``response ANSWER``. Beyond it there are ``query moves`` (all
legal moves), ``query position``, and ``query board``, whose lines come as ``info string``.

Moves and positions are written as the game writes them (``keisei play`` shows them); blanks within one are ``_``. A
finished game is answered by ``bestmove none``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from typing_extensions import override

from keisei_lightning.engine.clock import Task
from keisei_lightning.engine.program import Host
from keisei_lightning.engine.settings import EngineSettings
from keisei_lightning.engine.uci import UciProgram, limits_of, read_numbers
from keisei_lightning.errors import GameError
from keisei_lightning.play import GameSession

__all__ = ["UgiProgram", "one_word"]

_CLOCKS: Final = ("p1time", "p2time", "p1inc", "p2inc")
_NUMBERS: Final = (*_CLOCKS, "movetime", "nodes", "depth")
_MOST_PLIES: Final = 100_000


def one_word(name: str) -> str:
    """A move or a position without blanks."""
    return "_".join(name.split())


class UgiProgram(UciProgram):
    """An engine that speaks UGI; see the module's text."""

    greeting = "ugi"

    def __init__(self, host: Host, settings: EngineSettings) -> None:
        super().__init__(host, settings)
        self._session: GameSession | None = None
        self._text: str | None = "startpos"
        """Of the last command ``position``; None: it could not be read."""

    @override
    def handle_own(self, word: str, rest: str) -> None:
        settings = self._settings
        if word == "uginewgame":
            self.submit(self._thinker.new_game)
        elif word == "position":
            self.submit(lambda: self._set_position(rest, settings))
        elif word == "query":
            self.submit(lambda: self._answer(rest, settings))
        else:
            self.complain(f"{word[:200]}: no such command")

    @override
    def begin_search(self, words: Sequence[str]) -> None:
        settings = self._settings
        limits = limits_of(read_numbers(words, _NUMBERS, self.complain), words, clocks=_CLOCKS)
        if not limits.is_timed and limits.nodes is None and settings.simulations is None:
            limits = replace(limits, until_stopped=True)
        task = self.new_task(limits)

        def search() -> None:
            answer = "none"
            try:
                answer = self._best_move(task, settings)
            finally:
                self.end_task(task)
                self._writer.write(f"bestmove {answer}")

        self.submit(search)

    @override
    def release(self) -> None:
        self._session = None
        super().release()

    def _best_move(self, task: Task, settings: EngineSettings) -> str:
        session = self._current(settings)
        if session.is_over:
            task.wait_for_release()
            return "none"
        return one_word(self.search(session, task, settings)[1].name)

    def _current(self, settings: EngineSettings) -> GameSession:
        if self._text is None:
            raise GameError("there is no position: the last one could not be read")
        if self.prepare(settings) or self._session is None:
            return self._set_position(self._text, settings)
        return self._session

    def _set_position(self, text: str, settings: EngineSettings) -> GameSession:
        """Begin a game as a command ``position`` says, and play its moves.

        Raises:
            ConfigError: the policy cannot be read.
            GameError: the position cannot be read, or a move is not legal.
        """
        self._text = self._session = None
        self.prepare(settings)
        start, _, moves = f"{text} ".partition(" moves ")
        kind, _, position = start.strip().partition(" ")
        if (kind, bool(position)) not in (("startpos", False), ("fen", True)):
            raise GameError(f"position {text[:200]}: must be position startpos|fen POSITION [moves ...]")
        session = GameSession(self._thinker.game, start=position.strip() or None)
        for name in moves.split()[:_MOST_PLIES]:
            legal = {one_word(legal): action for legal, action in session.legal_moves().items()}
            if name not in legal:
                raise GameError(f"position: {name[:200]} is not a legal move behind {len(session.moves)} others")
            session.play(legal[name])
        self._text, self._session = text, session
        return session

    def _answer(self, question: str, settings: EngineSettings) -> None:
        session = self._current(settings)
        if question == "board":
            for line in session.game.render(0).splitlines():
                self.complain(line)
            return
        if question == "gameover":
            answer = _word(session.is_over)
        elif question == "p1turn":
            answer = _word(session.mover == 0)
        elif question == "result":
            known = {None: "none", 1.0: "p1win", 0.5: "draw", 0.0: "p2win"}
            # A game that is cut short has no result, and nobody has won it.
            answer = "draw" if session.is_over and session.result is None else known[session.result]
        elif question == "moves":
            answer = " ".join(map(one_word, session.legal_moves()))
        elif question == "position":
            answer = session.game.position(0)
        else:
            raise GameError(f"query {question[:200]}: must be gameover, p1turn, result, moves, position or board")
        self._writer.write(f"response {answer}".rstrip())


def _word(value: bool) -> str:
    return "true" if value else "false"
