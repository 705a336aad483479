"""Any engine that speaks USI as a player, and Debian's fairy-stockfish as a preset.

An engine's strength is set by a limit that does not depend on the machine (``nodes``, ``depth``); ``movetime_ms`` is
there for engines that know nothing else. One process answers one board at a time; several may share the boards.

A fault of an engine (it crashes, is silent for too long, answers with what is no legal move) makes that board's game
void and nothing else: the process is killed, and another one is started for the next board. Only
:data:`MAX_FAULTS_IN_A_ROW` faults without one good answer between them end the match.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import shutil
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, EngineError, IllegalActionError
from keisei_lightning.evaluation.players import RESIGN, Turn
from keisei_lightning.evaluation.shogi_players import check_plays_shogi, shogi_boards
from keisei_lightning.evaluation.usi.engine import EngineFault, UsiEngine, wait_for
from keisei_lightning.games.protocol import NO_MOVE, GameSpec
from keisei_lightning.games.shogi.game import Shogi

__all__ = ["MAX_FAULTS_IN_A_ROW", "UsiPlayer", "make_fairy_stockfish", "make_usi"]

log = logging.getLogger(__name__)

MAX_FAULTS_IN_A_ROW: Final = 3
"""So many faults without a good answer between them are an error."""

_ANSWER_TIMEOUT_S: Final = 30.0
_STARTUP_TIMEOUT_S: Final = 60.0  # some engines read a network of 100 MB and more
_GAMES_FOLDERS: Final = ("/usr/games", "/usr/local/games")  # where Debian puts engines, and often not on PATH
_FAIRY_STOCKFISH: Final = "fairy-stockfish"
_FAIRY_NODES: Final = 1000
_FAIRY_SKILL: Final = (-20, 20)


class UsiPlayer:
    """An engine as a player.

    The processes are started by :meth:`start` (one of them) and by the first boards that need them, and end at
    :meth:`close`, with the player, or with us; a closed player starts them anew when it is asked again. Engines draw
    random numbers of their own, which no seed of ours reaches: games against one that plays with chance
    (fairy-stockfish below its full skill) do not repeat.

    Args:
        command: program and arguments.
        go: USI's ``go`` command, such as ``"go nodes 1000"``.
        options: the engine's own options by name; see :class:`~keisei_lightning.evaluation.usi.engine.UsiEngine`.
        processes: engines that share the boards of a turn, at least 1.
        answer_timeout_s: seconds that a move may take.
        startup_timeout_s: seconds that each answer at a start may take.
        name: for tables and metric names.
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
        self._title = f"player {name}"  # in messages
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
        self._faults_in_a_row = 0
        weakref.finalize(self, _stop, self._engines)

    @property
    def name(self) -> str:
        """A short word for tables and metric names."""
        return self._name

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """Ask the engines about one board after the other; see :meth:`~keisei_lightning.evaluation.Player.choose`.

        Raises:
            EngineError: the engines do nothing but fail.
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
                            self._faults_in_a_row = 0
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
            self.close()  # an answer that is still to come must not be taken for that to another question
            raise
        return actions

    def start(self) -> None:
        """Start one engine, and see that it speaks USI and takes its options. May be repeated.

        Raises:
            ConfigError: it does not; no process is left.
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
        """Kill an engine that is at fault; the loop starts another one where it is needed."""
        engine.stop(politely=False)
        self._faults_in_a_row += 1
        consequence = "" if board is None else f"; the game on board {board} is void"
        log.warning("%s: %s%s", self._title, fault, consequence)
        if self._faults_in_a_row >= MAX_FAULTS_IN_A_ROW:
            count, self._faults_in_a_row = self._faults_in_a_row, 0
            raise EngineError(f"{self._title}: {count} faults in a row; the last: {fault}") from fault


def _stop(engines: Sequence[UsiEngine]) -> None:
    for engine in engines:
        engine.stop()


def _position(boards: Shogi, index: int) -> str:
    return f"position sfen {boards.history(index)}".removesuffix(" moves")


def _read_answer(boards: Shogi, index: int, answer: str) -> int:
    """The action of an engine's answer.

    Raises:
        EngineFault: it is no legal move (``win`` is none either: a game that could be declared won is over).
    """
    if answer == "resign":
        return RESIGN
    try:
        return boards.action_of(index, answer)
    except IllegalActionError as error:
        raise EngineFault(f"the engine answers {answer!r}, which is no legal move in {error.position}") from error


