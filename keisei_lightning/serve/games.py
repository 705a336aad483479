"""The games that are being played on this server, by names that nobody can guess."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

from keisei_lightning.agents import Agent
from keisei_lightning.serve.fields import RequestError
from keisei_lightning.serve.table import Seating, Table
from keisei_lightning.serve.work_threads import Stop, WorkThread, WorkThreads

__all__ = ["Games", "ServedGame"]

T = TypeVar("T")


class ServedGame:
    """A game, from the event loop's side.

    Attributes:
        key: its name.
        version: grows with each change.
        used_at: seconds on the monotonic clock.
    """

    def __init__(self, key: str, thread: WorkThread) -> None:
        self.key, self.version, self.used_at = key, 0, time.monotonic()
        self._thread = thread
        self._table: Table | None = None
        self._state: dict[str, Any] = {}
        self._waiting = 0
        self._reply: asyncio.Task[None] | None = None
        self._repliers = 0

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for anything of it."""
        return self._waiting == 0

    def state(self) -> dict[str, Any]:
        """What a page shows, as it was after the latest change."""
        self.used_at = time.monotonic()
        return {"id": self.key, "version": self.version, "is_thinking": self._reply is not None, **self._state}

    async def begin(self, make: Callable[[], Table]) -> None:
        """Make the table, on its thread."""

        def work(_: Stop) -> dict[str, Any]:
            self._table = make()
            return self._table.state()

        self._state = await self._run(work)

    async def change(self, ply: int | None, change: Callable[[Table], None]) -> None:
        """Change it; what the policy is thinking about is given up.

        Args:
            ply: moves that the client has seen; None: as many as there are.
            change: is called on the thread.

        Raises:
            RequestError: there are more moves or fewer, or it cannot be done.
        """
        if self._reply is not None:
            self._reply.cancel()

        def work(_: Stop) -> dict[str, Any]:
            table = self._there()
            if ply is not None and ply != len(table.session.moves):
                raise RequestError(409, f"ply={ply}: the game has {len(table.session.moves)} moves by now")
            change(table)
            return table.state()

        self._state = await self._run(work)
        self.version += 1

    async def look(self, work: Callable[[Table, Stop], T]) -> T:
        """Look at it, on its thread."""
        return await self._run(lambda stop: work(self._there(), stop))

    async def evaluate(self) -> bool:
        """Evaluate positions; see :meth:`Table.evaluate`."""

        def work(stop: Stop) -> tuple[bool, dict[str, Any]]:
            table = self._there()
            return table.evaluate(stop), table.state()

        is_more, self._state = await self._run(work)
        self.version += 1
        return is_more

    async def reply(self) -> None:
        """Let the policy move. Several may wait for one move; it is given up when the last of them goes."""
        if self._reply is None:
            self._reply = asyncio.create_task(self._think())
            self._reply.add_done_callback(self._has_replied)
        task = self._reply
        self._repliers += 1
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():  # the client went, not the search
                raise
        finally:
            self._repliers -= 1
            if self._repliers == 0:
                task.cancel()

    async def _think(self) -> None:
        def work(stop: Stop) -> dict[str, Any]:
            table = self._there()
            table.reply(stop)
            return table.state()

        self._state = await self._run(work)
        self.version += 1

    def _has_replied(self, task: asyncio.Task[None]) -> None:
        if self._reply is task:
            self._reply = None
        if not task.cancelled():
            task.exception()  # whoever waits has it too

    def drop(self) -> None:
        """Let the boards go, on the thread that they belong to."""

        def forget() -> None:
            self._table = None

        if self._reply is not None:
            self._reply.cancel()
        self._thread.release(forget)

    async def _run(self, work: Callable[[Stop], T]) -> T:
        self._waiting += 1
        self.used_at = time.monotonic()
        try:
            return await self._thread.run(work)
        finally:
            self._waiting -= 1

    def _there(self) -> Table:
        if self._table is None:
            raise RequestError(404, "there is no such game here (any more)")
        return self._table


class Games:
    """A bounded number of games; for a new one the one that was idle longest makes room.

    Args:
        threads: that boards live on.
        max_games: so many at once.
    """

    def __init__(self, threads: WorkThreads, *, max_games: int = 64) -> None:
        self._threads, self._max_games = threads, max_games
        self._games: dict[str, ServedGame] = {}

    def __len__(self) -> int:
        return len(self._games)

    async def new(
        self, agent: Agent, seating: Seating, *, position: str | None = None, record: str | None = None
    ) -> ServedGame:
        """Begin a game.

        Raises:
            RequestError: all games are busy.
            GameError: the position or the record cannot be read.
        """
        if len(self._games) >= self._max_games:
            self._make_room()
        game = ServedGame(secrets.token_urlsafe(16), self._threads.choose())
        self._games[game.key] = game
        try:
            await game.begin(lambda: Table(agent, seating, position=position, record=record))
        except BaseException:
            self._drop(game)
            raise
        return game

    def find(self, key: str) -> ServedGame:
        """The game of a name.

        Raises:
            RequestError: there is none.
        """
        if key not in self._games:
            raise RequestError(404, "there is no such game here (any more)")
        return self._games[key]

    def close(self) -> None:
        """Drop all games and end the threads."""
        for game in list(self._games.values()):
            self._drop(game)
        self._threads.close()

    def _make_room(self) -> None:
        idle = [game for game in self._games.values() if game.is_idle]
        if not idle:
            raise RequestError(503, f"{len(self._games)} games are being played here, and no more may be")
        self._drop(min(idle, key=lambda game: game.used_at))

    def _drop(self, game: ServedGame) -> None:
        self._games.pop(game.key, None)
        game.drop()
