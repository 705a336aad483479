"""Players that are USI engines: any engine by its command, and Fairy-Stockfish as a preset.

``nodes`` and ``depth`` limit an engine's search independently of the machine; ``movetime_ms`` is for engines that
support neither. One process answers one board at a time; several may share the boards.

An engine that crashes, exceeds its time or answers with an illegal move voids the game on that board only: its process
is killed, and a new one is started for the next board. :data:`MAX_CONSECUTIVE_FAULTS` such faults end the match.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, EngineError, IllegalActionError
from keisei_lightning.evaluation.players import RESIGN, Turn
from keisei_lightning.evaluation.shogi_players import check_plays_shogi, shogi_boards
from keisei_lightning.evaluation.usi.engine import EngineFault, UsiEngine, wait_for
from keisei_lightning.games.protocol import NO_MOVE, GameSpec
from keisei_lightning.games.shogi.game import Shogi
from keisei_lightning.system.options import Options, option

__all__ = ["MAX_CONSECUTIVE_FAULTS", "EngineOptions", "UsiPlayer", "make_fairy_stockfish", "make_usi"]

log = logging.getLogger(__name__)

MAX_CONSECUTIVE_FAULTS: Final = 3
"""This many faults without a legal answer between them raise :class:`~keisei_lightning.errors.EngineError`."""

_ANSWER_TIMEOUT_S: Final = 30.0
_STARTUP_TIMEOUT_S: Final = 60.0  # some engines read a network of 100 MB and more
_GAMES_FOLDERS: Final = ("/usr/games", "/usr/local/games")  # where Debian puts engines, and often not on PATH
_FAIRY_STOCKFISH: Final = "fairy-stockfish"
_FAIRY_NODES: Final = 1000
_FAIRY_SKILL: Final = (-20, 20)


class UsiPlayer:
    """Plays the moves of a USI engine.

    :meth:`start` starts one process, and :meth:`choose` starts further ones when boards need them. They end at
    :meth:`close`, with the player, or with this process; a closed player starts new ones when it is asked again.
    Engines have random streams of their own, which the seed does not reach: games against a randomised engine
    (Fairy-Stockfish below its full skill) do not repeat.

    Args:
        command: program and arguments.
        go: USI's ``go`` command, such as ``"go nodes 1000"``.
        options: the engine's own options by name; see :class:`~keisei_lightning.evaluation.usi.engine.UsiEngine`.
        processes: engine processes that share the boards of a turn, at least 1.
        answer_timeout_s: seconds within which the engine must move.
        startup_timeout_s: seconds within which the engine must send each of ``usiok`` and ``readyok``.
        name: name in tables and metrics.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        go: str,
        options: Mapping[str, object] | None = None,
        processes: int = 1,
        answer_timeout_s: float = _ANSWER_TIMEOUT_S,
        startup_timeout_s: float = _STARTUP_TIMEOUT_S,
        name: str = "usi",
    ) -> None:
        self._name = name
        self._title = f"player {name}"
        self._command = tuple(command)
        self._go = go
        self._engines = [
            UsiEngine(
                command,
                options or {},
                title=self._title,
                answer_timeout_s=answer_timeout_s,
                startup_timeout_s=startup_timeout_s,
            )
            for _ in range(processes)
        ]
        self._consecutive_faults = 0
        weakref.finalize(self, _stop, self._engines)

    @property
    def name(self) -> str:
        """A short word for tables and metric names."""
        return self._name

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """Ask the engines for a move on each board; see :meth:`~keisei_lightning.evaluation.Player.choose`.

        Raises:
            EngineError: :data:`MAX_CONSECUTIVE_FAULTS` faults without a legal answer between them.
            GameError: the boards are not those of shogi, or belong to another thread.
            ConfigError: the engine refuses an option.
        """
        boards = shogi_boards(turn, self._name)
        indices = turn.indices.tolist()
        actions = np.full(len(indices), NO_MOVE, dtype=np.int64)
        waiting = deque(np.flatnonzero(turn.legal.any(axis=1)).tolist())
        engines = self._engines[: len(waiting)]
        asked: dict[UsiEngine, int] = {}
        try:
            while waiting or asked:
                for engine in engines:
                    try:
                        if engine.is_busy and (answer := engine.advance()) is not None:
                            at = asked[engine]
                            actions[at] = _read_answer(boards, indices[at], answer)
                            del asked[engine]
                            self._consecutive_faults = 0
                        if engine.is_off and waiting:
                            engine.start()
                        elif engine.is_idle and waiting:
                            engine.ask(_position(boards, indices[waiting[0]]), self._go)
                            asked[engine] = waiting.popleft()
                    except EngineFault as fault:
                        voided = asked.pop(engine, None)
                        self._replace(engine, fault, None if voided is None else indices[voided])
                wait_for(engines)
        except BaseException:
            self.close()  # a late answer must not be taken for the answer to another question
            raise
        return actions

    def start(self) -> None:
        """Start one engine and check that it speaks USI and accepts its options. May be repeated.

        Raises:
            ConfigError: it does not; the process has ended.
        """
        engine = self._engines[0]
        try:
            if engine.is_off:
                engine.start()
            while engine.is_busy:
                wait_for([engine])
                engine.advance()
        except EngineFault as fault:
            engine.stop()
            raise ConfigError(f"{self._title}: command={shlex.join(self._command)!r}: {fault}") from fault
        except BaseException:
            engine.stop()
            raise

    def close(self) -> None:
        """End the processes. May be repeated."""
        _stop(self._engines)

    def _replace(self, engine: UsiEngine, fault: EngineFault, board: int | None) -> None:
        """Kill a faulty engine; :meth:`choose` starts a new one when a board needs it."""
        engine.stop(send_quit=False)
        self._consecutive_faults += 1
        consequence = "" if board is None else f"; the game on board {board} is void"
        log.warning("%s: %s%s", self._title, fault, consequence)
        if self._consecutive_faults >= MAX_CONSECUTIVE_FAULTS:
            count, self._consecutive_faults = self._consecutive_faults, 0
            raise EngineError(f"{self._title}: {count} consecutive faults; the last: {fault}") from fault


