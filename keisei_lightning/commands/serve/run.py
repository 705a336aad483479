"""Listens, says where, and serves until a signal comes."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import webbrowser

import uvicorn

from keisei_lightning.commands.serve.options import ServeOptions
from keisei_lightning.errors import ConfigError
from keisei_lightning.serve import make_site
from keisei_lightning.serve.guard import is_loopback
from keisei_lightning.system.console import say

__all__ = ["serve"]

_MAX_CONNECTIONS = 256
_GRACE_S = 2
"""How long a request may go on after the signal."""


def serve(options: ServeOptions) -> None:
    """Serve the site.

    Args:
        options: read from the command line.

    Raises:
        ConfigError: nothing can listen there, the checkpoint cannot be read, or the folder is none.
        Stopped: a signal ended it.
    """
    if os.path.lexists(options.folder) and not os.path.isdir(options.folder):
        raise ConfigError(f"folder={options.folder}: is no folder; must be the folder of all runs")
    token = options.token
    if token is None and not is_loopback(options.host):
        token = secrets.token_urlsafe(24)
    with _listen(options.host, options.port) as listener:
        site = make_site(
            options.folder,
            checkpoint=options.checkpoint,
            host=options.host,
            token=token,
            device=options.device,
            max_games=options.max_games,
            threads=options.threads,
        )
        address = _address(options.host, listener.getsockname()[1], token)
        if not os.path.isdir(options.folder):
            say(f"folder={options.folder}: is not there yet; trainings will be seen once it is")
        sys.stdout.write(f"keisei serves at {address}\nCtrl-C ends it\n")
        sys.stdout.flush()
        if options.open:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        config = uvicorn.Config(
            site,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE_S,
            ws="none",
        )
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a port in use is told before anything is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"host={host} port={port}: must be an address to listen at ({reason})") from error
    return listener


def _address(host: str, port: int, token: str | None) -> str:
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + ("" if token is None else f"?token={token}")
