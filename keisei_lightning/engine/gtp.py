"""GTP, the Go Text Protocol, version 2 (https://www.lysator.liu.se/~gunnar/gtp/), for hex and othello.

Black is the first player. Vertices are those of the game's own programs: a letter for the column (``i`` included) and
a number for the row, from the top left: ``a1``. Hex has no swap. In othello a player without a move passes: ``pass``.

A move that is not legal is refused and changes nothing. ``genmove`` searches the ``Simulations`` of the settings, or
64 positions, or as long as ``time_settings`` and ``time_left`` allow. Colours may be told out of turn only where the
rules let that colour move.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from typing_extensions import override

import keisei_lightning
from keisei_lightning.engine.clock import Limits
from keisei_lightning.engine.program import Host, Program
from keisei_lightning.engine.settings import EngineSettings
from keisei_lightning.errors import ConfigError, KeiseiError
from keisei_lightning.play import GameSession
from keisei_lightning.search.options import SearchOptions
from keisei_lightning.system.console import say

__all__ = ["GtpProgram"]

_GAMES: Final = ("hex", "othello")
_COLOURS: Final = {"b": 0, "black": 0, "w": 1, "white": 1}
_PASS: Final = "pass"


class _Refusal(Exception):
    """A command is answered by ``?`` and this text."""


class GtpProgram(Program):
    """An engine that speaks GTP; see the module's text."""

    patience_s = 3600.0  # a script is played to its end

    def __init__(self, host: Host, settings: EngineSettings) -> None:
        super().__init__(host, settings)
        self._session: GameSession | None = None
        self._main_s = self._byoyomi_s = 0.0
        self._stones = 0
        self._left_s: dict[int, tuple[float, int]] = {}
        self._commands: dict[str, Callable[[Sequence[str]], str]] = {
            "protocol_version": lambda _: "2",
            "name": lambda _: "keisei-lightning",
            "version": lambda _: keisei_lightning.__version__,
            "known_command": lambda words: "true" if words and words[0] in self._commands else "false",
            "list_commands": lambda _: "\n".join(self._commands),
            "boardsize": self._board_size,
            "clear_board": self._clear_board,
            "komi": self._komi,
            "play": self._play,
            "genmove": self._generate,
            "reg_genmove": self._suggest,
            "undo": self._undo,
            "showboard": lambda _: "\n" + self._game().game.render(0).rstrip(),
            "all_legal": lambda _: " ".join(map(_vertex, self._game().legal_moves())),
            "final_score": self._final_score,
            "time_settings": self._time_settings,
            "time_left": self._time_left,
            "quit": lambda _: "",
        }

    @override
    def handle(self, line: str) -> bool:
        text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", line.partition("#")[0]).strip()
        if not text:
            return False
        found = re.fullmatch(r"(?:(\d+)\s+)?(\S+)\s*(.*)", text, re.DOTALL)
        number, word, rest = (found[1] or "", found[2], found[3].split()) if found else ("", text, [])
        self.submit(lambda: self._answer(number, word, rest))
        return False  # `quit` is answered behind all else

    @override
    def complain(self, text: str) -> None:
        say(text)  # GTP has no words for it

    def _answer(self, number: str, word: str, rest: Sequence[str]) -> None:
        mark, text = "=", ""
        try:
            if word not in self._commands:
                raise _Refusal("unknown command")
            text = self._commands[word](rest)
        except _Refusal as refusal:
            mark, text = "?", str(refusal)
        except KeiseiError as error:
            mark, text = "?", " ".join(str(error).split())[:500]
        self._writer.write(*f"{mark}{number} {text}".rstrip().split("\n"), "")
        if word == "quit":
            self._reader.close()

    @override
    def release(self) -> None:
        self._session = None
        super().release()

    def _game(self) -> GameSession:
        """The game that goes on, with the policy loaded.

        Raises:
            ConfigError: it cannot be read, or GTP has no vertices for its game.
        """
        if self.prepare(self._settings) or self._session is None:
            self._session = GameSession(self._thinker.game)
            name = self._session.game.spec.name
            if name.partition("(")[0] not in _GAMES:
                self._session = None
                raise ConfigError(f"{name}: GTP is for {' and '.join(_GAMES)} here; use protocol=ugi")
        return self._session

    # ---- the board

    def _board_size(self, words: Sequence[str]) -> str:
        size = self._game().game.spec.board_shape[0]
        if words[:1] != [str(size)]:
            raise _Refusal("unacceptable size")
        self._clear_board(())
        return ""

    def _clear_board(self, _words: Sequence[str]) -> str:
        self._game()
        self._thinker.new_game()
        self._session = GameSession(self._thinker.game)
        self._left_s.clear()
        return ""

    def _komi(self, words: Sequence[str]) -> str:
        try:
            float(words[0])
        except (ValueError, IndexError):
            raise _Refusal("syntax error") from None
        return ""  # neither game has one

    def _play(self, words: Sequence[str]) -> str:
        if len(words) != 2:
            raise _Refusal("syntax error")
        session = self._of_colour(words[0])
        wanted = words[1].lower()
        action = next((action for name, action in session.legal_moves().items() if _vertex(name) == wanted), None)
        if action is None:
            raise _Refusal("illegal move")
        session.play(action)
        return ""

    def _undo(self, _words: Sequence[str]) -> str:
        session = self._game()
        if not session.moves:
            raise _Refusal("cannot undo")
        session.undo()
        return ""

    def _final_score(self, _words: Sequence[str]) -> str:
        session = self._game()
        if not session.is_over:
            raise _Refusal("cannot score")
        return {1.0: "B+", 0.0: "W+"}.get(-1.0 if session.result is None else session.result, "0")

    def _of_colour(self, word: str) -> GameSession:
        session, seat = self._game(), _COLOURS.get(word.lower())
        if seat is None:
            raise _Refusal("syntax error")
        if session.is_over or seat != session.mover:
            raise _Refusal("illegal move")
        return session

    # ---- moves

    def _suggest(self, words: Sequence[str]) -> str:
        if len(words) != 1:
            raise _Refusal("syntax error")
        session = self._game()
        if session.is_over:
            return _PASS
        session = self._of_colour(words[0])
        settings, limits = self._settings, self._limits(session.mover)
        if not limits.is_timed and settings.simulations is None:
            settings = replace(settings, simulations=SearchOptions().simulations)
        task = self.new_task(limits)
        try:
            analysis = self._thinker.think(session, task, settings)
        finally:
            self.end_task(task)
        if analysis.expected_score < settings.resign_value:
            return "resign"
        return self._thinker.choose(analysis, settings).name

    def _generate(self, words: Sequence[str]) -> str:
        name = self._suggest(words)
        if name == "resign":
            return name
        if not self._game().is_over:
            self._game().play_name(name)
        return _vertex(name)

    # ---- time

    def _time_settings(self, words: Sequence[str]) -> str:
        try:
            main_s, byoyomi_s, stones = (min(max(int(word), 0), 10**9) for word in words)
        except ValueError:
            raise _Refusal("syntax error") from None
        self._main_s, self._byoyomi_s, self._stones = float(main_s), float(byoyomi_s), stones
        self._left_s.clear()
        return ""

    def _time_left(self, words: Sequence[str]) -> str:
        try:
            colour, seconds, stones = words
            seat, left = _COLOURS[colour.lower()], (float(min(max(int(seconds), 0), 10**9)), max(int(stones), 0))
        except (ValueError, KeyError):
            raise _Refusal("syntax error") from None
        self._left_s[seat] = left
        return ""

    def _limits(self, seat: int) -> Limits:
        """Limits of a move; a byoyomi of several stones is shared out among them."""
        if self._byoyomi_s > 0 and self._stones == 0 and seat not in self._left_s:
            return Limits()  # GTP's way to say: no limit
        left_s, stones = self._left_s.get(seat, (self._main_s, 0))
        if stones > 0:
            return Limits(move_time_s=left_s / stones)
        if left_s == self._main_s == self._byoyomi_s == 0 and seat not in self._left_s:
            return Limits()
        each_s = self._byoyomi_s / self._stones if self._stones else 0.0
        return Limits(clock_s=(left_s, left_s), byoyomi_s=each_s)


def _vertex(name: str) -> str:
    """A move's name as a vertex."""
    return _PASS if name.lower().startswith(_PASS) else name.split()[0].lower()
