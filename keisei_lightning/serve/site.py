"""The whole site as one ASGI application: pages, requests, and who may ask."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from keisei_lightning.errors import KeiseiError
from keisei_lightning.serve.fields import RequestError
from keisei_lightning.serve.games import Games
from keisei_lightning.serve.guard import Guard, hosts_of
from keisei_lightning.serve.play_routes import play_routes
from keisei_lightning.serve.policies import Policies
from keisei_lightning.serve.watch_routes import watch_routes
from keisei_lightning.serve.work_threads import WorkThread, WorkThreads

__all__ = ["make_site"]

_MAX_READS, _MAX_LOADS = 128, 8
"""So many may wait to have a file read, or a policy loaded."""

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PAGES = {"/": "play.html", "/watch": "watch.html"}


def make_site(
    folder: str | Path,
    *,
    checkpoint: str | None = None,
    host: str = "127.0.0.1",
    token: str | None = None,
    device: str = "cpu",
    max_games: int = 64,
    threads: int = 2,
) -> ASGIApp:
    """Make the site, for any ASGI server.

    Args:
        folder: with the runs of trainings; nothing outside is read.
        checkpoint: of a policy to be offered first; None: none.
        host: that the server listens at.
        token: that a client must know; None: anybody on this machine may ask.
        device: of the networks.
        max_games: that are kept at once.
        threads: so many searches run side by side.

    Raises:
        ConfigError: the checkpoint cannot be read.
    """
    folder = Path(folder)
    policies = Policies(folder, checkpoint=checkpoint, device=device)
    games = Games(WorkThreads(threads), max_games=max_games)
    reader = WorkThread(max_waiting=_MAX_READS, name="keisei-files")
    loader = WorkThread(max_waiting=_MAX_LOADS, name="keisei-policies")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        games.close()
        reader.close()
        loader.close()

    app = Starlette(
        routes=[
            *_static_routes(),
            *play_routes(games, policies, files=reader, loader=loader),
            *watch_routes(folder, reader),
        ],
        lifespan=lifespan,
        exception_handlers={KeiseiError: _failed, HTTPException: _refused},
    )
    return Guard(app, hosts=hosts_of(host), token=token)


async def _failed(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, RequestError) else 400
    return JSONResponse({"error": " ".join(str(error).split())}, status_code=status)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


def _static_routes() -> list[Route]:
    """A route for each file that comes with the package, read once: no path of a client's is ever opened."""
    folder = files("keisei_lightning.serve") / "static"
    contents = {file.name: file.read_bytes() for file in folder.iterdir() if Path(file.name).suffix in _TYPES}
    paths = {f"/static/{name}": name for name in contents if not name.endswith(".html")} | _PAGES
    return [_static(path, contents[name], _TYPES[Path(name).suffix]) for path, name in paths.items()]


def _static(path: str, content: bytes, media_type: str) -> Route:
    async def endpoint(request: Request) -> Response:
        return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    return Route(path, endpoint)
