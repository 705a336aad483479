"""Who may ask: every request passes here before anything else looks at it.

A page of another site that a person has open can send requests to this machine, and its server can make its own name
mean this machine (DNS rebinding). So the Host header must name this server, an Origin header must be this server's own,
and what changes anything must be JSON, which no form of another site can send. Beyond this machine a token is needed as
well; it comes once in the address, and then in a cookie that no script can read and no other site can send.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "hosts_of", "is_loopback"]

MAX_BODY_BYTES = 1_100_000
"""A saved game has at most a million characters."""

BODY_TIMEOUT_S = 20.0

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether a host is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hosts_of(host: str) -> frozenset[str] | None:
    """Names by which a server that listens at a host may be called; None: any address, since it listens at all of them.

    Args:
        host: name or address that it listens at.
    """
    if is_loopback(host):
        return frozenset({"localhost", "127.0.0.1", "::1", host})
    if host in ("0.0.0.0", "::"):
        return None
    return frozenset({host.lower()})


class Guard:
    """An ASGI application around another one, which sees only what may be asked.

    Args:
        app: the other one.
        hosts: see :func:`hosts_of`.
        token: that must be known; None: this machine alone can ask.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str] | None, token: str | None) -> None:
        self._app, self._hosts, self._token = app, hosts, token
        self._own_names = {"localhost", socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                extra = [(key.encode(), value.encode()) for key, value in _HEADERS.items() if key.encode() not in given]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        if scope["method"] not in ("POST",):
            await self._app(scope, receive, send_with_headers)
            return
        try:
            body = await asyncio.wait_for(_body(receive), BODY_TIMEOUT_S)
        except TimeoutError:
            await _say(408, "the request's body did not come in time")(scope, receive, send_with_headers)
            return
        if body is None:
            refusal = _say(413, f"the request has more than {MAX_BODY_BYTES} bytes")
            await refusal(scope, receive, send_with_headers)
            return
        await self._app(scope, _replay(body, receive), send_with_headers)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """The answer to what may not be asked; None: it may."""
        host = headers.get("host", "")
        if not self._is_own(host):
            return _say(421, "this server is not called so; see the address that it printed")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host.lower():
            return _say(403, "another site may not ask this server")
        is_foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        # A link from another site shows a page, which asks for nothing yet.
        if is_foreign and (scope["method"] != "GET" or headers.get("sec-fetch-mode") != "navigate"):
            return _say(403, "another site may not ask this server")
        if scope["method"] == "POST" and headers.get("content-type", "").partition(";")[0].strip() != _JSON:
            return _say(415, f"the content type must be {_JSON}")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 12 or int(length) > MAX_BODY_BYTES:
            return _say(413, f"the request has more than {MAX_BODY_BYTES} bytes")
        return self._token_refusal(scope, headers)

    def _token_refusal(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        if self._token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        given = [value for key, value in query if key == "token"]
        cookie = _cookies(headers.get("cookie", "")).get(_COOKIE, "")
        if given and self._is_token(given[:1]):
            rest = urlencode([(key, value) for key, value in query if key != "token"])
            answer = RedirectResponse(scope["path"] + (f"?{rest}" if rest else ""), status_code=303)
            answer.set_cookie(_COOKIE, self._token, httponly=True, samesite="strict", path="/")
            return answer
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self._is_token([cookie, bearer]):
            return None
        return _say(401, "a token is needed: open the address that the server printed")

    def _is_token(self, values: Iterable[str]) -> bool:
        assert self._token is not None
        token = self._token.encode()
        return any([hmac.compare_digest(value.encode("utf-8", "replace"), token) for value in values])

    def _is_own(self, host: str) -> bool:
        name = _name(host)
        if name is None:
            return False
        if self._hosts is not None:
            return name in self._hosts
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._own_names
        return True


_COOKIE = "keisei_token"
_JSON = "application/json"


def _cookies(header: str) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}


def _name(host: str) -> str | None:
    """The name in a Host header, without its port; None: it cannot be read."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
        return parts.hostname if parts.netloc == host and not parts.username else None
    except ValueError:
        return None


def _netloc(origin: str) -> str | None:
    """Host and port of an Origin header; None: it cannot be read."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _say(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status)


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None: it is too long."""
    parts, length = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body in one message, and then what comes after it: that the client has gone."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