def _stop(engines: Sequence[UsiEngine]) -> None:
    for engine in engines:
        engine.stop()


def _position(boards: Shogi, index: int) -> str:
    return f"position sfen {boards.history(index)}".removesuffix(" moves")


def _read_answer(boards: Shogi, index: int, answer: str) -> int:
    """The action that an engine's answer stands for.

    Raises:
        EngineFault: the answer is no legal move (nor is ``win``: a game that could be declared won is over).
    """
    if answer == "resign":
        return RESIGN
    try:
        return boards.action_of(index, answer)
    except IllegalActionError as error:
        raise EngineFault(f"the engine answers {answer!r}, which is no legal move in {error.position}") from error


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Options):
    """How long an engine thinks about a move, and how its processes are run."""

    nodes: int | None = option(None, "Positions to search for each move.", low=1)
    depth: int | None = option(None, "Plies to search.", low=1)
    movetime_ms: int | None = option(None, "Milliseconds to search for each move.", low=1)
    processes: int = option(1, "Engine processes that share the boards.", low=1)
    timeout_s: float = option(
        _ANSWER_TIMEOUT_S, "Seconds within which the engine must move, beyond movetime_ms.", above=0
    )
    startup_timeout_s: float = option(
        _STARTUP_TIMEOUT_S, "Seconds within which the engine must send each of usiok and readyok.", above=0
    )

    @property
    def go(self) -> str:
        """The command that starts a search: ``go nodes 1000``; only ``go`` where there is no limit."""
        limits = {"nodes": self.nodes, "depth": self.depth, "movetime": self.movetime_ms}
        return " ".join(["go", *(f"{word} {value}" for word, value in limits.items() if value is not None)])


_DEFAULTS: Final = EngineOptions()


