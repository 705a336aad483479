"""The site at an address of this machine, for the length of a test."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from keisei_lightning.serve import make_site

__all__ = ["policy_key", "running_site", "site_client"]


@contextlib.contextmanager
def running_site(folder: Path, **options: Any) -> Iterator[str]:
    """A server in a thread; gives its address, such as ``http://127.0.0.1:40123``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(make_site(folder, **options), log_level="error", ws="none", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def site_client(folder: Path, **options: Any) -> Iterator[httpx.Client]:
    """A client of such a server."""
    with running_site(folder, **options) as address, httpx.Client(base_url=address, timeout=120) as client:
        yield client


def policy_key(client: httpx.Client, game: str, kind: str = "search") -> str:
    """What the list calls a policy of a game."""
    policies = client.get("/api/choices").json()["policies"]
    return str(next(each["key"] for each in policies if each["game"] == game and each["kind"] == kind))
