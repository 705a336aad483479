"""Requests of the page on which games are played."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from keisei_lightning.serve.fields import Fields, RequestError
from keisei_lightning.serve.games import Games, ServedGame
from keisei_lightning.serve.policies import Policies
from keisei_lightning.serve.table import SIDES, Seating, Table
from keisei_lightning.serve.work_threads import WorkThread

__all__ = ["GONE", "play_routes"]

T = TypeVar("T")

GONE = 499
"""Status of an answer that nobody gets, as other servers write it."""

_MAX_SIMULATIONS = 10_000
_MAX_TEMPERATURE = 2.0
_MAX_PLY = 100_000


def play_routes(games: Games, policies: Policies, *, files: WorkThread, loader: WorkThread) -> list[Route]:
    """Routes below ``/api`` for playing.

    Args:
        games: that are being played.
        policies: that can be chosen.
        files: reads the results folder.
        loader: loads policies, which takes seconds.
    """
    api = _PlayRequests(games, policies, files, loader)

    def of_game(path: str, handler: Callable[[ServedGame, Request], Awaitable[Response]], method: str) -> Route:
        async def endpoint(request: Request) -> Response:
            return await handler(games.find(request.path_params["key"]), request)

        return Route(f"/api/games/{{key}}{path}", endpoint, methods=[method])

    return [
        Route("/api/choices", api.choices),
        Route("/api/games", api.new, methods=["POST"]),
        of_game("", api.state, "GET"),
        of_game("/record", api.record, "GET"),
        of_game("/plies/{ply}", api.look, "GET"),
        of_game("/moves", api.move, "POST"),
        of_game("/reply", api.reply, "POST"),
        of_game("/undo", api.undo, "POST"),
        of_game("/resign", api.resign, "POST"),
        of_game("/seating", api.seat, "POST"),
        of_game("/hint", api.hint, "POST"),
        of_game("/values", api.evaluate, "POST"),
    ]


class _PlayRequests:
    def __init__(self, games: Games, policies: Policies, files: WorkThread, loader: WorkThread) -> None:
        self._games, self._policies, self._files, self._loader = games, policies, files, loader

    async def choices(self, request: Request) -> Response:
        """What a new game can be made of."""
        policies = await self._files.run(lambda _: self._policies.choices())
        return JSONResponse(
            {
                "policies": [policy.to_json() for policy in policies],
                "sides": SIDES,
                "max_simulations": _MAX_SIMULATIONS,
                "max_temperature": _MAX_TEMPERATURE,
            }
        )

    async def new(self, request: Request) -> Response:
        """A new game, or a saved one."""
        fields = await _fields(request)
        key, seating = fields.text("policy"), _seating(fields)
        position = fields.optional_text("position", longest=2000)
        record = fields.optional_text("record", longest=1_000_000)
        fields.done()
        if position is not None and record is not None:
            raise RequestError(400, "position: a saved game has a position of its own; give one of the two")
        policy = await self._files.run(lambda _: self._policies.find(key))
        agent = await self._loader.run(lambda _: self._policies.load(policy))
        game = await self._games.new(agent, seating, position=position, record=record)
        return JSONResponse(game.state(), status_code=201)

    async def state(self, game: ServedGame, request: Request) -> Response:
        """The game; nothing (204) if the client has seen it as it is."""
        state = game.state()
        if request.query_params.get("version") == f"{state['version']}-{int(state['is_thinking'])}":
            return Response(status_code=204)
        return JSONResponse(state)

    async def move(self, game: ServedGame, request: Request) -> Response:
        """A person's move."""
        fields = await _fields(request)
        name, ply = fields.text("move", longest=60), _ply(fields)
        fields.done()
        return await _changed(game, ply, lambda table: table.play(name))

    async def undo(self, game: ServedGame, request: Request) -> Response:
        """Moves are taken back."""
        return await _changed(game, await _only_ply(request), Table.undo)

    async def resign(self, game: ServedGame, request: Request) -> Response:
        """A person gives up."""
        return await _changed(game, await _only_ply(request), Table.resign)

    async def seat(self, game: ServedGame, request: Request) -> Response:
        """Who plays, and how strong, from now on."""
        fields = await _fields(request)
        seating = _seating(fields)
        fields.done()

        def change(table: Table) -> None:
            table.seating = seating

        return await _changed(game, None, change)

    async def reply(self, game: ServedGame, request: Request) -> Response:
        """The policy's move, when it has made it."""
        (await _fields(request)).done()
        return await _while_there(request, game.reply(), lambda _: game.state())

    async def hint(self, game: ServedGame, request: Request) -> Response:
        """What the policy thinks of a position."""
        fields = await _fields(request)
        ply, simulations = _ply(fields), _simulations(fields)
        fields.done()
        look = game.look(lambda table, stop: table.hint(ply, simulations, stop))
        return await _while_there(request, look, lambda found: found)

    async def evaluate(self, game: ServedGame, request: Request) -> Response:
        """The graph's missing numbers, some of them."""
        (await _fields(request)).done()
        return await _while_there(request, game.evaluate(), lambda more: {"is_more": more, **game.state()})

    async def look(self, game: ServedGame, request: Request) -> Response:
        """An earlier position."""
        text = request.path_params["ply"]
        ply = int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else -1
        if ply < 0:
            raise RequestError(404, "there is no such ply")
        return JSONResponse(await game.look(lambda table, _: table.look(ply)))

    async def record(self, game: ServedGame, request: Request) -> Response:
        """The game as a file."""
        text = await game.look(lambda table, _: table.record())
        headers = {"content-disposition": 'attachment; filename="game.json"'}
        return Response(text, media_type="application/json", headers=headers)


async def _changed(game: ServedGame, ply: int | None, change: Callable[[Table], None]) -> Response:
    await game.change(ply, change)
    return JSONResponse(game.state())


async def _while_there(request: Request, work: Coroutine[Any, Any, T], answer: Callable[[T], object]) -> Response:
    """Work for a client, as long as it waits."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_has_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(answer(await task)) if task.done() else Response(status_code=GONE)
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.wait({task, gone})


async def _has_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _fields(request: Request) -> Fields:
    return Fields.parse(await request.body())


async def _only_ply(request: Request) -> int:
    fields = await _fields(request)
    ply = _ply(fields)
    fields.done()
    return ply


def _ply(fields: Fields) -> int:
    return fields.whole("ply", low=0, high=_MAX_PLY)


def _simulations(fields: Fields) -> int:
    return fields.whole("simulations", low=0, high=_MAX_SIMULATIONS)


def _seating(fields: Fields) -> Seating:
    return Seating(
        side=fields.choice("side", choices=SIDES),
        simulations=_simulations(fields),
        temperature=fields.number("temperature", low=0.0, high=_MAX_TEMPERATURE),
    )