def make_usi(
    spec: GameSpec,
    *,
    seed: int,
    name: str,
    command: str,
    nodes: int | None = None,
    depth: int | None = None,
    movetime_ms: int | None = None,
    processes: int = 1,
    timeout_s: float = _ANSWER_TIMEOUT_S,
    startup_timeout_s: float = _STARTUP_TIMEOUT_S,
    **engine_options: str,
) -> UsiPlayer:
    """Make a player of any USI engine (entry point). The engine is not started: see :meth:`UsiPlayer.start`.

    Args:
        spec: of the game, which must be shogi.
        seed: not used; see :class:`UsiPlayer`.
        name: for tables and metric names.
        command: the program, by name or path, and its arguments, as a shell would read them.
        nodes: positions to search for a move, at least 1. One limit at least must be given.
        depth: plies to search, at least 1.
        movetime_ms: milliseconds to think about a move, at least 1.
        processes: engines that share the boards, at least 1.
        timeout_s: seconds that a move may take beyond ``movetime_ms``, above 0.
        startup_timeout_s: seconds that each answer at the start may take, above 0.
        engine_options: the engine's own options; "_" stands for a space (``Skill_Level=3``). What is written goes to
            the engine.

    Raises:
        ConfigError: another game, an option of ours out of its range, or no such program. What the engine itself has
            to say of its options shows when it is started.
    """
    check_plays_shogi(spec, name)
    limits = {"nodes": nodes, "depth": depth, "movetime_ms": movetime_ms}
    given = {key: value for key, value in limits.items() if value is not None}
    timeouts = {"timeout_s": timeout_s, "startup_timeout_s": startup_timeout_s}
    faults = _number_errors(name, {**given, "processes": processes}, timeouts)
    if not given:
        faults.append(
            f"player {name}: one of nodes, depth and movetime_ms must be given, or the engine thinks without end"
        )
    program, fault = _find_program(command)
    if fault:
        faults.append(f"player {name}: command={command!r} {fault}")
    if faults:
        raise ConfigError(faults)
    words = {"nodes": "nodes", "depth": "depth", "movetime_ms": "movetime"}
    return UsiPlayer(
        program,
        go=" ".join(["go", *(f"{words[key]} {value}" for key, value in given.items())]),
        options=engine_options,
        processes=processes,
        answer_timeout_s=timeout_s + (movetime_ms or 0) / 1000,
        startup_timeout_s=startup_timeout_s,
        name=name,
    )


def _number_errors(name: str, counts: Mapping[str, object], timeouts: Mapping[str, object]) -> list[str]:
    faults = [
        f"player {name}: {key}={value!r} must be an integer of at least 1"
        for key, value in counts.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < 1
    ]
    return faults + [
        f"player {name}: {key}={value!r} must be a number of seconds above 0"
        for key, value in timeouts.items()
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf
    ]


def make_fairy_stockfish(
    spec: GameSpec,
    *,
    seed: int,
    name: str,
    skill: int = _FAIRY_SKILL[1],
    nodes: int | None = None,
    depth: int | None = None,
    movetime_ms: int | None = None,
    command: str = _FAIRY_STOCKFISH,
    processes: int = 1,
    timeout_s: float = _ANSWER_TIMEOUT_S,
    startup_timeout_s: float = _STARTUP_TIMEOUT_S,
    **engine_options: str,
) -> UsiPlayer:
    """Make Fairy-Stockfish a player (entry point): https://fairy-stockfish.github.io, GPL, its own process.

    Args:
        spec: of the game, which must be shogi.
        seed: not used; see :class:`UsiPlayer`.
        name: for tables and metric names.
        skill: "Skill Level", from -20 to 20. Below 20 it chooses among several moves with chance.
        nodes: positions to search for a move; 1000 where no limit is given. With much fewer, the lower skill levels do
            not search one ply to its end, and drew all games against random play (-5 at 500 nodes, measured).
        depth: plies to search.
        movetime_ms: milliseconds to think about a move.
        command: the program, where it is not on the search path and not in Debian's folder of games.
        processes: see :func:`make_usi`.
        timeout_s: likewise.
        startup_timeout_s: likewise.
        engine_options: likewise.

    Raises:
        ConfigError: see :func:`make_usi`.
    """
    low, high = _FAIRY_SKILL
    faults = []
    if isinstance(skill, bool) or not isinstance(skill, int) or not low <= skill <= high:
        faults.append(f"player {name}: skill={skill!r} must be an integer from {low} to {high}")
    if command == _FAIRY_STOCKFISH and _find_program(command)[1]:
        faults.append(
            f"player {name}: there is no program {_FAIRY_STOCKFISH}: install it (apt-get install fairy-stockfish), "
            "or give its path by command="
        )
    if faults:
        raise ConfigError(faults)
    if nodes is None and depth is None and movetime_ms is None:
        nodes = _FAIRY_NODES
    return make_usi(
        spec,
        seed=seed,
        name=name,
        command=command,
        nodes=nodes,
        depth=depth,
        movetime_ms=movetime_ms,
        processes=processes,
        timeout_s=timeout_s,
        startup_timeout_s=startup_timeout_s,
        **{"UCI_Variant": "shogi", "Skill Level": str(skill), **engine_options},
    )


def _find_program(command: str) -> tuple[list[str], str]:
    """Program with its whole path, and arguments; or nothing and what is wrong."""
    try:
        words = shlex.split(command)
    except ValueError as error:  # a quotation mark without its partner
        return [], f"cannot be read: {error}"
    if not words:
        return [], "must be the engine's program, with arguments where it needs some"
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_GAMES_FOLDERS])
    program = shutil.which(os.path.expanduser(words[0]), path=path)
    if program is None:
        return [], "must be a program that is there and may be run"
    return [program, *words[1:]], ""