def make_usi(
    spec: GameSpec, *, seed: int, name: str, command: str, options: EngineOptions = _DEFAULTS, **keywords: str
) -> UsiPlayer:
    """Make a player of any USI engine (entry point); :meth:`UsiPlayer.start` starts the engine.

    Args:
        spec: the game, which must be shogi.
        seed: not used; see :class:`UsiPlayer`.
        name: name in tables and metrics.
        command: the program, by name or path, and its arguments, as a shell would read them.
        options: of the search and of the processes; ``nodes``, ``depth`` or ``movetime_ms`` must be given.
        keywords: single ones of :class:`EngineOptions`, such as ``nodes=1000``; others are the engine's own, sent as
            they are written, where "_" stands for a space (``Skill_Level=3``).

    Raises:
        ConfigError: another game, an option out of its range, or no such program. The engine checks its own options
            when it starts.
    """
    check_plays_shogi(spec, name)
    own = {field.name for field in fields(options)}
    errors: list[str] = []
    try:
        options = replace(options, **{key: value for key, value in keywords.items() if key in own})  # type: ignore[arg-type]
    except ConfigError as error:
        errors += [f"player {name}: {line}" for line in error.errors]
    if options.go == "go" and not errors:
        errors.append(
            f"player {name}: one of nodes, depth and movetime_ms must be given, or the engine thinks without end"
        )
    program, reason = _find_program(command)
    if reason:
        errors.append(f"player {name}: command={command!r}: {reason}")
    if errors:
        raise ConfigError(errors)
    return UsiPlayer(
        program,
        go=options.go,
        options={key: value for key, value in keywords.items() if key not in own},
        processes=options.processes,
        answer_timeout_s=options.timeout_s + (options.movetime_ms or 0) / 1000,
        startup_timeout_s=options.startup_timeout_s,
        name=name,
    )


def make_fairy_stockfish(
    spec: GameSpec,
    *,
    seed: int,
    name: str,
    skill: int = _FAIRY_SKILL[1],
    command: str = _FAIRY_STOCKFISH,
    options: EngineOptions = _DEFAULTS,
    **keywords: str,
) -> UsiPlayer:
    """Make Fairy-Stockfish a player (entry point): https://fairy-stockfish.github.io, GPL, its own process.

    Args:
        spec: the game, which must be shogi.
        seed: not used; see :class:`UsiPlayer`.
        name: name in tables and metrics.
        skill: "Skill Level", from -20 to 20. Below 20 the engine chooses at random among several moves.
        command: the program, where it is neither on the search path nor in Debian's folder of games.
        options: see :func:`make_usi`; where no limit is given, 1000 nodes. With much fewer, the lower skill levels do
            not complete a search of one ply, and drew all games against random play (-5 at 500 nodes, measured).
        keywords: see :func:`make_usi`.

    Raises:
        ConfigError: ``skill`` is out of range, there is no such program, or see :func:`make_usi`.
    """
    if errors := _fairy_stockfish_errors(name, skill, command):
        raise ConfigError(errors)
    if options.go == "go" and all(keywords.get(limit) is None for limit in ("nodes", "depth", "movetime_ms")):
        options = replace(options, nodes=_FAIRY_NODES)
    engines_own = {"UCI_Variant": "shogi", "Skill Level": str(skill)}
    return make_usi(spec, seed=seed, name=name, command=command, options=options, **{**engines_own, **keywords})


def _fairy_stockfish_errors(name: str, skill: object, command: str) -> list[str]:
    low, high = _FAIRY_SKILL
    errors = []
    if isinstance(skill, bool) or not isinstance(skill, int) or not low <= skill <= high:
        errors.append(f"player {name}: skill={skill!r}: must be a whole number from {low} to {high}")
    if command == _FAIRY_STOCKFISH and _find_program(command)[1]:
        errors.append(
            f"player {name}: there is no program {_FAIRY_STOCKFISH}: install it (apt-get install fairy-stockfish), "
            "or give its path by command="
        )
    return errors


def _find_program(command: str) -> tuple[list[str], str]:
    """The program with its full path, and its arguments; or an empty list and the reason."""
    try:
        words = shlex.split(command)
    except ValueError as error:  # an unmatched quotation mark
        return [], f"cannot be read: {error}"
    if not words:
        return [], "must be the engine's program, with arguments where it needs some"
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_GAMES_FOLDERS])
    program = shutil.which(os.path.expanduser(words[0]), path=path)
    if program is None:
        return [], "must be an executable program"
    return [program, *words[1:]], ""
