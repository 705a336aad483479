"""One game on the server: who sits where, what has been played, and what the policy thinks of it.

A :class:`Table` is used on one thread alone (:mod:`keisei_lightning.serve.work_threads`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from keisei_lightning.agents import Agent
from keisei_lightning.errors import GameError
from keisei_lightning.games.protocol import ClickableGame
from keisei_lightning.play import Analysis, Analyst, GameSession, choose_move
from keisei_lightning.search.options import SearchOptions
from keisei_lightning.serve.fields import RequestError
from keisei_lightning.serve.work_threads import Stop

__all__ = ["SIDES", "Seating", "Table"]

Side = Literal["first", "second", "both", "none"]
SIDES: Final[tuple[Side, ...]] = ("first", "second", "both", "none")
"""Seats of the person: first, second, both (two people), or none (the policy plays itself)."""

_MAX_SECONDS: Final = 60.0
_SHOWN_MOVES: Final = 12
_CONSIDERED_PLIES: Final = 64
"""Positions without an evaluation that one request evaluates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seating:
    """Who plays, and how.

    Attributes:
        side: the seats of the person.
        simulations: positions that the policy looks at for a move; 0: the policy alone.
        temperature: of its choice, see :func:`~keisei_lightning.play.choose_move`.
    """

    side: str
    simulations: int
    temperature: float

    def is_person(self, seat: int) -> bool:
        """Whether a person plays in a seat."""
        return self.side == "both" or self.side == ("first", "second")[seat]


