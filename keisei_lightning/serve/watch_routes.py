"""Requests of the page on which trainings are watched. It is fed from the runs' folders alone, and writes nothing."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from keisei_lightning.results_folder import CurveReader
from keisei_lightning.serve.fields import RequestError
from keisei_lightning.serve.run_files import RunFolder, read_tail, run_folders
from keisei_lightning.serve.work_threads import WorkThread
from keisei_lightning.training.live_file import LiveBoard

__all__ = ["watch_routes"]

_KEPT = 32
"""Runs whose curves, and whose games in progress, are kept in memory."""

_LISTED_S = 1.0
_LOG_BYTES = 6000
_MAX_PICTURE_BYTES = 2_000_000
_PICTURE_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'"


def watch_routes(folder: Path, files: WorkThread) -> list[Route]:
    """Routes below ``/api`` for watching.

    Args:
        folder: with the runs.
        files: reads them.
    """
    runs = _Runs(folder)

    async def listed(request: Request) -> Response:
        return JSONResponse(await files.run(lambda _: runs.to_json()))

    async def one(request: Request) -> Response:
        query = request.query_params
        generation, row = _whole(query.get("generation", "0")), _whole(query.get("row", "0"))
        is_whole = query.get("is_whole", "true") == "true"
        key = request.path_params["key"]
        return JSONResponse(await files.run(lambda _: runs.one(key, generation, row, is_whole=is_whole)))

    async def picture(request: Request) -> Response:
        text = await files.run(lambda _: runs.picture(request.path_params["key"]))
        return _picture(text)

    async def board(request: Request) -> Response:
        key, number = request.path_params["key"], request.path_params["number"]
        return _picture(await files.run(lambda _: runs.board(key, number)))

    return [
        Route("/api/runs", listed),
        Route("/api/runs/{key}", one),
        Route("/api/runs/{key}/last_game.svg", picture),
        Route("/api/runs/{key}/boards/{number:int}.svg", board),
    ]


def _picture(svg: bytes | str) -> Response:
    """A picture in which nothing can run."""
    return Response(svg, media_type="image/svg+xml", headers={"content-security-policy": _PICTURE_POLICY})


class _Runs:
    """The results folder, looked through now and then. It is used by one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed: tuple[float, list[RunFolder]] = (-_LISTED_S, [])
        self._curves: OrderedDict[str, CurveReader] = OrderedDict()
        self._boards: OrderedDict[str, tuple[LiveBoard, ...]] = OrderedDict()

    def list(self) -> list[RunFolder]:
        if time.monotonic() - self._listed[0] >= _LISTED_S:
            self._listed = (time.monotonic(), run_folders(self._folder))
        return self._listed[1]

    def to_json(self) -> dict[str, Any]:
        now = time.time()
        return {
            "folder": str(self._folder).encode("utf-8", "replace").decode(),
            "runs": [
                {"key": run.key, "name": run.name, "game": run.game, "idle_s": max(0.0, now - run.changed_at)}
                for run in self.list()
            ],
        }

    def one(self, key: str, generation: int, row: int, *, is_whole: bool) -> dict[str, Any]:
        run = self._find(key)
        curves = self._curves.setdefault(key, CurveReader())
        self._curves.move_to_end(key)
        while len(self._curves) > _KEPT:
            self._curves.popitem(last=False)
        curves.read(run.file("csv/metrics.csv"))
        about = {"key": key, "name": run.name, "game": run.game, "idle_s": max(0.0, time.time() - run.changed_at)}
        rows = curves.since(generation, row)
        if not is_whole:
            return {**about, **rows}
        picture = run.file("last_game.svg")
        return {
            **about,
            **rows,
            "league": run.league(),
            "log": read_tail(run.file("train.log"), _LOG_BYTES),
            "config": run.config_text(),
            "picture": 0 if picture is None else picture.stat().st_mtime_ns // 1_000_000,
            "live": self._live(run),
        }

    def _live(self, run: RunFolder) -> dict[str, Any] | None:
        found = run.live()
        if found is None:
            return None
        state, age_s = found
        self._boards[run.key] = state.boards  # the pictures that a client asks for next are of this state
        self._boards.move_to_end(run.key)
        while len(self._boards) > _KEPT:
            self._boards.popitem(last=False)
        return {
            "age_s": age_s,
            "stamp": round(1000 * state.time_s),
            "workers": [asdict(worker) for worker in state.workers],
            "boards": [{"worker": each.worker, "board": each.board, "ply": each.ply} for each in state.boards],
        }

    def board(self, key: str, number: int) -> str:
        boards = self._boards.get(key, ())
        if number >= len(boards):
            raise RequestError(404, "there is no such game in progress")
        return boards[number].svg

    def picture(self, key: str) -> bytes:
        file = self._find(key).file("last_game.svg")
        if file is None or file.stat().st_size > _MAX_PICTURE_BYTES:
            raise RequestError(404, "this run has no picture of a game")
        return file.read_bytes()

    def _find(self, key: str) -> RunFolder:
        for run in self.list():
            if run.key == key:
                return run
        raise RequestError(404, "there is no such run here")


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise RequestError(400, "generation and row must be whole numbers")
    return int(text)