class Table:
    """A game between a person and a policy, or of two people, or of a policy with itself.

    Args:
        agent: the policy; it makes the game.
        seating: who plays, and how.
        position: to begin with; None: the game's own start.
        record: a saved game to continue, in the place of a position; None: a new one.
        seed: of the policy's samples.

    Raises:
        GameError: the position or the record cannot be read.
    """

    def __init__(
        self,
        agent: Agent,
        seating: Seating,
        *,
        position: str | None = None,
        record: str | None = None,
        seed: int | None = None,
    ) -> None:
        self.seating = seating
        self._agent = agent
        self.session = (
            GameSession(agent.game, start=position) if record is None else GameSession.from_json(agent.game, record)
        )
        self._random = np.random.default_rng(seed)
        self._analyst: Analyst | None = None
        self._values: list[float | None] = []
        """Expected score of the first seat at each ply; None: nobody has looked."""

    # ---- what changes it

    def play(self, name: str) -> None:
        """A person's move, by its name.

        Raises:
            RequestError: it is the policy's turn, or no such move is legal.
        """
        self._persons_turn()
        try:
            self.session.play_name(name)
        except GameError as error:
            raise RequestError(409, str(error)) from error

    def reply(self, stop: Stop) -> None:
        """The policy's move; none if it is not its turn, or nobody waits any more."""
        if self.session.is_over or self.seating.is_person(self.session.mover):
            return
        analysis = self._analyse(self.session, self.seating.simulations, stop)
        if stop():
            return
        self._note(len(self.session.moves), analysis, self.session.mover)
        move = choose_move(analysis, temperature=self.seating.temperature, random=self._random)
        self.session.play(move.action)

    def undo(self) -> None:
        """Take back moves until a person is to move again.

        Raises:
            RequestError: no person has moved yet.
        """
        moves = self.session.moves
        for count in range(1, len(moves) + 1):
            if self.seating.is_person(moves[-count].seat) or self.seating.side == "none":
                self.session.undo(count)
                del self._values[len(moves) :]
                return
        raise RequestError(409, "there is no move to take back")

    def resign(self) -> None:
        """The person to move gives up.

        Raises:
            RequestError: it is not a person's turn, or the game is over.
        """
        self._persons_turn()
        self.session.resign()

    # ---- what looks at it

    def state(self) -> dict[str, Any]:
        """All that a page shows of it."""
        session = self.session
        return {
            "game": session.game.spec.name,
            "policy": self._agent.name,
            "side": self.seating.side,
            "simulations": self.seating.simulations,
            "temperature": self.seating.temperature,
            "start": session.start,
            "position": session.game.position(0),
            "moves": [{"seat": move.seat, "name": move.name} for move in session.moves],
            "mover": session.mover,
            "waits_for": "" if session.is_over else "person" if self.seating.is_person(session.mover) else "policy",
            "is_over": session.is_over,
            "outcome": session.outcome,
            "result": session.result,
            "legal": self._legal(session),
            "svg": session.game.render(0, "svg"),
            "values": self._values[: len(session.moves) + 1],
        }

    def look(self, ply: int) -> dict[str, Any]:
        """An earlier position of the game, as it was after some moves.

        Raises:
            RequestError: there are not so many.
        """
        session = self._at(ply)
        return {"ply": ply, "svg": session.game.render(0, "svg"), "position": session.game.position(0)}

    def hint(self, ply: int, simulations: int, stop: Stop) -> dict[str, Any]:
        """What the policy thinks of a position of the game.

        Raises:
            RequestError: there are not so many moves, or the game is over there.
        """
        session = self._at(ply)
        if session.is_over:
            raise RequestError(409, "the game is over in this position")
        analysis = self._analyse(session, simulations, stop)
        self._note(ply, analysis, session.mover)
        parts = {move["name"]: move["parts"] for move in self._legal(session)}
        return {
            "ply": ply,
            "mover": session.mover,
            "score": analysis.expected_score,
            "result": analysis.result,
            "variation": list(analysis.variation),
            "visits": analysis.visits,
            "moves": [
                {"name": move.name, "parts": parts[move.name], "policy": move.policy, "visits": move.visits}
                for move in analysis.moves[:_SHOWN_MOVES]
            ],
        }

    def evaluate(self, stop: Stop) -> bool:
        """Let the network evaluate positions that nobody has looked at, some of them; returns whether any are left."""
        moves = self.session.moves
        self._values += [None] * (len(moves) + 1 - len(self._values))
        missing = [ply for ply in range(len(moves) + 1) if self._values[ply] is None]
        replay = GameSession(self._agent.game, start=self.session.start)
        for ply in missing[:_CONSIDERED_PLIES]:
            if stop():
                return True
            for move in moves[len(replay.moves) : ply]:
                replay.play(move.action)
            if self.session.is_over and ply == len(moves):
                self._values[ply] = 0.5 if self.session.result is None else self.session.result
            else:
                self._note(ply, self._analyse(replay, 0, stop), replay.mover)
        return len(missing) > _CONSIDERED_PLIES

    def record(self) -> str:
        """The game as JSON, for a file."""
        names = {True: "person", False: self._agent.name}
        first, second = (names[self.seating.is_person(seat)] for seat in (0, 1))
        return self.session.to_json(first=first, second=second)

    # ---- inside

    def _persons_turn(self) -> None:
        if self.session.is_over:
            raise RequestError(409, f"the game is over ({self.session.outcome})")
        if not self.seating.is_person(self.session.mover):
            raise RequestError(409, "it is the policy's turn")

    def _at(self, ply: int) -> GameSession:
        if ply == len(self.session.moves):
            return self.session
        if ply > len(self.session.moves):
            raise RequestError(409, f"ply={ply}: must be 0 to {len(self.session.moves)}, the moves so far")
        replay = GameSession(self._agent.game, start=self.session.start)
        for move in self.session.moves[:ply]:
            replay.play(move.action)
        return replay

    def _legal(self, session: GameSession) -> list[dict[str, Any]]:
        game = session.game
        parts_of = game.move_parts if isinstance(game, ClickableGame) else lambda index, action: ()
        return [{"name": name, "parts": list(parts_of(0, action))} for name, action in session.legal_moves().items()]

    def _analyse(self, session: GameSession, simulations: int, stop: Stop) -> Analysis:
        if self._analyst is None:
            self._analyst = self._agent.analyst(SearchOptions(seconds=_MAX_SECONDS))
        return self._analyst.analyse(session, simulations=simulations, goes_on=lambda: not stop())

    def _note(self, ply: int, analysis: Analysis, mover: int) -> None:
        self._values += [None] * (ply + 1 - len(self._values))
        self._values[ply] = analysis.expected_score if mover == 0 else 1 - analysis.expected_score
